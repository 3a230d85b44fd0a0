"""Files of others in 8-bit integers: however the network is written, the integers say what the floats said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

import compress
from compress.c99 import write_c99
from compress.file_comparison import compare_files
from compress.networks.artifact import Artifact
from compress.networks.as_artifact import as_artifact
from compress.networks.calibration_data import calibration_dataset
from compress.networks.network_source import OnnxFile
from compress.networks.onnx_export import onnx_bytes
from compress.quantization.int8.activation_stats import logits
from compress.stage_interface import Context
from hw_profiles import load_device, profile
from hw_profiles.onnx_io.graph_reader import read_graph
from hw_profiles.onnx_io.reader import read_onnx
from tests.onnx_forms import BODY, FORMS, WEIGHTS, model, numbers, run

IMAGES = np.random.default_rng(2).standard_normal((24, 3, 16, 16)).astype(np.float32)

PLAIN = compress.Quantize(
    calibration="minmax", equalize="none", bias_correction=False, adaround=False, activations="unsigned"
)


def quantized(file: bytes, stage: compress.Quantize = PLAIN) -> bytes:
    images = calibration_dataset(IMAGES)
    source = OnnxFile(data=file)
    artifact = Artifact(source=source, weights={}, preprocessing=images.preprocessing)
    return onnx_bytes(stage(artifact, Context(data=images, device=load_device("host"), measured=False)))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_same_integers(form: str, tmp_path: Path) -> None:
    given = FORMS[form]().SerializeToString()
    written = quantized(given)
    count = 1 if form == "batch 1" else 4
    before, after = run(given, count), run(written, count)
    assert np.abs(before - after).max() < 0.03 * np.abs(before).max()
    held = [tensor for tensor in onnx.load_model_from_string(written).graph.initializer if len(tensor.dims) > 1]
    assert {tensor.data_type for tensor in held} == {TensorProto.INT8}
    assert sum(int(np.prod(tensor.dims)) for tensor in held) == 8 * 27 + 24
    path = tmp_path / "q.onnx"
    path.write_bytes(written)
    assert profile(path, load_device("host")).flash_bytes < 600
    write_c99(path, tmp_path / "c")


@pytest.mark.parametrize("form", ["Constant nodes", "float16 and Cast", "standardized weights", "alpha and beta"])
@pytest.mark.parametrize("verb", ["sparsify", "cluster", "fp16"])
def test_every_form_is_changed_without_training(form: str, verb: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(FORMS[form]().SerializeToString())
    done: Artifact = {
        "sparsify": lambda: compress.sparsify(str(path), amount=0.5),
        "cluster": lambda: compress.cluster(str(path), clusters=8),
        "fp16": lambda: compress.quantize(str(path), precision="fp16"),
    }[verb]()
    before, after = run(path.read_bytes(), 2), run(onnx_bytes(done), 2)
    assert np.abs(before - after).max() < np.abs(before).max()
    assert np.any(before != after) or (verb, form) == ("fp16", "float16 and Cast")


class Shared(nn.Module):
    """One convolution that is used five times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.last = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        for _ in range(5):
            x = F.relu(self.conv(x))
        return self.last(x.mean((2, 3)))


def test_weights_that_several_operations_share_are_counted_and_stored_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, device = Shared().eval(), load_device("host")
    parameters = sum(p.numel() for p in module.parameters())
    file = tmp_path / "m.onnx"
    file.write_bytes(onnx_bytes(as_artifact(module, None, input_shape=(3, 16, 16))))
    assert profile(module, device, input_shape=(3, 16, 16)).weight_count == parameters
    assert profile(file, device).weight_count == parameters
    assert profile(file, device).macs == 14 * 14 * (32 * 27 + 5 * 32 * 32 * 9) + 96
    written = quantized(file.read_bytes())
    (tmp_path / "q.onnx").write_bytes(written)
    integers = [t for t in onnx.load_model_from_string(written).graph.initializer if t.data_type == TensorProto.INT8]
    assert sum(int(np.prod(t.dims)) for t in integers if len(t.dims) > 1) == 32 * 27 + 32 * 32 * 9 + 96
    assert profile(tmp_path / "q.onnx", device).flash_bytes < 1.2 * parameters
    write_c99(tmp_path / "q.onnx", tmp_path / "c")
    assert (tmp_path / "c" / "model.c").read_text().count("_weight[9216] =") == 1


