"""Artifacts and the stages that change them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from blocks.conv import ConvNormAct
from compress import (
    STAGES,
    Artifact,
    Cluster,
    Context,
    Distill,
    Int4,
    MixedPrecision,
    Preprocessing,
    Prune,
    Quantize,
    QuantizeAware,
    Recipe,
    Sparsify,
    load_data,
    run_stages,
)
from compress.data.dataset import Split
from compress.networks.artifact import ARTIFACT_SCHEMA
from compress.networks.onnx_export import export_onnx, folded_weights, predict_onnx
from compress.progress import Report
from compress.pruning.arch_widths import arch_groups
from compress.pruning.importance import CRITERIA, Scores, channel_scores, taylor_batches
from compress.pruning.prunable_network import prunable_network
from compress.quantization.int8.ptq import scale_and_zero_point
from compress.stage_interface import Stage
from compress.stages.acceptance import rejection_reason
from compress.training.evaluation import accuracy, predict
from compress.training.teachers import ModuleTeacher
from hw_profiles import Budget, load_device
from hw_profiles.network.channel_groups import channel_groups
from hw_profiles.network.quantization import Quantization
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.onnx_io.reader import read_onnx
from search_spaces import Arch, build_model, preset, sample
from tests.contracts import with_random_statistics
from tests.parameters import quick, slow
from tests.prunings import remove_channels, select_channels

ARCHS = [
    preset("resnet8", input_shape=(3, 32, 32)),
    preset("mobilenetv2_050", input_shape=(3, 32, 32), num_classes=7),
    *(sample("mobilenet", seed=seed, num_classes=6) for seed in range(6)),
]


QUICK_INT8 = Quantize(calibration="minmax", equalize="none", bias_correction=False)


@pytest.fixture(scope="module")
def few(context: Context) -> Context:
    """With fewer images to prune and train by."""
    return replace(context, data=replace(context.data, train=context.data.train.some(300, 0)))


def artifact_of(arch: Arch, seed: int = 0) -> Artifact:
    c, h, w = arch.input_shape
    names = tuple(str(i) for i in range(arch.num_classes))
    record = Preprocessing(channels=c, sizes=((h, w),), mean=(0.5,) * c, std=(0.25,) * c, class_names=names)
    empty = Artifact(source=arch, weights={}, preprocessing=record)
    return empty.with_model(with_random_statistics(build_model(arch, seed=seed), seed))


@pytest.mark.parametrize("arch", quick(ARCHS, ARCHS[:3]), ids=lambda arch: arch.id)
def test_an_exported_file_is_the_module(arch: Arch, tmp_path: Path) -> None:
    artifact = artifact_of(arch)
    export_onnx(artifact, tmp_path / "m.onnx")
    import onnxruntime

    x = np.random.default_rng(0).standard_normal((3, *arch.input_shape)).astype(np.float32)
    got = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"input": x})[0]
    with torch.inference_mode():
        expected = artifact.model()(torch.from_numpy(x)).numpy()
    assert np.abs(got - expected).max() < 1e-4 * max(1.0, float(np.abs(expected).max()))


def test_an_export_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.networks import onnx_export

    def wrong(model: nn.Module, workload: object) -> dict[str, np.ndarray]:
        weights = folded_weights(model, workload)
        weights["stem.bias"] = weights["stem.bias"] + 1
        return weights

    monkeypatch.setattr(onnx_export, "folded_weights", wrong)
    with pytest.raises(RuntimeError, match="ONNX Runtime and PyTorch differ"):
        export_onnx(artifact_of(ARCHS[0]), tmp_path / "m.onnx")


def test_artifacts_are_saved_and_loaded(tmp_path: Path) -> None:
    artifact = replace(
        artifact_of(ARCHS[2]), quantization=Quantization(
            activations={"input": (0.02, 114)}, weights={"a.weight": np.float32([0.5, 0.25])}, in_float=frozenset("b")
        ),
        weight_formats={"b.weight": TensorFormat(bits=4, codebook=16, density=0.5)}, files={"onnx": "m.onnx"}, metrics={"a": 1.5},
        history=({"stage": "prune", "accepted": False},),
    )  # fmt: skip
    artifact.save(tmp_path)
    again = Artifact.load(tmp_path)
    assert (again.source, again.preprocessing, again.weight_formats) == (
        artifact.source, artifact.preprocessing, artifact.weight_formats
    )  # fmt: skip
    assert again.quantization is not None
    assert artifact.quantization is not None
    assert again.quantization.activations == artifact.quantization.activations
    assert (again.quantization.signed, again.quantization.in_float) == (False, frozenset("b"))
    assert again.quantization.weights["a.weight"].tolist() == [0.5, 0.25]
    assert (again.files, again.metrics, again.history) == (artifact.files, artifact.metrics, artifact.history)
    assert again.precision == "int8"
    assert again.formats["input"].bits == 8
    for name, value in artifact.weights.items():
        assert torch.equal(again.weights[name], value)
    record = json.loads((tmp_path / "artifact.json").read_text())
    (tmp_path / "artifact.json").write_text(json.dumps({**record, "schema": 9}))
    with pytest.raises(ValueError, match=f"schema must be {ARTIFACT_SCHEMA}, got 9"):
        Artifact.load(tmp_path)
    with pytest.raises(ValueError, match=r"there is no artifact.json"):
        Artifact.load(tmp_path / "elsewhere")


def masked(model: nn.Module, artifact: Artifact, kept: dict[str, Tensor]) -> Iterator[None]:
    """Hooks that set the activations of the channels that leave to zero."""
    groups, names = channel_groups(artifact.arch.workload()), arch_groups(artifact.arch, model)
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, ConvNormAct) or name.endswith(("se.reduce", "se.expand")):
            group = groups.of[name]
            if group in names:
                mask = torch.zeros(groups.width[group])
                mask[kept[names[group][0]]] = 1
                handles.append(module.register_forward_hook(lambda m, i, o, mask=mask: o * mask.view(1, -1, 1, 1)))
    yield
    for handle in handles:
        handle.remove()


def images_for(arch: Arch, count: int = 40) -> Split:
    c, h, w = arch.input_shape
    generator = np.random.default_rng(1)
    return Split(
        generator.integers(0, 256, (count, h, w, c), dtype=np.uint8), generator.integers(0, arch.num_classes, count)
    )


def scores_of(artifact: Artifact, criterion: str) -> Scores:
    network = prunable_network(artifact)
    batches = taylor_batches(images_for(artifact.arch), artifact.preprocessing, 0)
    return channel_scores(network.model, network.groups, criterion, batches)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("arch", quick(ARCHS, ARCHS[:3]), ids=lambda arch: arch.id)
def test_a_pruned_network_is_the_original_with_those_activations_at_zero(arch: Arch, criterion: str) -> None:
    artifact = artifact_of(arch)
    scores = scores_of(artifact, criterion)
    channels = sum(map(len, scores.values()))
    kept = select_channels(scores, 0.4 * channels, 4)
    assert sum(map(len, kept.values())) == pytest.approx(0.6 * channels, abs=4)
    pruned = remove_channels(artifact, kept)
    assert pruned.source.workload().macs < 0.9 * arch.workload().macs
    x = torch.randn(2, *arch.input_shape, generator=torch.Generator().manual_seed(0))
    original = artifact.model().double()
    hooks = masked(original, artifact, kept)
    with torch.inference_mode():
        next(hooks)
        expected = original(x.double())
        got = pruned.model().double()(x.double())
    torch.testing.assert_close(got, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=1e-5)


def test_the_weakest_channels_leave_in_multiples() -> None:
    scores = {"a": torch.arange(16.0), "b": torch.arange(16.0) + 8, "c": torch.tensor([0.1, 0.2])}
    kept = select_channels(scores, 17, 4)
    assert {name: len(k) for name, k in kept.items()} == {"a": 4, "b": 12, "c": 2}
    assert kept["a"].tolist() == [12, 13, 14, 15]
    assert len(select_channels({"a": torch.zeros(64), "b": torch.ones(64)}, 64, 4)["a"]) == 16
    assert len(select_channels({"a": torch.arange(10.0)}, 1, 8)["a"]) == 8
    assert len(select_channels({"a": torch.arange(16.0)}, 3, 8)["a"]) == 16


@pytest.mark.parametrize("criterion", CRITERIA)
def test_importance_finds_the_channel_that_does_nothing(criterion: str) -> None:
    artifact = artifact_of(ARCHS[0])
    weights = dict(artifact.weights)
    for key in ("conv.weight", "norm.weight", "norm.bias"):
        weights[f"stages.1.0.conv1.{key}"] = weights[f"stages.1.0.conv1.{key}"].clone()
        weights[f"stages.1.0.conv1.{key}"][5] = 0
    scores = scores_of(replace(artifact, weights=weights), criterion)
    assert scores["stages.1.0.conv1.conv"].argmin() == 5
    assert torch.cat(list(scores.values())).isfinite().all()


@pytest.mark.parametrize("name", ["stages.0.0.conv1", "stages.1.0.project"])
def test_taylor_scores_are_the_loss_gradients_of_a_gate_on_each_channel(name: str) -> None:
    artifact, images = artifact_of(ARCHS[0]), images_for(ARCHS[0])
    groups = channel_groups(ARCHS[0].workload())
    group = groups.of[name]
    gate = torch.ones(groups.width[group], requires_grad=True)
    model = artifact.model()
    for member, module in model.named_modules():
        if isinstance(module, ConvNormAct) and groups.of[member] == group:
            module.norm.register_forward_hook(lambda m, i, o: o * gate.view(1, -1, 1, 1))
    x = torch.from_numpy(artifact.preprocessing.tensor(images.images))
    torch.nn.functional.cross_entropy(model(x), torch.from_numpy(images.labels)).backward()
    expected = gate.grad.abs()
    scores = scores_of(artifact, "taylor")[arch_groups(ARCHS[0], model)[group][0]]
    torch.testing.assert_close(scores / scores.mean(), expected / expected.mean(), rtol=1e-3, atol=1e-4)


def test_pruning_in_steps_takes_as_much_in_all_and_is_found_again(
    learnt: Artifact, few: Context, tmp_path: Path
) -> None:
    stage = Prune(amount=0.4, steps=2, criterion="taylor", recipe=Recipe(epochs=0.4))
    first = replace(few, checkpoint=tmp_path / "checkpoint.pt")
    after = stage(learnt, first)
    assert after.metrics["training"]["epochs"] == pytest.approx(0.4, abs=0.05)
    width = sum(channel_groups(a.source.workload()).width[g] for a in [learnt] for g in
                channel_groups(a.source.workload()).prunable())  # fmt: skip
    left = channel_groups(after.source.workload())
    assert sum(left.width[g] for g in left.prunable()) == pytest.approx(0.6 * width, abs=8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.0.pt", "checkpoint.1.pt"]
    (tmp_path / "checkpoint.1.pt").unlink()  # as if killed in the second step
    again = stage(learnt, first)
    assert again.source == after.source
    for key, value in after.weights.items():
        torch.testing.assert_close(again.weights[key], value, rtol=0, atol=0)


def test_distillation_needs_a_teacher_and_follows_it(learnt: Artifact, context: Context) -> None:
    with pytest.raises(ValueError, match="Distill needs a teacher"):
        Distill()(learnt, context)

    def stubborn(pixels: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.full((len(pixels),), 3), 10) * 20.0

    stage = Distill(recipe=Recipe(epochs=2, learning_rate=0.05), weight=1.0)
    after = stage(learnt, replace(context, teacher=stubborn))
    predictions = predict(after.model(), context.data.val, learnt.preprocessing)
    assert np.mean(predictions == 3) > 0.95


def test_quantized_files_are_integers_and_nearly_as_right(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    for calibration in ("minmax", "percentile"):
        after = replace(QUICK_INT8, calibration=calibration)(learnt, context)
        path = tmp_path / f"{calibration}.onnx"
        export_onnx(after, path)
        types = {t.data_type for t in onnx.load(path).graph.initializer if t.name.endswith("weight.quantized")}
        assert types == {onnx.TensorProto.INT8}
        assert read_onnx(path).weight_bytes == learnt.source.workload().with_precision("int8").weight_bytes
        before = accuracy(predict(learnt.model(), context.data.val, learnt.preprocessing), context.data.val)
        assert accuracy(predict_onnx(path, context.data.val, learnt.preprocessing), context.data.val) > before - 0.1


def test_quantized_ranges_hold_zero_and_are_finite() -> None:
    scale, zero_point = scale_and_zero_point(2.0, 5.1)
    assert (scale, zero_point) == (pytest.approx(0.02), 0)
    assert scale_and_zero_point(0.0, 0.0)[0] > 0
    with pytest.raises(ValueError, match="must be finite"):
        scale_and_zero_point(float("nan"), 1.0)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_keeps_the_contract(name: str, learnt: Artifact, context: Context) -> None:
    """A stage changes nothing it was given, is JSON, and gives an artifact that runs."""
    short = {"recipe": Recipe(epochs=0.1)} if any(f.name == "recipe" for f in fields(STAGES[name])) else {}
    stage: Stage = QUICK_INT8 if name == "int8" else STAGES[name](**short)
    assert stage.name == name
    json.dumps(asdict(stage))
    before = {key: value.clone() for key, value in learnt.weights.items()}
    teacher = ModuleTeacher(learnt.model(), learnt.preprocessing)
    start = QUICK_INT8(learnt, context) if name == "mixed" else learnt
    after = stage(start, replace(context, teacher=teacher))
    assert all(torch.equal(learnt.weights[key], value) for key, value in before.items())
    assert after.model()(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
    assert after.source.input_shape == learnt.source.input_shape


def test_stages_run_in_order_are_recorded_and_not_repeated(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    ruinous = Prune(amount=0.7, recipe=Recipe(epochs=0.02, learning_rate=1e-9))
    stages = [ruinous, QUICK_INT8]
    allowed = replace(context, max_accuracy_drop=15.0)
    done = run_stages(learnt, stages, allowed, tmp_path)
    assert [record["stage"] for record in done.history] == ["prune", "int8"]
    first, second = done.history
    assert not first["accepted"]
    assert "accuracy drop" in first["rejection_reason"]
    assert second["accepted"]
    assert second["before"]["arch"] == learnt.source.id
    assert (tmp_path / "01_prune" / "model.onnx").is_file()
    assert done.metrics["file_bytes"] == (tmp_path / "02_int8" / "model.int8.onnx").stat().st_size
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.onnx")}
    again = run_stages(learnt, stages, allowed, tmp_path)
    assert again.history == done.history
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.onnx")}


def test_a_folder_of_other_stages_or_networks_is_refused(learnt: Artifact, few: Context, tmp_path: Path) -> None:
    estimated = replace(few, measured=False)

    def pruned(amount: float, start: Artifact = learnt, around: Context = estimated, **recipe: float) -> Artifact:
        return run_stages(start, [Prune(amount=amount, recipe=Recipe(epochs=0.02, **recipe))], around, tmp_path)

    done = pruned(0.3)
    assert pruned(0.3, learning_rate=0.01).history == done.history  # how it was trained is settled where it is found
    with pytest.raises(ValueError, match=r"01_prune was created with amount=0.3, now it is 0.5; choose another"):
        pruned(0.5)
    with pytest.raises(ValueError, match="was created with seed=0, now it is 7"):
        pruned(0.3, around=replace(estimated, seed=7))
    other = replace(estimated.data, train=estimated.data.val, val=estimated.data.train)
    with pytest.raises(ValueError, match="was created with data="):
        pruned(0.3, around=replace(estimated, data=other))
    with pytest.raises(ValueError, match="was created with recipe='a recipe', now it is None"):
        run_stages(learnt, [Prune(amount=0.3, recipe=None)], estimated, tmp_path)
    with pytest.raises(ValueError, match="holds the stages of another network; choose another folder"):
        pruned(0.3, artifact_of(learnt.arch, seed=9))
    assert pruned(0.3).history == done.history


def test_what_other_options_had_begun_is_not_gone_on_with(learnt: Artifact, few: Context, tmp_path: Path) -> None:
    estimated = replace(few, measured=False)
    partial = tmp_path / "01_prune.partial"

    class KilledError(Exception):
        pass

    @contextmanager
    def killing(name: str) -> Iterator[Report]:
        def kill(share: float, note: str) -> None:
            (partial / "checkpoint.0.pt").write_bytes(b"what a training left")
            raise KilledError

        yield kill

    stages = [Prune(amount=0.3, recipe=Recipe(epochs=0.1))]
    with pytest.raises(KilledError):
        run_stages(learnt, stages, estimated, tmp_path, show=killing)
    assert (partial / "checkpoint.0.pt").is_file()
    done = run_stages(learnt, [Prune(amount=0.5, recipe=Recipe(epochs=0.1))], estimated, tmp_path)
    assert done.history[0]["config"]["amount"] == 0.5


def test_data_of_another_size_are_refused(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    small = replace(context, data=context.data.resized(8, 8))
    with pytest.raises(ValueError, match=r"must have the size that the network reads, .*, got \(., 8, 8\)"):
        run_stages(learnt, [], small, tmp_path)


@pytest.mark.parametrize("steps", [1, 2, slow(4)])
def test_steps_lose_nothing_to_the_multiple(steps: int, learnt: Artifact, few: Context) -> None:
    """Where each step alone is less than a multiple, they still take the whole amount together."""
    after = Prune(amount=0.2, steps=steps, recipe=Recipe(epochs=0.05))(learnt, few)
    before, left = channel_groups(learnt.source.workload()), channel_groups(after.source.workload())
    total = sum(before.width[g] for g in before.prunable())
    assert sum(left.width[g] for g in left.prunable()) == pytest.approx(0.8 * total, abs=8)


def test_a_pruning_that_can_remove_nothing_is_undone_and_says_so(
    learnt: Artifact, few: Context, tmp_path: Path
) -> None:
    wide = replace(few, device=replace(few.device, channel_multiple=128))
    done = run_stages(learnt, [Prune(recipe=Recipe(epochs=0.05))], wide, tmp_path)
    assert done.history[0]["rejection_reason"] == "it changed neither the architecture nor the precision"
    assert done.source == learnt.source


BEFORE = {
    "arch": "a", "precision": "fp32", "val_accuracy": 0.90, "latency_ms": 1.0, "latency_high_ms": 1.1,
    "latency_source": "measured", "file_bytes": 1000, "weight_bytes": 900, "flash_bytes": 900, "peak_ram_bytes": 500,
    "coded_bytes": 700, "weight_form": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("after", "budget", "said"),
    [
        ({"precision": "int8", "latency_ratio": (0.9, 0.89, 0.91), "file_bytes": 300}, {}, None),
        (
            {"precision": "int8", "latency_ratio": (1.1, 1.05, 1.2), "file_bytes": 300},
            {},
            "slower: 1.10x the previous latency",
        ),
        ({"precision": "int8", "latency_ratio": (1.03, 1.01, 1.05), "file_bytes": 300}, {}, None),
        (
            {"precision": "int8", "latency_ratio": (1.0, 0.99, 1.01)},
            {},
            "neither faster nor smaller: 1.00x the previous",
        ),
        ({"precision": "int8", "latency_ratio": (0.9, 0.89, 0.91)}, {}, None),
        (
            {"arch": "b", "latency_ratio": (0.98, 0.96, 0.99), "file_bytes": 300},
            {},
            "not faster: 0.98x the previous latency",
        ),
        ({"arch": "b", "latency_ratio": (0.9, 0.9, 0.9), "file_bytes": 1001}, {}, "larger: 1,001 bytes (was 1,000)"),
        ({"weight_form": "c", "latency_ratio": (1.0, 0.9, 1.1), "coded_bytes": 90, "file_bytes": 1001}, {}, None),
        (
            {"weight_form": "c", "latency_ratio": (1.0, 0.9, 1.1), "coded_bytes": 701},
            {},
            "larger: 701 bytes compressed (was 700)",
        ),
        (
            {"weight_form": "c", "latency_ratio": (1.1, 1.05, 1.2), "coded_bytes": 90},
            {},
            "slower: 1.10x the previous latency",
        ),
        ({"arch": "b", "latency_ratio": (0.9, 0.9, 0.9), "val_accuracy": 0.889}, {}, "accuracy drop of 1.10 points"),
        ({"arch": "b", "latency_ratio": (0.9, 0.9, 0.9), "val_accuracy": 0.890}, {}, None),
        (
            {"val_accuracy": 0.899, "latency_ratio": (1.2, 1.2, 1.2)},
            {},
            "accuracy drop of 0.10 points exceeds the limit of 0.00",
        ),
        ({"val_accuracy": 0.901, "latency_ratio": (1.2, 1.2, 1.2)}, {}, None),
        (
            {"precision": "int8", "latency_ratio": (1.3, 1.2, 1.4), "peak_ram_bytes": 200},
            {"peak_ram_bytes": 250},
            None,
        ),
    ],
)
def test_a_stage_must_not_leave_the_deployed_form_worse(
    after: dict[str, object], budget: dict[str, float], said: str | None, context: Context
) -> None:
    why = rejection_reason(BEFORE, {**BEFORE, **after}, BEFORE, replace(context, budget=Budget(**budget)))
    assert (why is None) if said is None else (why is not None and said in why)


def context_with(**settings: Any) -> Context:
    return Context(data=load_data("digits", size=16), device=load_device("host"), **settings)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Prune(amount=1.0), "amount must be between 0 and 1"),
        (lambda: Prune(criterion="l3"), "criterion must be one of l1, l2, bn_scale, taylor"),
        (lambda: Prune(steps=0), "steps must be at least 1"),
        (lambda: Quantize(calibration="max"), "calibration must be one of"),
        (lambda: Quantize(images=0), "images must be at least 1"),
        (lambda: Quantize(images=1.5), "images must be at least 1"),
        (lambda: Quantize(bias_correction="no"), "bias_correction must be True, False or None, got 'no'"),
        (lambda: Distill(temperature=0), "temperature must be above 0"),
        (lambda: Distill(temperature="a"), "temperature must be above 0"),
        (lambda: Distill(weight=None), "weight between 0 and 1, got 4.0 and None"),
        (lambda: Distill(weight=True), "weight between 0 and 1, got 4.0 and True"),
        (lambda: Distill(temperature=True), "temperature must be above 0"),
        (lambda: QuantizeAware(weight=False), "weight between 0 and 1, got 4.0 and False"),
        (lambda: Prune(macs=True), "Prune.macs must be a number above 0, got True"),
        (lambda: Prune(blocks=True), "blocks at least 0, got 1 and True"),
        (lambda: Sparsify(rounds=True), "rounds must be at least 1, got True"),
        (lambda: Cluster(bits=True), "clusters must be between 2"),
        (lambda: Int4(group=True), "group must be at least 2, got True"),
        (lambda: MixedPrecision(images=True), "images must be at least 1, got True"),
        (lambda: Budget(flash_bytes=True), "flash_bytes must be a positive number, got True"),
        (
            lambda: context_with(max_accuracy_drop=math.nan),
            "max_accuracy_drop must be a number of percentage points, got nan",
        ),
        (lambda: context_with(confidence=1), "confidence must be at least 0.5 and below 1, got 1"),
        (lambda: context_with(confidence=math.nan), "confidence must be at least 0.5 and below 1, got nan"),
        (lambda: context_with(target_bytes=0), "target_bytes must be above 0, got 0"),
    ],
)
def test_impossible_stages_are_refused(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=said):
        make()
