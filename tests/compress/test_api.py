"""One line for each way to make a network smaller, on every kind of model."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import compress
from compress import (
    Artifact,
    Cluster,
    Context,
    Dataset,
    Distill,
    Encode,
    Ensemble,
    Quantize,
    Recipe,
    Sparsify,
    load_data,
)
from compress.api import _mixed_where_it_loses, _teachers
from compress.fnz import decode_onnx, encode_onnx
from compress.networks.as_artifact import as_artifact, as_dataset, fitted
from compress.networks.network_source import Timm
from compress.networks.onnx_export import onnx_bytes
from compress.training.evaluation import evaluate
from compress.training.loop import train
from compress.weight_codecs.onnx_storage import weights_of
from hw_profiles import Budget, load_device
from hw_profiles.onnx_io.session import open_session
from search_spaces import build_model, preset
from tests.parameters import quick, slow

ARCH = preset("resnet8", input_shape=(1, 16, 16))
SHORT = Recipe(epochs=0.2)
MINMAX = Quantize(calibration="minmax", equalize="none", bias_correction=False, images=64)
DOCS = Path(__file__).parents[2] / "docs" / "compression.md"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits").resized(16, 16)


@pytest.fixture(scope="module")
def few(data: Dataset) -> Dataset:
    """With fewer images to calibrate, prune and train by."""
    return replace(data, train=data.train.some(200, 0))


@pytest.fixture(scope="module")
def learnt(data: Dataset) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    train(module, data, Recipe(epochs=12))
    return module


def timms() -> nn.Module:
    torch.manual_seed(1)
    model: nn.Module = timm.create_model("mobilenetv3_small_050", num_classes=10, in_chans=1)
    return model


def right(file: bytes, data: Dataset) -> float:
    """Accuracy on the validation images of a file run by itself."""
    session = onnxruntime.InferenceSession(file)
    x = data.preprocessing.tensor(data.val.images)
    return float(np.mean(session.run(None, {session.get_inputs()[0].name: x})[0].argmax(1) == data.val.labels))


def exported(learnt: nn.Module, folder: Path) -> Path:
    path = folder / "m.onnx"
    torch.onnx.export(learnt.eval(), (torch.zeros(1, 1, 16, 16),), path, dynamo=False, dynamic_axes={"x": {0: "N"}},
                      input_names=["x"])  # fmt: skip
    return path


def models(learnt: nn.Module, folder: Path) -> dict[str, Any]:
    """One of each kind that a call takes."""
    path = exported(learnt, folder)
    empty = compress.cluster(ARCH, clusters=16)
    return {"module": learnt, "arch": ARCH, "artifact": empty, "timm": timms(), "file": path, "text": str(path)}


@pytest.mark.parametrize("kind", ["module", "arch", "artifact", slow("timm"), "file", "text"])
def test_any_model_becomes_int8(kind: str, learnt: nn.Module, data: Dataset, tmp_path: Path) -> None:
    model = models(learnt, tmp_path)[kind]
    after = compress.quantize(model, data, Quantize(images=64) if kind == "module" else MINMAX)
    assert after.precision == "int8"
    file = onnx_bytes(after)
    types = {tensor.data_type for tensor in onnx.load_model_from_string(file).graph.initializer}
    assert onnx.TensorProto.INT8 in types
    assert after.metrics["val_accuracy"] == right(file, data)
    assert after.metrics["file_bytes"] == len(file) < 0.8 * after.metrics["file_bytes_before"]
    if kind in ("module", "file", "text"):
        assert after.metrics["val_accuracy_before"] == evaluate(learnt, data.val, data.preprocessing) > 0.6
        assert after.metrics["val_accuracy"] > after.metrics["val_accuracy_before"] - 0.1


def test_a_module_is_left_as_it_was_given(learnt: nn.Module, data: Dataset, few: Dataset) -> None:
    module = copy.deepcopy(learnt).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    distilled = Distill(recipe=SHORT)
    calls: list[Callable[[], Artifact]] = [
        lambda: compress.quantize(module, few),
        lambda: compress.sparsify(module, amount=0.5),
        lambda: compress.sparsify(module, data, Sparsify(recipe=SHORT)),
        lambda: compress.cluster(module, clusters=4),
        lambda: compress.distill(module, data, distilled, teacher=learnt),
    ]
    for call in calls:
        after = call()
        assert after.model()(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
        assert module.training
        assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_a_compiled_module_is_the_module(learnt: nn.Module, few: Dataset) -> None:
    compiled = torch.compile(learnt)
    assert onnx_bytes(compress.quantize(compiled, few, MINMAX)) == onnx_bytes(compress.quantize(learnt, few, MINMAX))


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv3d(1, 8, (1, 3, 3)), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.first(x.unsqueeze(1)).relu().mean((2, 3, 4)))
        return found


def test_a_module_with_weights_of_volumes_is_trained(few: Dataset) -> None:
    done = compress.sparsify(Volume(), few, Sparsify(recipe=SHORT), amount=0.5)
    assert int(done.model().first.weight.count_nonzero()) < 72


@contextmanager
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "settings",
    [
        torch.no_grad, torch.inference_mode, double_precision, lambda: torch.device("meta"),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ],
    ids=["no_grad", "inference_mode", "float64", "device", "autocast"],
)  # fmt: skip
def test_what_the_caller_has_set_in_torch_changes_nothing(
    settings: Callable[[], AbstractContextManager[None]], learnt: nn.Module, few: Dataset
) -> None:
    calls: dict[str, Callable[[], Artifact]] = {
        "prune": lambda: compress.prune(learnt, few, compress.Prune(recipe=SHORT), amount=0.3),
        "sparsify": lambda: compress.sparsify(learnt, few, Sparsify(recipe=SHORT), amount=0.5),
        "cluster": lambda: compress.cluster(learnt, few, Cluster(recipe=SHORT), clusters=4),
        "distill": lambda: compress.distill(learnt, few, Distill(recipe=SHORT), teacher=learnt),
        "qat": lambda: compress.quantize(learnt, few, compress.QuantizeAware(recipe=SHORT)),
        "AdaRound": lambda: compress.quantize(learnt, few, replace(MINMAX, adaround=True)),
    }
    for name, call in calls.items():
        expected = onnx_bytes(call())
        with settings():
            assert onnx_bytes(call()) == expected, name
            after = torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu")
        with settings():
            assert after == (torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu"))


def test_weights_leave_and_are_shared_in_the_file_that_runs(learnt: nn.Module, data: Dataset) -> None:
    sparse = compress.sparsify(learnt, data, Sparsify(scope="layer", recipe=SHORT), amount=0.75)
    shared = compress.cluster(sparse, data, Cluster(recipe=SHORT), clusters=4)
    for artifact, values in ((sparse, 10**6), (shared, 5)):
        graph = onnx.load_model_from_string(onnx_bytes(artifact)).graph
        weights = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) > 1]
        assert len(weights) == 3
        for weight in weights:
            assert np.mean(weight == 0) == pytest.approx(0.75, abs=0.01)
            assert len(np.unique(weight)) <= values
        assert artifact.metrics["val_accuracy"] == right(onnx_bytes(artifact), data)


def test_zeros_stay_zeros_in_integers_and_cost_what_they_cost(data: Dataset) -> None:
    """In the ONNX file a zero takes its byte; in the coded file it does not."""
    sparse = compress.sparsify(ARCH, data, Sparsify(scope="layer", recipe=SHORT), amount=0.75)
    plain = compress.quantize(ARCH, data, Quantize(calibration="minmax", equalize="none", bias_correction=False))
    after = compress.quantize(sparse, data, Quantize(calibration="minmax", equalize="none", bias_correction=False))
    assert after.workload().weight_bytes == plain.workload().weight_bytes < sparse.workload().weight_bytes / 3
    assert (after.formats["stem.weight"].bits, after.formats["stem.weight"].density) == (
        8,
        pytest.approx(0.25, abs=0.01),
    )
    sizes = [len(encode_onnx(onnx_bytes(artifact))) for artifact in (plain, after)]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_teacher_may_be_any_model(learnt: nn.Module, data: Dataset, tmp_path: Path) -> None:
    """Each says class 3 of everything, and so does the student then."""
    small = plain()

    def stubborn(pixels: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.full((len(pixels),), 3), 10) * 20.0

    module = copy.deepcopy(learnt)
    with torch.no_grad():
        module[8].weight.zero_()
        module[8].bias.copy_(20.0 * nn.functional.one_hot(torch.tensor(3), 10))
    file = tmp_path / "teacher.onnx"
    torch.onnx.export(module.eval(), (torch.zeros(1, 1, 16, 16),), file, dynamo=False, input_names=["x"],
                      dynamic_axes={"x": {0: "N"}})  # fmt: skip
    config = Distill(recipe=Recipe(epochs=1, learning_rate=0.05), weight=1.0)
    for teacher in (stubborn, module, file, str(file)):
        after = compress.distill(small, data, config, teacher=teacher)
        with torch.inference_mode():
            said = after.model()(torch.from_numpy(data.preprocessing.tensor(data.val.images))).argmax(1)
        assert float((said == 3).float().mean()) > 0.95


def test_weights_of_a_file_leave_and_are_shared_as_those_of_its_module(tmp_path: Path) -> None:
    """No images, no training: a module whose normalization is folded already, and the file that torch exports of it."""
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )
    path = tmp_path / "m.onnx"
    torch.onnx.export(module.eval(), (torch.zeros(1, 1, 16, 16),), path, dynamo=False)

    x = np.random.default_rng(0).standard_normal((1, 1, 16, 16)).astype(np.float32)

    def logits(artifact: Artifact) -> np.ndarray:
        session = onnxruntime.InferenceSession(onnx_bytes(artifact))
        return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])

    def values(artifact: Artifact) -> list[np.ndarray]:
        found = weights_of(onnx.load_model_from_string(onnx_bytes(artifact)).graph)
        return [np.sort(weight.value.ravel()) for weight in found]

    sparse, expected = (
        compress.sparsify(m, amount=0.8) for m in (path, as_artifact(module, None, input_shape=(1, 16, 16)))
    )
    shared, wanted = compress.cluster(sparse, clusters=8), compress.cluster(expected, clusters=8)
    for got, right_ in ((sparse, expected), (shared, wanted)):
        for one, other in zip(values(got), values(right_), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        np.testing.assert_allclose(logits(got), logits(right_), atol=1e-5)
    assert sorted(f.density for f in shared.weight_formats.values()) == sorted(
        f.density for f in wanted.weight_formats.values()
    )
    assert {f.codebook for f in shared.weight_formats.values()} == {8}
    half = compress.sparsify(path, amount={"linear": 0.5})
    assert [round(float((v != 0).mean()), 2) for v in values(half)] == [1.0, 0.5]


def test_several_teachers_with_weights_are_models_too(learnt: nn.Module, data: Dataset) -> None:
    module = copy.deepcopy(learnt).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    alone, both = (_teachers(each, data) for each in (module, Ensemble([module, module], [2, 1])))
    pixels = torch.rand(5, 1, 16, 16)
    assert alone is not None
    assert both is not None
    torch.testing.assert_close(both(pixels).softmax(1), alone(pixels).softmax(1))
    compress.distill(ARCH, data, Distill(recipe=SHORT), teacher=Ensemble([module, ARCH]))
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.slow
def test_what_int8_loses_most_by_stays_in_float_where_nothing_is_said(data: Dataset) -> None:
    model = build_model(ARCH)
    train(model, data, Recipe(epochs=6))
    artifact = as_artifact(ARCH, data).with_model(model)
    context = Context(data=fitted(data, artifact), device=load_device("host"))
    coarse = Quantize(calibration="minmax", equalize="none")(artifact, context)
    assert coarse.quantization is not None
    name = "stages.0.0.conv1"  # nothing of what it makes is left of its integers
    ruined = {**coarse.quantization.activations, f"{name}.act": (1e6, 0)}
    lossy = replace(coarse, quantization=replace(coarse.quantization, activations=ruined))

    def told(points: float) -> Artifact:
        return replace(lossy, metrics={"quantization": {"points_lost": points}})

    little = told(1.0)
    assert _mixed_where_it_loses(artifact, little, context) is little
    mixed = _mixed_where_it_loses(artifact, told(1.1), context)
    assert mixed.quantization is not None
    assert f"{name}.act" not in mixed.quantization.activations
    assert mixed.metrics["mixed"]["points_lost"] <= 1


@pytest.mark.parametrize("said", [{}, {"precision": "int8"}, {"config": Quantize(calibration="minmax")}])
def test_int8_that_was_asked_for_is_int8(said: dict[str, Any], few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.api._mixed_where_it_loses", lambda _, done, context: replace(done, history=({},)))
    arch = preset("resnet8", input_shape=(1, 8, 8))
    assert bool(compress.quantize(arch, few, **said).history) == (not said)


def test_a_teacher_of_another_size_sees_the_images_enlarged(data: Dataset) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    with torch.no_grad():
        module[1].weight.zero_()
        module[1].bias.copy_(20.0 * nn.functional.one_hot(torch.tensor(7), 10))
    teacher = as_artifact(module, None, input_shape=(1, 32, 32))
    config = Distill(recipe=Recipe(epochs=1, learning_rate=0.05), weight=1.0)
    after = compress.distill(ARCH, data, config, teacher=teacher)
    with torch.inference_mode():
        said = after.model()(torch.from_numpy(data.preprocessing.tensor(data.val.images))).argmax(1)
    assert float((said == 7).float().mean()) > 0.95


@pytest.mark.slow
def test_an_arch_is_pruned_to_a_latency(data: Dataset) -> None:
    from hw_profiles import profile

    device = load_device("host")
    whole = profile(ARCH, device).latency_ms
    after = compress.prune(ARCH, data, compress.Prune(recipe=SHORT), latency_ms=0.8 * whole)
    assert profile(after.arch, device).latency_ms <= 0.8 * whole
    assert after.arch.workload().macs < ARCH.workload().macs


@pytest.mark.parametrize("kind", ["module", slow("timm")])
def test_a_module_is_pruned_and_runs(kind: str, learnt: nn.Module, few: Dataset, tmp_path: Path) -> None:
    model = {"module": learnt, "timm": timms()}[kind]
    after = compress.prune(model, few, compress.Prune(recipe=SHORT), amount=0.5)
    macs = compress.quantize(model, few, Quantize(calibration="minmax", images=8)).source.workload().macs
    assert after.source.workload().macs < 0.8 * macs
    assert after.metrics["val_accuracy"] == right(onnx_bytes(after), few)
    if kind == "timm":
        assert isinstance(after.source, Timm)
        after.save(tmp_path)
        x = torch.randn(2, 1, 16, 16)
        with torch.inference_mode():
            assert torch.equal(Artifact.load(tmp_path).model()(x), after.model()(x))


def test_a_coded_file_comes_back_byte_by_byte(learnt: nn.Module, tmp_path: Path) -> None:
    """Without images nothing says what a module reads, but the call may."""
    shared = compress.cluster(learnt, clusters=16)
    compress.encode(shared, tmp_path / "m.fnz", input_shape=(1, 24, 24))
    compress.decode(tmp_path / "m.fnz", tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((2, 1, 24, 24)).astype(np.float32)
    with torch.inference_mode():
        expected = shared.model()(torch.from_numpy(x)).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, rtol=1e-3, atol=1e-4)
    file = (tmp_path / "m.onnx").read_bytes()
    compress.encode(tmp_path / "m.onnx", tmp_path / "again.fnz")
    assert (tmp_path / "again.fnz").stat().st_size < 0.5 * len(file)
    compress.decode(str(tmp_path / "again.fnz"), str(tmp_path / "again.onnx"))
    assert (tmp_path / "again.onnx").read_bytes() == file
    compress.encode(ARCH, tmp_path / "arch.fnz")
    with pytest.raises(ValueError, match="input_shape is required"):
        compress.encode(shared, tmp_path / "none.fnz")
    assert not (tmp_path / "none.fnz").exists()


def test_the_stage_puts_the_coded_file_beside_the_other(data: Dataset, tmp_path: Path) -> None:
    artifact = replace(compress.cluster(ARCH, clusters=16), preprocessing=data.preprocessing)
    context = Context(data=data, device=load_device("host"), measured=False)
    done = compress.run_stages(artifact, [Encode()], context, tmp_path)
    folder = tmp_path / "01_encode"
    assert decode_onnx((folder / done.files["fnz"]).read_bytes()) == (folder / done.files["onnx"]).read_bytes()
    assert done.metrics["coded_bytes"] == (folder / "model.fnz").stat().st_size
    assert done.history[0]["accepted"]
    assert done.metrics["val_accuracy"] == done.history[0]["before"]["val_accuracy"]


def test_arrays_are_data_as_the_model_reads_them(learnt: nn.Module, data: Dataset) -> None:
    images = np.concatenate([data.train.images, data.val.images])
    labels = np.concatenate([data.train.labels, data.val.labels])
    floats = data.preprocessing.tensor(images)
    given = as_dataset((floats, labels))
    order = np.concatenate([given.train.labels, given.val.labels, given.test.labels])
    assert sorted(order) == sorted(labels)
    back = given.preprocessing.tensor(given.train.images)
    nearest = np.abs(floats[None, :50] - back[:, None][:200]).max(axis=(2, 3, 4)).min(axis=0)
    assert float(np.median(nearest[nearest < 0.1])) < 0.5 * np.ptp(floats) / 255 + 1e-5
    after = compress.quantize(learnt, (floats, labels), Quantize(images=64))
    assert after.metrics["val_accuracy_before"] > 0.6
    bytes_ = as_dataset((images[..., 0], labels + 5))
    assert bytes_.preprocessing.class_names == tuple(map(str, range(5, 15)))
    assert abs(float(bytes_.preprocessing.tensor(bytes_.train.images).mean())) < 0.05


@pytest.fixture
def downloaded(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """timm's create_model as it is where there is a network, for one model."""
    create = timm.create_model
    torch.manual_seed(5)
    weights = create("mobilenetv3_small_050").state_dict()

    def pretrained(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        module: nn.Module = create(name, **kwargs)
        if pretrained:
            own = module.state_dict()
            module.load_state_dict({k: v if v.shape == own[k].shape else own[k] for k, v in weights.items()})
        return module

    monkeypatch.setattr(timm, "create_model", pretrained)
    return create("mobilenetv3_small_050")


@pytest.mark.slow
def test_a_name_of_timm_comes_with_its_weights_and_its_normalization(downloaded: nn.Module, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    images = (noise, np.arange(40) % 4)
    after = compress.distill(
        "timm:mobilenetv3_small_050",
        images,
        Distill(recipe=Recipe(epochs=1, learning_rate=1e-9)),
        teacher=_says_nothing,
    )
    assert after.preprocessing.mean == (0.485, 0.456, 0.406)
    module = timm.create_model("mobilenetv3_small_050", pretrained=True)
    torch.testing.assert_close(after.weights["conv_stem.weight"], module.conv_stem.weight, rtol=0, atol=1e-6)
    assert after.model()(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    calibrated = compress.quantize("mobilenetv3_small_050", images, MINMAX)
    assert calibrated.model()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    with pytest.raises(ValueError, match="has 1000 classes, the given images has labels up to 1003"):
        compress.quantize("mobilenetv3_small_050", (noise, np.arange(40) % 4 + 1000))
    compress.encode("mobilenetv3_small_050", tmp_path / "m.fnz", input_shape=(3, 64, 64))
    assert onnx.load_model_from_string(decode_onnx((tmp_path / "m.fnz").read_bytes())).graph.input[0].type.tensor_type.shape.dim[3].dim_value == 64  # fmt: skip


def _says_nothing(pixels: Tensor) -> Tensor:
    return torch.zeros(len(pixels), 4)


def test_weights_that_cannot_be_downloaded_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if pretrained:
            raise OSError("no route to host\nand more")
        return create(name, **kwargs)  # type: ignore[no-any-return]

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"cannot be downloaded \(no route to host\); give a module") as caught:
        compress.cluster("timm:resnet18")
    assert len(str(caught.value).splitlines()) == 1


class Ways(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).repeat(1, 10) if x.sum() > 0 else -x.mean((2, 3)).repeat(1, 10)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        body = self.body(x)
        return {"boxes": self.boxes(body), "scores": self.scores(body.mean((2, 3)))}


class Aux(nn.Module):
    """In training mode it says more, of channels that leave."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head, self.aux = nn.Conv2d(1, 32, 3), nn.Linear(32, 10), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Any:
        read = self.first(x).relu().mean((2, 3))
        return (self.head(read), self.aux(read)) if self.training else self.head(read)


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def broken(name: str, value: float) -> nn.Sequential:
    module = plain()
    module.state_dict()[name].view(-1)[0] = value
    return module


def flat(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_a_module_of_two_outputs_is_quantized_by_images_and_encoded(data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    int8 = compress.quantize(Heads(), data.train.images[:32])
    assert set(int8.metrics["val_snr_db_of_outputs"]) == {"boxes", "scores"}
    assert int8.metrics["val_snr_db"] > 25
    compress.encode(int8, tmp_path / "heads.fnz")
    compress.decode(tmp_path / "heads.fnz", tmp_path / "heads.onnx")
    assert [each.name for each in open_session(tmp_path / "heads.onnx").get_outputs()] == ["boxes", "scores"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda data, file: compress.quantize(3, data), "model must be a module, an Arch"),
        (lambda data, file: compress.quantize(ARCH, 3), "data must be a Dataset, digits, a folder"),
        (lambda data, file: compress.quantize(preset("resnet8"), data), "reads 3 channels, the images of digits have 1"),
        (lambda data, file: compress.quantize(preset("resnet8", input_shape=(1, 9, 9), num_classes=3), data),
         "has 3 classes, digits has labels up to 9"),
        (lambda data, file: compress.quantize("resnet18x", data), "timm has no model 'resnet18x'"),
        (lambda data, file: compress.quantize(Ways(), data), "Ways: control flow that depends"),
        (lambda data, file: compress.distill(nn.Linear(16, 10), data), r"Linear must output one logit per class, shape \(N, 10\), got \(N, \*\(1, 16, 10\)\)"),
        (lambda data, file: compress.quantize("none.onnx", data), "none.onnx: cannot be read"),
        (lambda data, file: compress.prune(file, data, amount=0.5), "m.onnx: an ONNX file cannot be trained"),
        (lambda data, file: compress.sparsify(file, data), "m.onnx: an ONNX file cannot be trained"),
        (lambda data, file: compress.cluster(file, data), "m.onnx: an ONNX file cannot be trained"),
        (lambda data, file: compress.cluster(compress.quantize(file, data, MINMAX)), "m.onnx: must have float32 weights of conv"),
        (lambda data, file: compress.sparsify(file, config=Sparsify(scope="sensitivity")), "measures a module, an ONNX file takes global or layer"),
        (lambda data, file: compress.distill(file, data, teacher=ARCH), "m.onnx: an ONNX file cannot be trained"),
        (lambda data, file: compress.sparsify(ARCH, amount=1.0), "amount must be between 0 and 1"),
        (lambda data, file: compress.cluster(ARCH, clusters=0), "clusters must be between 2"),
        (lambda data, file: compress.quantize(ARCH, (flat(20, 1, 8, 8) * np.nan, np.arange(20) % 2)), "must be finite"),
        (lambda data, file: compress.distill(ARCH, (flat(20, 1, 8, 8), np.zeros(20, int))), "at least 2 classes"),
        (lambda data, file: compress.distill(ARCH, (flat(20, 8, 8, 1), np.arange(20) % 2)), "floats .N, 1 or 3, H, W."),
        (lambda data, file: compress.distill(ARCH, flat(20, 1, 8, 8)), "for what trains, which needs labels; got ndarray"),
        (lambda data, file: compress.quantize(ARCH, (flat(20, 1, 8, 8), np.arange(20) % 2)), r"must have the shape \(N, 1, 16, 16\)"),
        (lambda data, file: compress.quantize(ARCH, (flat(20, 1, 16, 16), np.arange(19))), "one for each of 20 images"),
        (lambda data, file: compress.quantize(ARCH, (flat(20, 1, 16, 16), np.arange(20) % 2 - 1)), "has 10 classes"),
        (lambda data, file: compress.quantize(ARCH, iter([])), "the iterable of batches is empty"),
        (lambda data, file: compress.quantize(ARCH, {"a": flat(20, 1, 16, 16), "b": flat(20, 3)}), "several inputs by name are for ONNX files"),
        (lambda data, file: compress.quantize(file, {"a": flat(20, 1, 16, 16)}), "inputs must be given for x, got a"),
        (lambda data, file: compress.distill(ARCH, data, teacher=lambda x: torch.zeros(len(x), 3)), r"finite logits of shape \(2, 10\) for 2 images, got Tensor \(2, 3\)"),
        (lambda data, file: compress.distill(ARCH, data, teacher=lambda x: torch.full((len(x), 10), torch.nan)), "finite logits"),
        (lambda data, file: compress.distill(ARCH, data, teacher=lambda x: np.zeros((len(x), 10))), "got ndarray"),
        (lambda data, file: compress.distill(ARCH, data, Distill(method="attention", layers=("stem",), teacher_layers=("8",)), teacher=plain()),
         r"layer '8' must give feature maps \(N, C, H, W\), got 2 dimensions"),
        (lambda data, file: compress.quantize(compress.quantize(ARCH, data, MINMAX), data, precision="mixed", budget=Budget(flash_bytes=10)),
         r"budget.flash_bytes must be at least \d+, what the network takes in mixed on host, got 10"),
        (lambda data, file: compress.sparsify(plain(), config=Sparsify(criterion="movement")), "it needs images to train on"),
        (lambda data, file: compress.sparsify(compress.quantize(plain(), data, MINMAX)), "before they are made integers"),
        (lambda data, file: compress.sparsify(compress.quantize(plain(), data, MINMAX), data), "before they are made integers"),
        (lambda data, file: compress.cluster(compress.quantize(plain(), data, precision="int4")), "this network is already quantized"),
        (lambda data, file: compress.quantize(compress.quantize(plain(), data, precision="int4"), data), "weights are stored in 4 bits"),
        (lambda data, file: compress.quantize(plain().double(), data), "float32 weights, 0.weight is torch.float64"),
        (lambda data, file: compress.quantize(broken("0.weight", np.nan), data), "finite weights, 0.weight has 1 of 288 that are NaN"),
        (lambda data, file: compress.prune(broken("4.bias", np.inf), data), "finite weights, 4.bias has 1 of 64 that are NaN"),
        (lambda data, file: compress.quantize(broken("1.running_mean", np.nan), data), "finite weights, 1.running_mean has 1 of 32"),
        (lambda data, file: compress.quantize(broken("1.running_var", -1), data), "a variance must be at least 0, 1.running_var has -1"),
        (lambda data, file: compress.prune(spectral_norm(plain()[0]), data), "uses weight parametrizations, which are not supported"),
        (lambda data, file: compress.quantize(torch.jit.script(plain()), data), "a scripted module cannot be traced; give the module"),
        (lambda data, file: compress.quantize(nn.Sequential(nn.LazyConv2d(8, 3)), data), "no weights: 0.weight is of a lazy layer"),
        (lambda data, file: compress.prune(Aux(), data, compress.Prune(recipe=SHORT)), "Aux: in training mode a module must return one tensor of logits"),
        (lambda data, file: compress.encode(ARCH, "x.fnz", input_shape=(3, 8, 8)), "must be that of the network"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_in_one_line(
    call: Callable[[Dataset, Path], object], said: str, learnt: nn.Module, data: Dataset, tmp_path: Path
) -> None:
    file = exported(learnt, tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        call(data, file)
    assert len(str(caught.value).splitlines()) == 1


CODES = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)


@pytest.mark.parametrize("code", quick(CODES, [code for code in CODES if "Recipe(" not in code]))
def test_the_page_for_users_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, DOCS.name, "exec"), {})