@pytest.mark.slow
def test_a_shared_weight_is_equalized_corrected_and_rounded_for_all_that_read_it() -> None:
    torch.manual_seed(0)
    given = onnx_bytes(as_artifact(Shared().eval(), None, input_shape=(3, 16, 16)))
    every = replace(PLAIN, equalize="weights", bias_correction=True, adaround=True, images=8)
    plain, written = quantized(given), quantized(given, every)
    before, *after = (logits(each, IMAGES) for each in (given, plain, written))
    off = [float(np.square(each - before).mean()) for each in after]
    assert off[1] < off[0]
    assert integer_weights(written) == [32, 32, 3]


def test_a_shared_weight_is_trained_as_one() -> None:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 16, 16, 3)).astype(np.uint8)
    stage = compress.QuantizeAware(recipe=compress.Recipe(epochs=1, learning_rate=0.001))
    made = compress.quantize(Shared().eval(), (pixels, np.arange(90) % 3), stage)
    assert made.metrics["val_snr_db"] > 10
    assert integer_weights(onnx_bytes(made)) == [32, 32, 3]


def integer_weights(file: bytes) -> list[int]:
    """How many outputs each has."""
    held = onnx.load_model_from_string(file).graph.initializer
    return [t.dims[0] for t in held if t.data_type == TensorProto.INT8 and len(t.dims) > 1]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.last = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.lstm(x)[0][:, -1])


def test_weights_of_operations_that_nobody_knows_are_counted(tmp_path: Path) -> None:
    module, device = Recurrent().eval(), load_device("host")
    parameters = sum(p.numel() for p in module.parameters())
    torch.onnx.export(module, (torch.zeros(1, 5, 8),), tmp_path / "m.onnx", dynamo=False, opset_version=17)
    assert parameters <= profile(module, device, input_shape=(5, 8)).weight_count < 1.05 * parameters
    assert profile(tmp_path / "m.onnx", device).weight_count == parameters + 2 * 16  # the states that it begins with


