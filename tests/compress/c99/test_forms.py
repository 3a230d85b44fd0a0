"""Integer files in the forms that ONNX allows, of which our own quantizer writes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.c99 import write_c99
from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images, run_layers
from hw_profiles.network.quantization import Quantization, quantized_tensors
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import preset

Change = Callable[[onnx.NodeProto], None]


def left_out(node: onnx.NodeProto) -> None:
    if node.op_type == "DequantizeLinear":
        del node.input[2]


def left_empty(node: onnx.NodeProto) -> None:
    if node.op_type == "DequantizeLinear":
        node.input[2] = ""


def said_by_an_attribute(node: onnx.NodeProto) -> None:
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        del node.input[2]
    if node.op_type == "QuantizeLinear":
        node.attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))


@pytest.mark.parametrize("change", [left_out, left_empty, said_by_an_attribute])
def test_a_zero_point_that_is_not_said_is_0_of_the_integers_type(change: Change) -> None:
    workload = preset("resnet8", input_shape=(3, 8, 8)).workload()
    scales = Quantization(activations=dict.fromkeys(quantized_tensors(workload), (0.05, 0)), signed=True)
    model = onnx.load_model_from_string(write_onnx(workload, quantization=scales))
    said = read_network(model.SerializeToString())
    model.opset_import[0].version = 21
    for node in model.graph.node:
        change(node)
    network = read_network(model.SerializeToString())
    image = np.random.default_rng(0).integers(-128, 128, (8, 8, 3)).astype(np.int8)
    made, expected = (run_layers(each, image)[each.output.name] for each in (network, said))
    np.testing.assert_array_equal(made, expected)
    assert len(np.unique(made)) > 3


def qdq_file(nodes: list[Any], constants: dict[str, Any], opset: int) -> bytes:
    """x (1, 2, 4, 5), quantized, through nodes from a to b, quantized, to y."""
    scales = {"s": np.float32(0.02), "z": np.uint8(120)}
    around = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["a"]),
        *nodes,
        helper.make_node("QuantizeLinear", ["b", "s", "z"], ["bq"]),
        helper.make_node("DequantizeLinear", ["bq", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 2, 4, 5]), ("y", None))]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in {**scales, **constants}.items()]
    graph = helper.make_graph(around, "g", ends[:1], ends[1:], held)
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    ).SerializeToString()
    return made


def steps_off(file: bytes) -> float:
    """How many steps the reference of the program is from ONNX Runtime, at most."""
    x = np.random.default_rng(0).uniform(-1.5, 1.5, (1, 2, 4, 5)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    network = read_network(file)
    made = run_layers(network, quantize_images(network, x)[0])[network.output.name]
    floats = network.output.quantization.to_float(network.output_values.to_file(made))
    return float(np.abs(floats.reshape(-1) - expected.reshape(-1)).max() / 0.02)


@pytest.mark.parametrize(("opset", "names"), [(10, ["a", "scales"]), (13, ["a", "", "scales"])])
def test_an_old_resize_has_other_coordinates(opset: int, names: list[str]) -> None:
    node = helper.make_node("Resize", names, ["b"], mode="linear")
    assert steps_off(qdq_file([node], {"scales": np.float32([1, 1, 2, 1.5])}, opset)) < 1.01


def test_sizes_that_keep_the_aspect_are_refused(tmp_path: Path) -> None:
    node = helper.make_node(
        "Resize", ["a", "", "", "sizes"], ["b"], mode="linear", keep_aspect_ratio_policy="not_larger"
    )
    (tmp_path / "m.onnx").write_bytes(qdq_file([node], {"sizes": np.array([1, 2, 8, 8])}, 18))
    with pytest.raises(ValueError, match=r"node 'b' \(Resize\): no C99 kernel"):
        write_c99(tmp_path / "m.onnx", tmp_path / "c")


def test_a_bias_of_bytes_has_a_zero_point() -> None:
    constants = {
        "w": np.random.default_rng(1).integers(-127, 128, (3, 2, 3, 3)).astype(np.int8), "ws": np.float32(0.004),
        "wz": np.int8(0), "c": np.uint8([100, 128, 200]), "cs": np.float32(0.01), "cz": np.uint8(128),
    }  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"]),
        helper.make_node("DequantizeLinear", ["c", "cs", "cz"], ["cf"]),
        helper.make_node("Conv", ["a", "wf", "cf"], ["b"]),
    ]
    assert steps_off(qdq_file(nodes, constants, 13)) < 1.01


def test_a_part_of_no_numbers_is_refused() -> None:
    nodes = [
        helper.make_node("Split", ["a", "parts"], ["p", "q"], axis=1),
        helper.make_node("Concat", ["p", "q"], ["b"], axis=1),
    ]
    with pytest.raises(ValueError, match=r"node 'p' \(Split\): must not make a tensor of no numbers"):
        read_network(qdq_file(nodes, {"parts": np.array([2, 0])}, 13))
