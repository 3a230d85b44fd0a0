"""Functions of one number as tables, beside what ONNX Runtime's nodes make of all 256 integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.c99.layers import Table
from compress.c99.network_reader import read_network
from tests.compress.c99.files import session

FUNCTIONS: dict[str, dict[str, Any]] = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.1}, "Elu": {}, "Selu": {}, "HardSwish": {}, "HardSigmoid": {"alpha": 0.2},
    "Sigmoid": {}, "Tanh": {}, "Softplus": {}, "Softsign": {}, "Mish": {}, "Gelu": {}, "Abs": {}, "Neg": {}, "Exp": {},
    "Erf": {}, "ThresholdedRelu": {}, "Celu": {},
}  # fmt: skip


def function_file(path: Path, kind: str, integer: type, **attributes: Any) -> Path:
    """QuantizeLinear and DequantizeLinear around one node with 256 channels, which it can be given all at once."""
    zero = 128 if integer is np.uint8 else 0
    constants = [
        numpy_helper.from_array(np.float32(0.03), "s"),
        numpy_helper.from_array(integer(zero - 10), "z"),
        numpy_helper.from_array(np.float32(0.025), "t"),
        numpy_helper.from_array(integer(zero - 60), "u"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xf"]),
        helper.make_node(kind, ["xf"], ["f"], **attributes),
        helper.make_node("QuantizeLinear", ["f", "t", "u"], ["fq"]),
        helper.make_node("DequantizeLinear", ["fq", "t", "u"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 256, 1, 1]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("integer", [np.uint8, np.int8])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_table_holds_what_the_nodes_compute(kind: str, integer: type, tmp_path: Path) -> None:
    file = function_file(tmp_path / "model.onnx", kind, integer, **FUNCTIONS[kind])
    (step,) = read_network(file).layers[0].steps
    assert isinstance(step, Table)
    zero = 128 if integer is np.uint8 else 0
    x = (np.arange(-128, 128).astype(np.float32) - np.float32(-10)) * np.float32(0.03)
    y = session(file.read_bytes()).run(None, {"x": x.reshape(1, 256, 1, 1)})[0].reshape(-1)
    expected = np.rint(y / np.float32(0.025)).astype(int) + (zero - 60) - zero
    off = np.abs(step.values - expected)
    assert off.max() <= 1
    assert (off > 0).mean() < 0.02
