"""Post-training int8 of an Arch: its options, and what each is good for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from blocks.spec import BlockSpec
from compress import Artifact, Context, Quantize, Recipe, load_data
from compress.c99.network_reader import read_network
from compress.data.dataset import Dataset, Split
from compress.networks.onnx_export import export_onnx, folded_weights
from compress.quantization.int8.adaround import rounded_weights
from compress.quantization.int8.bias_correction import corrected_biases
from compress.quantization.int8.calibration import CALIBRATIONS
from compress.quantization.int8.equalization import EQUALIZATIONS
from compress.quantization.simulator.simulator import simulated
from compress.training.loop import train
from hw_profiles import load_device
from hw_profiles.network.graph import Graph
from hw_profiles.network.quantization import Quantization, gate_of, quantized_weight, weight_scales
from hw_profiles.network.workload import WEIGHTED
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.runtimes.fusion import fuse
from search_spaces import Arch, build_model
from tests.parameters import slow

IMAGES = 96


def tiny(activation: str = "hard_swish", gate: str = "hard_sigmoid") -> Arch:
    """Stem, an inverted residual with squeeze-excite and shortcut, one that halves the image, a head; for digits of 8×8."""
    shared = {"activation": activation, "gate": gate}
    block = {"kind": "inverted_residual", "mid_channels": 24, "se_channels": 8, **shared}
    return Arch(
        input_shape=(1, 8, 8),
        stem=BlockSpec(kind="conv", in_channels=1, out_channels=8, activation=activation),
        stages=(
            (BlockSpec(in_channels=8, out_channels=8, shortcut="identity", **block),),
            (BlockSpec(in_channels=8, out_channels=16, stride=2, **block),),
        ),
        head=BlockSpec(kind="conv", in_channels=16, out_channels=32, kernel_size=1, activation=activation),
        num_classes=10,
    )


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(data=load_data("digits", size=8), device=load_device("host"), measured=False)


@pytest.fixture(scope="module")
def learnt(context: Context) -> Artifact:
    return trained(tiny(), context.data)


def trained(arch: Arch, data: Dataset) -> Artifact:
    model = build_model(arch)
    train(model, data, Recipe(epochs=12, learning_rate=0.2))
    return Artifact(source=arch, weights={}, preprocessing=data.preprocessing).with_model(model)


def session_of(data: bytes, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def written(artifact: Artifact, folder: Path) -> bytes:
    export_onnx(artifact, folder / "model.onnx")
    return (folder / "model.onnx").read_bytes()


def logits(data: bytes, dataset: Dataset) -> np.ndarray:
    return session_of(data).run(None, {"input": dataset.preprocessing.tensor(dataset.val.images)})[0]


def tensors(data: bytes, names: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
    model = onnx.load_model_from_string(data)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = session_of(model.SerializeToString())
    return dict(zip(names, session.run(names, {"input": images}), strict=True))


OPTIONS = [
    *({"calibration": name} for name in CALIBRATIONS),
    *({"equalize": name} for name in EQUALIZATIONS),
    {"bias_correction": True},
    {"least_squares": True},
    slow({"adaround": True}),
    {"per_channel": False},
    {"activations": "signed"},
    slow({"activations": "signed", "per_channel": False, "adaround": True, "equalize": "activations"}),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_every_option_gives_a_file_of_integer_kernels_that_is_as_right(
    options: dict[str, object], learnt: Artifact, context: Context, tmp_path: Path
) -> None:
    plain: dict[str, object] = {
        "calibration": "minmax", "equalize": "none", "bias_correction": False, "adaround": False, "images": IMAGES
    }  # fmt: skip
    after = Quantize(**{**plain, **options})(learnt, context)
    chosen = after.metrics["quantization"]
    assert options.items() <= {**plain, **chosen}.items()
    json.dumps(after.metrics)
    data = written(after, tmp_path)
    session_of(data, tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    convolutions = sum(op.kind == "conv" for op in learnt.arch.workload().ops)
    signed = options.get("activations") == "signed"
    if signed:  # on x86 ONNX Runtime makes them unsigned again, and leaves tensors of several readers in float
        assert kinds["QLinearConv"] >= convolutions - 1
    else:
        assert (kinds["QLinearConv"], kinds["Conv"]) == (convolutions, 0)
        assert (kinds["QLinearMul"], kinds["QLinearAdd"]) == (2, 1)
    assert (kinds["QGemm"], kinds["Gemm"]) == (1, 0)
    stored = {t.name: t for t in onnx.load_model_from_string(data).graph.initializer}
    assert (stored["stem.zero_point"].data_type == onnx.TensorProto.INT8) == signed
    assert list(stored["stem.weight.scale"].dims) == ([8] if options.get("per_channel", True) else [])
    right = [
        np.mean(found.argmax(1) == context.data.val.labels)
        for found in (logits(data, context.data), logits(written(learnt, tmp_path), context.data))
    ]
    assert right[1] > 0.6
    assert right[0] > right[1] - 0.1


def test_without_arguments_it_is_at_least_as_faithful_as_any_single_method(
    learnt: Artifact, context: Context, tmp_path: Path
) -> None:
    lenient = replace(context, max_accuracy_drop=100.0)

    def divergence(**options: object) -> float:
        return float(Quantize(images=IMAGES, **options)(learnt, lenient).metrics["quantization"]["divergence"])

    best = Quantize(images=IMAGES)(learnt, lenient).metrics["quantization"]
    assert best["tried"] >= len(CALIBRATIONS) * len(EQUALIZATIONS)
    assert best["adaround"] is False  # it loses no more than is allowed
    singles = [
        divergence(calibration=c, equalize=e, bias_correction=False, adaround=False)
        for c, e in (("minmax", "none"), ("percentile", "none"), ("mse", "weights"), ("entropy", "activations"))
    ]
    assert best["divergence"] <= min(singles)


def test_the_divergence_it_states_is_that_of_the_file_on_images_it_did_not_calibrate_on(
    learnt: Artifact, context: Context, tmp_path: Path
) -> None:
    after = Quantize(images=IMAGES, calibration="mse", equalize="none", bias_correction=False)(learnt, context)
    order = np.random.default_rng(context.seed).permutation(len(context.data.train))
    x = context.data.preprocessing.tensor(context.data.train.images[np.sort(order[-IMAGES:])])
    with torch.inference_mode():
        expected = learnt.model()(torch.from_numpy(x)).log_softmax(1)
    got = torch.from_numpy(session_of(written(after, tmp_path)).run(None, {"input": x})[0]).log_softmax(1)
    stated = after.metrics["quantization"]
    divergence = torch.nn.functional.kl_div(got, expected, log_target=True, reduction="batchmean")
    assert stated["divergence"] == pytest.approx(float(divergence), rel=1e-3)
    assert stated["agreement"] == pytest.approx(float((got.argmax(1) == expected.argmax(1)).float().mean()))


@pytest.mark.slow
def test_rounding_is_learnt_where_more_accuracy_is_lost_than_allowed(learnt: Artifact, context: Context) -> None:
    stage = Quantize(images=32, calibration="minmax", equalize="none", bias_correction=False)
    strict = stage(learnt, replace(context, max_accuracy_drop=-101.0)).metrics["quantization"]
    plain = stage(learnt, replace(context, max_accuracy_drop=100.0)).metrics["quantization"]
    assert (strict["tried"], plain["tried"]) == (2, 1)
    assert strict["divergence"] <= plain["divergence"]


@pytest.mark.slow
def test_corrected_biases_remove_the_mean_error_of_every_channel(learnt: Artifact, context: Context) -> None:
    workload = learnt.arch.workload()
    weights = folded_weights(learnt.model(), workload)
    images = context.data.preprocessing.tensor(context.data.train.images[:IMAGES])
    after = Quantize(images=IMAGES, calibration="minmax", equalize="none", bias_correction=False, per_channel=False)
    quantization = after(learnt, context).quantization
    assert quantization is not None
    changed = corrected_biases(Graph(workload=workload, weights=weights), quantization, images)
    assert all(np.array_equal(changed[n], weights[n]) for n in weights if n.endswith("weight"))
    names = [op.name for op in workload.ops if op.kind in WEIGHTED and op.name != "classifier"]
    expected = tensors(write_onnx(workload, weights), names, images)

    def worst(weights: dict[str, np.ndarray]) -> float:
        got = tensors(write_onnx(workload, weights, quantization=quantization), names, images)
        errors = [np.abs((got[n] - expected[n]).mean((0, 2, 3))).max() / expected[n].std() for n in names]
        return float(max(errors))

    assert worst(changed) < 0.2 * worst(weights)


@pytest.mark.slow
@pytest.mark.parametrize("per_channel", [True, False])
def test_learnt_roundings_stay_on_the_grid_and_bring_layers_nearer(
    per_channel: bool, learnt: Artifact, context: Context
) -> None:
    workload = learnt.arch.workload()
    weights = folded_weights(learnt.model(), workload)
    data = context.data
    images = data.preprocessing.tensor(data.train.images[:IMAGES])
    after = Quantize(images=IMAGES, calibration="minmax", equalize="none", bias_correction=False, per_channel=False)
    quantization = after(learnt, context).quantization
    assert quantization is not None
    coarse = {  # a sixth of the steps, so that rounding matters
        op.weight: (6 * (weight_scales(weights[op.weight]) if per_channel else weight_scales(weights[op.weight]).max()))
        .astype(np.float32) for op in workload.ops if op.kind in WEIGHTED
    }  # fmt: skip
    quantization = replace(quantization, weights=coarse)
    graph = Graph(workload=workload, weights=weights)
    changed = rounded_weights(graph, quantization, images, iterations=150)
    moved = 0
    for name, scales in coarse.items():
        along = np.reshape(scales, (-1, *[1] * (weights[name].ndim - 1)))
        steps = changed[name] / along
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        assert np.abs(changed[name] - weights[name]).max() <= along.max() * 1.001
        moved += int(np.sum(quantized_weight(changed[name], scales) != quantized_weight(weights[name], scales)))
    assert moved > 20
    val = data.preprocessing.tensor(data.val.images)
    expected = session_of(write_onnx(workload, weights)).run(None, {"input": val})[0]
    errors = [
        float(np.square(session_of(write_onnx(workload, w, quantization=quantization)).run(None, {"input": val})[0]
                        - expected).mean())
        for w in (weights, changed)
    ]  # fmt: skip
    assert errors[1] < 0.7 * errors[0]
    again = rounded_weights(graph, quantization, images, iterations=150)
    assert all(np.array_equal(again[name], changed[name]) for name in changed)


def test_a_channel_that_nothing_writes_keeps_its_bias(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    """Its weights would have a scale so small that the bias is no 32-bit integer of it."""
    weights = {name: value.clone() for name, value in learnt.weights.items()}
    weights["head.conv.weight"][3] = 0
    weights["head.norm.bias"][3] = 5.0
    weights["head.norm.running_mean"][3] = 0
    dead = replace(learnt, weights=weights)
    x = context.data.preprocessing.tensor(context.data.val.images[:4])
    expected = tensors(written(dead, tmp_path), ["head.act"], x)["head.act"][:, 3]
    assert expected.min() > 4.9
    after = Quantize(images=IMAGES, calibration="minmax")(dead, context)
    got = tensors(written(after, tmp_path), ["head.act.dequantized"], x)["head.act.dequantized"][:, 3]
    np.testing.assert_allclose(got, expected, rtol=0.02)


def test_signed_activations_are_for_64_bit_arm(learnt: Artifact, context: Context) -> None:
    stage = Quantize(images=32, calibration="minmax", equalize="none", bias_correction=False)
    for machine, signed in (("aarch64", True), ("x86_64", False)):
        conditions = {**context.device.conditions, "machine": machine}
        after = stage(learnt, replace(context, device=replace(context.device, conditions=conditions)))
        assert isinstance(after.quantization, Quantization)
        assert after.quantization.signed == signed


def test_quantized_artifacts_are_saved_and_loaded(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    stage = Quantize(images=32, calibration="mse", equalize="activations", least_squares=True, bias_correction=True)
    after = stage(learnt, context)
    json.dumps(asdict(stage))
    after.save(tmp_path / "saved")
    assert written(Artifact.load(tmp_path / "saved"), tmp_path) == written(after, tmp_path)


def test_images_that_calibration_cannot_use_are_refused(learnt: Artifact, context: Context) -> None:
    data = context.data
    larger = Split(np.zeros((20, 12, 8, 1), np.uint8), np.arange(20) % 10)
    with pytest.raises(ValueError, match=r"must have the shape \(N, 1, 8, 8\), got \(20, 1, 12, 8\)"):
        Quantize()(learnt, replace(context, data=replace(data, train=larger)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"calibration": "mse2"}, "calibration must be one of minmax, percentile, entropy, mse, got 'mse2'"),
        ({"equalize": "yes"}, "equalize must be one of none, weights, activations"),
        ({"activations": "uint8"}, "activations must be one of unsigned, signed"),
        ({"images": 0}, "images must be at least 1"),
    ],
)
def test_options_that_do_not_exist_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Quantize(**options)


def test_silu_is_a_sigmoid_and_a_product_in_integers_where_the_runtime_has_these(
    context: Context, tmp_path: Path
) -> None:
    arch = tiny("silu", "sigmoid")
    given = Artifact(source=arch, weights={}, preprocessing=context.data.preprocessing).with_model(build_model(arch))
    stage = Quantize(images=IMAGES, calibration="minmax", equalize="none", bias_correction=False)
    onnx_runtime, generated_c = (
        stage(given, replace(context, device=replace(context.device, runtime=runtime))) for runtime in ("ort", "c99")
    )
    swishes = sum(op.function == "silu" for op in arch.workload().ops)
    data = written(onnx_runtime, tmp_path)
    session_of(data, tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert (kinds["Sigmoid"], kinds["QLinearMul"]) == (0, swishes + 2)
    assert sum("QLinearSigmoid" in kernel.nodes for kernel in fuse(onnx_runtime.workload(), "ort")) == swishes + 2
    x = context.data.preprocessing.tensor(context.data.val.images)
    expected = session_of(data).run(None, {"input": x})[0]
    np.testing.assert_allclose(simulated(onnx_runtime)(torch.from_numpy(x)).numpy(), expected, atol=1e-4)
    assert not any(gate_of(op) in generated_c.quantization.activations for op in arch.workload().ops)
    assert read_network(data).layers