@pytest.mark.slow
def test_dynamo_s_files_with_weights_beside_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    shapes = ({0: torch.export.Dim("N")},)
    path = tmp_path / "m.onnx"
    torch.onnx.export(net, (torch.zeros(2, 3, 16, 16),), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert (tmp_path / "m.onnx.data").is_file()
    assert read_onnx(path).macs == 14 * 14 * 8 * 27 + 24
    assert (
        compress.quantize(str(path), (np.uint8(IMAGES.transpose(0, 2, 3, 1) * 20 + 128), np.arange(24) % 3)).precision
        == "int8"
    )


def test_integers_by_others_are_counted_as_integers() -> None:
    """Float weights behind QuantizeLinear, as Model Optimizer and TensorRT's tools write them."""
    nodes, constants = [], {name: value for name, value in WEIGHTS.items() if name in "bd"}
    for name in "wv":
        scale = np.abs(WEIGHTS[name]).reshape(len(WEIGHTS[name]), -1).max(1) / 127
        constants |= {f"{name}0": WEIGHTS[name], f"{name}s": scale, f"{name}z": np.zeros(len(scale), np.int8)}
        nodes += [
            helper.make_node("QuantizeLinear", [f"{name}0", f"{name}s", f"{name}z"], [f"{name}q"], axis=0),
            helper.make_node("DequantizeLinear", [f"{name}q", f"{name}s", f"{name}z"], [name], axis=0),
        ]
    workload = read_onnx(model([*nodes, *BODY], constants).SerializeToString())
    assert {workload.format(op.weight).bits for op in workload.ops if op.stores_weights} == {8}
    assert workload.weight_bytes == 8 * 27 + 24 + 4 * (8 + 3) + 4 * (8 + 3)


def test_opened_numbers_are_not_lost(tmp_path: Path) -> None:
    """A bias that is worked out of the image stays where it is."""
    nodes = [*BODY[:-1], helper.make_node("Gemm", ["f", "v", "e"], ["y"], transB=1, beta=2.0)]
    nodes.insert(-1, helper.make_node("Gemm", ["f", "u"], ["e"], transB=1))
    constants = {**{name: value for name, value in WEIGHTS.items() if name != "d"}, "u": numbers(3, 8)}
    given = model(nodes, constants).SerializeToString()
    before, after = run(given, 4), run(quantized(given), 4)
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()


def test_a_network_that_computes_in_float16_becomes_integers() -> None:
    """Weights, input and output of 16 bits, and a Cast in the middle."""
    half = {name: value.astype(np.float16) for name, value in WEIGHTS.items()}
    nodes = [*BODY[:2], helper.make_node("Cast", ["a"], ["wide"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("GlobalAveragePool", ["wide"], ["q"]), helper.make_node("Cast", ["q"], ["p"], to=10)]
    given = model([*nodes, *BODY[3:]], half)
    for value in (*given.graph.input, *given.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    session = onnxruntime.InferenceSession(given.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": IMAGES[:4].astype(np.float16)})[0].astype(np.float32)
    written = quantized(given.SerializeToString())
    got = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"]).run(None, {"x": IMAGES[:4]})[0]
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_transposed_convolutions_in_groups(groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(16, 16, 3, stride=2, groups=groups, bias=bias)
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)]
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), up, *head).eval()
    given = onnx_bytes(as_artifact(module, None, input_shape=(3, 16, 16)))
    written = quantized(given)
    before, after = (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, {"input": IMAGES[:4]})[0]
        for each in (given, written)
    )
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()
    held = [t for t in onnx.load_model_from_string(written).graph.initializer if len(t.dims) > 1]
    assert [tensor.data_type for tensor in held] == [TensorProto.INT8] * 3


def test_dynamic_quantization_is_counted_as_integers() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "wq", "z", "wz"], ["i"]),
        helper.make_node("Cast", ["i"], ["f0"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f0", "s"], ["c"]),
        *BODY[1:],
    ]
    constants = {"wq": np.int8(WEIGHTS["w"] * 100), "wz": np.int8(0), "v": WEIGHTS["v"], "d": WEIGHTS["d"]}
    given = model(nodes, constants).SerializeToString()
    assert run(given, 1).shape == (1, 3)
    workload = read_onnx(given)
    assert workload.macs == 14 * 14 * 8 * 27 + 24
    assert [workload.format(op.weight).bits for op in workload.ops if op.kind == "conv"] == [8]
    with pytest.raises(ValueError, match="got one that is quantized already"):
        read_graph(given)


def test_a_state_whose_first_axis_is_no_batch_is_squeezed_not_flattened() -> None:
    """The last state of an LSTM is (directions, N, numbers)."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "i", "r"], ["", "h", ""], hidden_size=4),
        helper.make_node("Squeeze", ["h", "zero"], ["s"]),
        helper.make_node("Gemm", ["s", "v"], ["y"], transB=1),
    ]
    held = {"i": numbers(1, 16, 6), "r": numbers(1, 16, 4), "v": numbers(3, 4), "zero": np.int64([0])}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 5, 6]), ("y", ["N", 3]))]
    constants = [numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    x = np.random.default_rng(0).standard_normal((8, 5, 6)).astype(np.float32)
    images = calibration_dataset(x)
    artifact = Artifact(source=OnnxFile(data=given), weights={}, preprocessing=images.preprocessing)
    done = PLAIN(artifact, Context(data=images, device=load_device("host"), measured=False))
    before, after = (logits(each, x) for each in (given, onnx_bytes(done)))
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()


def test_weights_are_fitted_around_operations_that_need_sides() -> None:
    """ONNX Runtime cannot infer what comes out of RMSNormalization of open sides."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("RMSNormalization", ["a", "g"], ["n"]),
        helper.make_node("MatMul", ["n", "v"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 6, 8]) for n in "xy"]
    constants = [
        numpy_helper.from_array(v, n) for n, v in (("w", numbers(8, 8)), ("v", numbers(8, 8)), ("g", numbers(8)))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10).SerializeToString()
    x = np.random.default_rng(0).standard_normal((8, 6, 8)).astype(np.float32)
    images = calibration_dataset(x)
    artifact = Artifact(source=OnnxFile(data=given), weights={}, preprocessing=images.preprocessing)
    fitted = replace(PLAIN, least_squares=True)(
        artifact, Context(data=images, device=load_device("host"), measured=False)
    )
    before, after = (logits(each, x) for each in (given, onnx_bytes(fitted)))
    assert np.abs(before - after).max() < 0.1 * np.abs(before).max()


