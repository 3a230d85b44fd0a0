"""Networks from anywhere: models of timm, ONNX files, modules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import Tensor, nn

from compress import Artifact, Context, Dataset, Preprocessing, Quantize, load_data, run_stages
from compress.networks.as_artifact import as_artifact
from compress.networks.network_source import GivenModule, OnnxFile, Timm, network_of
from compress.networks.onnx_export import export_onnx, onnx_bytes
from compress.networks.timm_network import timm_for, timm_of
from compress.networks.torch_export import export_module
from compress.stages.deployed_file import deploy
from hw_profiles import Budget, load_device
from hw_profiles.errors import InputError
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.profiling import workload_of
from search_spaces import preset
from tests.parameters import slow
from tests.prunings import prune_module

RECORD = Preprocessing(
    channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=tuple(map(str, range(10)))
)
SMALL = timm_for("mobilenetv3_small_050", (3, 32, 32), 10)


def made_of(source: Timm) -> tuple[Artifact, nn.Module]:
    """The artifact of a module of timm with random weights of its own, and that module."""
    torch.manual_seed(3)
    module = timm.create_model(source.name, **source.kwargs).eval()
    return Artifact(source=source, weights={}, preprocessing=RECORD).with_model(module), module


def test_a_model_of_timm_comes_back_from_its_folder(tmp_path: Path) -> None:
    artifact, module = made_of(SMALL)
    artifact.save(tmp_path)
    again = Artifact.load(tmp_path)
    assert again.source == SMALL
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again.model()(x), module(x))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_network_says_the_same_of_itself_whatever_it_came_from(tmp_path: Path) -> None:
    arch = preset("resnet8", input_shape=(3, 32, 32), num_classes=10)
    file = OnnxFile(data=onnx_bytes(as_artifact(arch, None)), label="net.onnx")
    module = GivenModule(module=nn.Conv2d(3, 4, 1), stated_shape=(3, 32, 32))
    networks = [network_of(each) for each in (arch, file, module, timm_for("resnet18", (3, 32, 32), 10))]
    assert [each.label for each in networks] == [f"Arch {arch.id}", "net.onnx", "Conv2d", "timm:resnet18"]
    assert [each.input_shape for each in networks] == [(3, 32, 32)] * 4
    assert [each.workload().shapes[each.workload().input] for each in networks] == [(1, 3, 32, 32)] * 4
    assert [each.file for each in networks] == [None, file, None, None]
    described = [each.by_description(lambda found: found, lambda: None) for each in networks]
    assert described == [arch, None, None, None]
    assert [each.write(tmp_path) for each in networks if each is not module] == ["arch", "onnx", "timm"]
    for call in (networks[1].build, module.require_savable, lambda: module.write(tmp_path), lambda: networks[1].arch):
        with pytest.raises(InputError):
            call()


def test_a_model_of_timm_costs_what_its_module_costs() -> None:
    module = timm.create_model("resnet18", num_classes=10)
    source = timm_for("resnet18", (3, 64, 64), 10)
    assert source.workload().macs == workload_of(module, (3, 64, 64)).macs
    assert source.workload().params == sum(p.numel() for p in module.parameters())
    assert torch.equal(source.build().conv1.weight, source.build().conv1.weight)


def test_pruned_channels_are_cut_out_again_where_they_were() -> None:
    whole = timm_for("resnet18", (3, 32, 32), 10)
    pruned = prune_module(whole.build(), (3, 32, 32), load_device("host"), amount=0.3)
    source = replace(whole, kept=pruned.kept)
    again = Timm.from_json(source.to_json()).build()
    again.load_state_dict(pruned.model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again.eval()(x), pruned.model.eval()(x))
    assert source.workload().macs == workload_of(pruned.model, (3, 32, 32)).macs < whole.workload().macs
    with pytest.raises(ValueError, match="conv1 must be ascending numbers below 64"):
        replace(source, kept={"conv1": (0, 64)}).build()
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        replace(source, kept={"conv9": (0,)}).build()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "resnet18x"}, "timm has no model 'resnet18x'; did you mean 'resnet18'"),
        ({"name": "hf-hub:someone/model"}, "timm has no model"),
        ({"kwargs": {"checkpoint_path": "x.pth"}}, "'checkpoint_path' must not be given"),
        ({"kwargs": {"pretrained": True}}, "'pretrained' must not be given"),
        ({"kwargs": {"num_classes": 10**9}}, "num_classes must be a str, a bool, a number of at most 65536"),
        ({"kwargs": {"act_layer": {"a": 1}}}, "act_layer must be a str"),
        ({"kwargs": {"nonsense": 3}}, "cannot be made with"),
        ({"kwargs": {"depth": 2049}}, "depth must be a str, a bool, a number of at most 2048"),
        (
            {"name": "vit_tiny_patch16_224", "kwargs": {"embed_dim": 2048, "num_heads": 8, "depth": 48}},
            "at most 2147483648 bytes",
        ),
        ({"input_shape": [3, 10**9, 3]}, "input_shape must be three sides"),
        ({"input_shape": [3, "a", 3]}, "not the JSON of a model of timm"),
        ({"kept": {"conv1": [3, 1]}}, "must be ascending channels"),
        ({"kept": {"conv1": []}}, "at least one"),
        ({"kept": {"conv1": ["a"]}}, "not the JSON of a model of timm"),
        ({"schema": 7}, "schema must be 1, got 7"),
        ({"kwargs": 3}, "not the JSON of a model of timm"),
    ],
)
def test_a_source_from_a_hostile_file_is_refused(changes: dict[str, object], said: str) -> None:
    plain = timm_for("resnet18", (3, 32, 32), 10).to_dict()
    with pytest.raises(ValueError, match=said) as caught:
        Timm.from_json(json.dumps({**plain, **changes})).build()
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


def test_a_module_that_timm_made_is_known_again() -> None:
    module = timm.create_model("resnet18", num_classes=7, in_chans=1)
    assert timm_of(module, (1, 32, 32)) == Timm(
        name="resnet18", input_shape=(1, 32, 32), kwargs={"num_classes": 7, "in_chans": 1}
    )
    assert timm_of(nn.Linear(2, 2), (1, 32, 32)) is None


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet18", slow("efficientnet_b0")])
def test_an_exported_module_is_the_module_for_any_batch(name: str) -> None:
    artifact, module = made_of(timm_for(name, (3, 32, 32), 10))
    session = open_session(onnx_bytes(artifact))
    x = np.random.default_rng(1).standard_normal((5, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, rtol=1e-3, atol=1e-4)
    kinds = {node.op_type for node in onnx.load_model_from_string(onnx_bytes(artifact)).graph.node}
    assert not kinds & {"BatchNormalization", "Shape"}


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + torch.rand(1)


class Ways(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.boxes, self.scores = nn.Conv2d(3, 4, 1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> dict[str, object]:
        boxes = self.boxes(x)
        return {"boxes": boxes, "none": None, "input": [x, (self.scores(x.mean((2, 3))), boxes)], "mean": x.mean()}


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Random(), "Random: the exported file differs from the module"),
        (Ways(), "Ways: control flow that depends on the values of the input"),
        (nn.Linear(3, 2), "Linear: cannot be run with an input of"),
    ],
)
def test_a_module_that_cannot_be_exported_is_named(module: nn.Module, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        export_module(module, (3, 5, 4))
    assert len(str(caught.value).splitlines()) == 1


def test_several_outputs_have_the_names_of_their_places() -> None:
    module = Several().eval()
    session = open_session(export_module(module, (3, 5, 4)))
    x = torch.rand(1, 3, 5, 4)
    made = dict(zip((o.name for o in session.get_outputs()), session.run(None, {"input": x.numpy()}), strict=True))
    assert list(made) == ["boxes", "input_0", "input_1_0", "input_1_1", "mean"]
    assert np.allclose(made["boxes"], module.boxes(x).detach(), atol=1e-5)
    assert np.array_equal(made["input_1_1"], made["boxes"])
    assert np.array_equal(made["input_0"], x)
    assert np.allclose(made["input_1_0"], module.scores(x.mean((2, 3))).detach(), atol=1e-5)


def test_outputs_of_a_whole_batch_have_it_open() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return x.mean((2, 3)), {"input": x + 1}

    session = open_session(export_module(Pair(), (3, 5, 4)))
    assert [(o.name, o.shape) for o in session.get_outputs()] == [
        ("output_0", ["N", 3]), ("output_1_input", ["N", 3, 5, 4])
    ]  # fmt: skip


def test_a_graph_that_is_right_for_one_image_only_says_so() -> None:
    class Viewed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(x.shape[0], -1)

    assert open_session(export_module(Viewed(), (3, 4, 4))).get_inputs()[0].shape == [1, 3, 4, 4]


def test_an_onnx_file_is_kept_as_it_is_and_not_trained(tmp_path: Path) -> None:
    workload = preset("resnet8").workload()
    data = write_onnx(workload)
    (tmp_path / "m.onnx").write_bytes(data)
    artifact = Artifact(source=OnnxFile.read(tmp_path / "m.onnx"), weights={}, preprocessing=RECORD)
    assert (artifact.precision, artifact.workload().macs) == ("fp32", workload.macs)
    artifact.save(tmp_path / "a")
    again = Artifact.load(tmp_path / "a")
    assert onnx_bytes(again) == data
    with pytest.raises(ValueError, match=r"m\.onnx: an ONNX file cannot be trained"):
        artifact.model()
    with pytest.raises(ValueError, match=r"a network of blocks \(Arch\) is needed, got .*m.onnx"):
        assert artifact.arch
    assert OnnxFile(data=write_onnx(workload, quantization=fixed_quantization(workload))).precision == "int8"
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not an ONNX file"):
        OnnxFile.read(tmp_path / "bad.onnx")


def test_a_module_cannot_be_saved_and_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    source = GivenModule(module=module, stated_shape=(1, 32, 32))
    data = load_data("digits")
    artifact = Artifact(source=source, weights={}, preprocessing=data.preprocessing).with_model(module)
    export_onnx(artifact, tmp_path / "m.onnx")
    context = Context(data=data, device=load_device("host"), measured=False)
    for refused in (
        lambda: artifact.save(tmp_path / "a"),
        lambda: deploy(artifact, context, tmp_path / "b"),
        lambda: run_stages(artifact, [], context, tmp_path / "c"),
    ):
        with pytest.raises(ValueError, match="Sequential: a module cannot be saved"):
            refused()
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    nowhere = replace(artifact, source=replace(source, stated_shape=None))
    with pytest.raises(ValueError, match="input_shape is required for modules"):
        onnx_bytes(nowhere)


def few_digits() -> Dataset:
    data = load_data("digits")
    parts = {part: getattr(data, part).some(120, 0) for part in ("train", "val", "test")}
    return replace(data, **parts)


def test_a_model_of_timm_goes_through_the_stages(tmp_path: Path) -> None:
    """Its file is written, run and measured like that of an Arch, and the folder is found again."""
    data = few_digits()
    artifact, _ = made_of(timm_for("mobilenetv3_small_050", (1, 32, 32), 10))
    artifact = replace(artifact, preprocessing=data.preprocessing)
    context = Context(data=data, device=load_device("host"), measured=False)
    done = run_stages(artifact, [], context, tmp_path)
    metrics = done.metrics
    assert metrics["macs"] == artifact.source.workload().macs
    assert metrics["val_differing_from_pytorch"] == 0
    assert metrics["file_bytes"] == (tmp_path / "00_start" / "model.onnx").stat().st_size
    assert run_stages(artifact, [], context, tmp_path).metrics == metrics


@pytest.mark.slow
def test_int8_of_a_model_of_timm_is_a_stage_like_any_other(tmp_path: Path) -> None:
    """Kept or undone by the same rules, with its float weights beside the file, and found again."""
    data = few_digits()
    artifact, _ = made_of(timm_for("mobilenetv3_small_050", (1, 32, 32), 10))
    artifact = replace(artifact, preprocessing=data.preprocessing)
    context = Context(data=data, device=load_device("host"), measured=False, max_accuracy_drop=100.0)
    context = replace(context, budget=Budget(flash_bytes=1))
    stage = Quantize(calibration="minmax", equalize="none", bias_correction=False, images=32)
    done = run_stages(artifact, [stage], context, tmp_path)
    (record,) = done.history
    assert (record["accepted"], record["after"]["precision"], done.files["onnx"]) == (True, "int8", "model.int8.onnx")
    assert record["after"]["weight_bytes"] < 0.35 * record["before"]["weight_bytes"]
    again = run_stages(artifact, [stage], context, tmp_path)
    assert onnx_bytes(again) == (tmp_path / "01_int8" / "model.int8.onnx").read_bytes()
    assert torch.equal(again.weights["conv_stem.weight"], artifact.weights["conv_stem.weight"])
