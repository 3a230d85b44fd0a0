"""Files that read more than one tensor are operations like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles import load_device, profile
from hw_profiles.errors import InputError
from hw_profiles.memory.planner import plan
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.runtimes.fusion import fuse
from tests.several_inputs import CALLS, MACS, SAMPLES, recurrent_file


def test_the_operations_of_all_inputs_are_counted(tmp_path: Path) -> None:
    workload = read_onnx(recurrent_file())
    assert workload.inputs == ("sound", "state", "rate")
    assert workload.macs == MACS
    assert [workload.shapes[name] for name in workload.inputs] == [(1, 1, SAMPLES), (2, 1, 12), ()]
    made = onnxruntime.InferenceSession(recurrent_file()).run(None, CALLS[0])
    assert workload.shapes[workload.output] == made[0].shape
    path = tmp_path / "m.onnx"
    path.write_bytes(recurrent_file())
    found = profile(path, load_device("host"))
    assert (found.macs, found.weight_count) == (MACS, 16 * 3 + 24 * 24 + 24 * 8)


@pytest.mark.parametrize(("runtime", "tensors"), [("ort", 3), ("c99", 2)])  # which writes over what it read
def test_all_inputs_are_in_memory_until_their_last_reader(runtime: str, tensors: int) -> None:
    """What is read at last lives while everything before it runs."""
    node = helper.make_node
    nodes = [node("Relu", ["x"], ["a"]), node("Relu", ["a"], ["b"]), node("Add", ["b", "late"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 100]) for name in ("x", "late", "y")]
    graph = helper.make_graph(nodes, "g", ends[:2], ends[2:])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    workload = read_onnx(file)
    schedule = plan(workload, fuse(workload, runtime), runtime)
    assert schedule.peak_bytes == tensors * 400


@pytest.mark.parametrize(
    ("given", "sides"),
    [
        ({"sound": (1, 64), "state": (1, 12)}, (1, 1, 64)),
        ({"sound": (1, 100), "state": (1, 12), "rate": ()}, (1, 1, 100)),
    ],
)
def test_sides_that_are_open_are_closed_by_name(given: dict[str, tuple[int, ...]], sides: tuple[int, ...]) -> None:
    assert read_onnx(recurrent_file(open_sides=True), given).shapes["sound"] == sides


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "input 'sound' has dynamic dimensions"),
        ((1, 64), "input_shape must say which input it is for, such as {'sound': "),
        ({"sounds": (1, 64)}, r"must name inputs of the network \('sound', 'state', 'rate'\), got 'sounds'"),
        ({"sound": (2, 64), "state": (1, 12)}, "has the dimensions 1x\\?, but input_shape is 2x64"),
    ],
)
def test_what_does_not_close_them_is_told(given: dict[str, tuple[int, ...]] | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_onnx(recurrent_file(open_sides=True), given)


def test_such_a_file_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(recurrent_file(open_sides=True))
    sides = {"sound": (1, 64), "state": (1, 12)}
    found = profile(path, load_device("host"), input_shape=sides, measured=True)
    assert found.latency_source == "measured"
    assert np.isfinite(found.latency_ms)


def test_an_output_that_nobody_reads_needs_no_shape() -> None:
    """The mask of a Dropout before opset 12, of which ONNX's rules say nothing."""
    node = helper.make_node
    nodes = [node("Dropout", ["x"], ["d", "mask"]), node("Relu", ["d"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=8).SerializeToString()
    assert [op.kind for op in read_onnx(file).ops] == ["activation"]


def test_recurrent_layers_that_the_runtime_quantized_are_counted() -> None:
    """ONNX Runtime's dynamic quantization makes operations of its own, whose shapes ONNX's rules do not say."""
    generator = np.random.default_rng(0)
    node, float32 = helper.make_node, TensorProto.FLOAT
    constants = {
        "w": generator.integers(-9, 9, (1, 5, 32)).astype(np.int8), "r": generator.integers(-9, 9, (1, 8, 32)).astype(np.int8),
        "b": np.zeros((1, 64), np.float32), "s": np.ones(1, np.float32), "z": np.zeros(1, np.int8),
        "m": generator.integers(-9, 9, (8, 3)).astype(np.int8), "n": np.asarray(0, np.int8), "t": np.asarray(1, np.float32),
        "axes": np.asarray([1], np.int64),
    }  # fmt: skip
    nodes = [
        node("DynamicQuantizeLSTM", ["x", "w", "r", "b", "", "", "", "", "s", "z", "s", "z"], ["h"],
             domain="com.microsoft", hidden_size=8),
        node("Squeeze", ["h", "axes"], ["flat"]),
        node("DynamicQuantizeMatMul", ["flat", "m", "t", "n"], ["y"], domain="com.microsoft"),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, float32, shape) for name, shape in (("x", [7, 1, 5]), ("y", [7, 1, 3]))]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], held), opset_imports=opsets, ir_version=8
    )
    assert onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": np.ones((7, 1, 5), np.float32)})
    workload = read_onnx(made.SerializeToString())
    assert workload.macs == 7 * 8 * 3
    assert workload.weight_count >= 5 * 32 + 8 * 32 + 8 * 3
    assert [workload.format(op.weight).bits for op in workload.ops if op.kind in ("matmul", "linear")] == [8]