@pytest.mark.parametrize("verb", [compress.sparsify, compress.cluster])
def test_weights_of_a_network_in_float16_are_changed(verb: Callable[[Path], Artifact], tmp_path: Path) -> None:
    given = model(BODY, {name: value.astype(np.float16) for name, value in WEIGHTS.items()})
    for value in (*given.graph.input, *given.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    (tmp_path / "HALF.ONNX").write_bytes(given.SerializeToString())
    changed = onnx.load_model_from_string(onnx_bytes(verb(tmp_path / "HALF.ONNX")))
    weight = next(numpy_helper.to_array(each) for each in changed.graph.initializer if each.name == "w")
    assert len(np.unique(weight)) < WEIGHTS["w"].size / 2


ALL = replace(PLAIN, bias_correction=True, least_squares=True)


def close(given: bytes, written: bytes, feed: dict[str, np.ndarray]) -> None:
    """That all outputs are near."""
    sessions = (onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]) for each in (given, written))
    for before, after in zip(*(session.run(None, feed) for session in sessions), strict=True):
        assert np.abs(before - after).max() < 0.06 * np.abs(before).max()


@pytest.mark.parametrize("count", [3, 12, 40])
def test_a_file_for_batches_of_one_size_reads_any_number_of_images(count: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(BODY, WEIGHTS, batch=8).SerializeToString())
    x = np.random.default_rng(3).standard_normal((count, 3, 16, 16)).astype(np.float32)
    done = compress.quantize(str(path), (x, np.arange(count) % 3), ALL)
    assert done.metrics["val_snr_db"] > 15
    assert done.metrics["val_images"] * done.metrics["val_accuracy"] == pytest.approx(
        round(done.metrics["val_images"] * done.metrics["val_accuracy"])
    )


def test_integers_are_read_in_batches_of_one_size(tmp_path: Path) -> None:
    cast = [helper.make_node("Cast", ["p0"], ["x"], to=TensorProto.FLOAT)]
    given = model([*cast, *BODY], WEIGHTS, batch=4)
    given.graph.input[0].name, given.graph.input[0].type.tensor_type.elem_type = "p0", TensorProto.INT32
    path = tmp_path / "m.onnx"
    path.write_bytes(given.SerializeToString())
    x = np.random.default_rng(3).integers(-9, 9, (6, 3, 16, 16)).astype(np.int32)
    assert compress.quantize(str(path), {"p0": x}, PLAIN).metrics["val_snr_db"] > 15
    with pytest.raises(ValueError, match="input p0 must be of int32, got float32"):
        compress.quantize(str(path), {"p0": x + np.float32(0.5)}, PLAIN)


def test_a_batch_that_is_open_in_name_alone_is_one(tmp_path: Path) -> None:
    """As files are whose exporter wrote down the shape of one image."""
    nodes = [*BODY[:3], helper.make_node("Reshape", ["p", "one"], ["f"]), BODY[-1]]
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, {**WEIGHTS, "one": np.array([1, 8])}).SerializeToString())
    done = compress.quantize(str(path), IMAGES, PLAIN)
    assert done.metrics["val_snr_db"] > 15
    assert compare_files(path.read_bytes(), onnx_bytes(done), calibration_dataset(IMAGES)).images == len(IMAGES)
    stage = compress.Cluster(clusters=16, recipe=None)
    assert compress.cluster(str(path), IMAGES, stage).metrics["val_images"] == len(IMAGES)


@pytest.mark.parametrize(("padding", "opened"), [("SAME_UPPER", False), ("VALID", True)])
def test_sides_are_open_where_what_was_read_holds_for_others(padding: str, opened: bool, tmp_path: Path) -> None:
    """Padding that follows from the sides does not."""
    conv = helper.make_node("Conv", ["x", "w", "b"], ["c"], auto_pad=padding, strides=[2, 2])
    path = tmp_path / "m.onnx"
    path.write_bytes(model([conv, *BODY[1:]], WEIGHTS, side="S").SerializeToString())
    done = onnx_bytes(compress.quantize(str(path), {"x": IMAGES}, PLAIN))
    sides = [d.dim_value for d in onnx.load_model_from_string(done).graph.input[0].type.tensor_type.shape.dim]
    assert sides == ([0, 3, 0, 0] if opened else [0, 3, 16, 16])
    close(path.read_bytes(), done, {"x": IMAGES[:4]})
    if opened:
        close(path.read_bytes(), done, {"x": np.resize(IMAGES, (2, 3, 19, 19))})


