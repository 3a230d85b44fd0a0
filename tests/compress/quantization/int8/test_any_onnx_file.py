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


@pytest.mark.parametrize("form", ["Constant nodes", "float16 and Cast", "standardised weights", "alpha and beta"])
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
def test_a_shared_weight_is_equalised_corrected_and_rounded_for_all_that_read_it() -> None:
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