@pytest.mark.parametrize("verb", [compress.sparsify, compress.cluster])
def test_outputs_of_which_nothing_is_said_stay_outputs(verb: Callable[[Path], Artifact], tmp_path: Path) -> None:
    given = model(BODY, WEIGHTS)
    given.graph.output[0].type.tensor_type.ClearField("shape")
    path = tmp_path / "m.onnx"
    path.write_bytes(given.SerializeToString())
    assert run(onnx_bytes(verb(path)), 2).shape == (2, 3)


def two_outputs(first: list[onnx.NodeProto], others: dict[str, np.ndarray], second: list[object]) -> bytes:
    """The small network with another end, and an output ``z`` of these sides."""
    given = model([*BODY[:2], *first], {**WEIGHTS, **others})
    given.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, second))
    data: bytes = given.SerializeToString()
    return data


@pytest.mark.parametrize("equalize", ["weights", "activations"])
def test_what_comes_out_on_the_way_is_not_equalized(equalize: str) -> None:
    """Features that are an output and that the next layer reads."""
    uneven = WEIGHTS["w"] * np.float32([0.05, 1, 20, 0.3, 4, 1, 0.1, 9]).reshape(-1, 1, 1, 1)
    nodes = [
        helper.make_node("Identity", ["a"], ["z"]), helper.make_node("Conv", ["a", "u"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["a2"]), helper.make_node("GlobalAveragePool", ["a2"], ["p"]), *BODY[3:],
    ]  # fmt: skip
    given = two_outputs(nodes, {"w": uneven, "b": WEIGHTS["b"] * 0, "u": numbers(8, 8, 1, 1)}, ["N", 8, 14, 14])
    close(given, quantized(given, replace(PLAIN, equalize=equalize)), {"x": IMAGES[:4]})


def test_a_first_output_that_a_sigmoid_reads_keeps_its_range() -> None:
    """Classes and their probabilities: beyond 8 a sigmoid tells nothing apart."""
    nodes = [*BODY[2:], helper.make_node("Sigmoid", ["y"], ["z"])]
    given = two_outputs(nodes, {"v": WEIGHTS["v"] * 100, "d": WEIGHTS["d"] * 100}, ["N", 3])
    assert np.abs(run(given, 4)).max() > 12
    close(given, quantized(given), {"x": IMAGES[:4]})


def test_weights_in_float16_beside_others_in_float32_are_changed_too(tmp_path: Path) -> None:
    half = {name: value.astype(np.float16) if name in "wb" else value for name, value in WEIGHTS.items()}
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), helper.make_node("Conv", ["h", "w", "b"], ["c"]),
        helper.make_node("Cast", ["c"], ["wide"], to=TensorProto.FLOAT), helper.make_node("Relu", ["wide"], ["a"]), *BODY[2:],
    ]  # fmt: skip
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, half).SerializeToString())
    changed = onnx.load_model_from_string(onnx_bytes(compress.cluster(path, clusters=4)))
    held = {each.name: numpy_helper.to_array(each) for each in changed.graph.initializer}
    assert [len(np.unique(held[name])) for name in "wv"] == [4, 4]


@pytest.mark.parametrize(
    "said", [{"dilations": [2, 2]}, {"ceil_mode": 1, "count_include_pad": 1, "pads": [1, 1, 0, 1]}]
)
def test_average_pools_that_the_integer_kernel_cannot_compute_stay_in_float(said: dict[str, object]) -> None:
    """Of dilations it knows nothing, and at the border it divides by the whole window."""
    pool = helper.make_node("AveragePool", ["c"], ["a"], kernel_shape=[3, 3], strides=[2, 2], **said)
    nodes = [BODY[0], pool, helper.make_node("Conv", ["a", "u"], ["y"])]
    given = model(nodes, {"w": WEIGHTS["w"], "b": WEIGHTS["b"], "u": numbers(3, 8, 1, 1)}, opset=19, ir=9)
    given.graph.output[0].type.tensor_type.ClearField("shape")
    close(given.SerializeToString(), quantized(given.SerializeToString()), {"x": IMAGES[:4]})
