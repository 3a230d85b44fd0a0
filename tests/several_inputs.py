"""A network as a voice detector is: sound, a state whose first side is no batch, a rate; two outputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GENERATOR = np.random.default_rng(1)
SAMPLES = 32
MACS = 16 * 30 * 3 + 24 * 24 + 24 * 8
CALLS = [
    {
        "sound": GENERATOR.standard_normal((1, 1, SAMPLES)).astype(np.float32),
        "state": GENERATOR.standard_normal((2, 1, 12)).astype(np.float32),
        "rate": np.asarray(0.5, np.float32),
    }
    for _ in range(6)
]


def recurrent_file(scale: float = 1.0, *, open_sides: bool = False, masked: bool = False) -> bytes:
    """``scale`` is what the last weights are multiplied by; with ``open_sides`` the file leaves the samples open.
    ``masked`` puts an attention before the last weights, whose mask is minus infinity at places."""
    weights = {"w": (16, 1, 3), "v": (24, 24), "o": (24, 8)}
    generator = np.random.default_rng(0)
    values = {name: (generator.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in weights.items()}
    values["o"] *= np.float32(scale)
    values["flat"] = np.asarray([1, 24], np.int64)
    values["back"] = np.asarray([2, 1, 12], np.int64)
    node = helper.make_node
    nodes = [
        node("Conv", ["sound", "w"], ["c"]),
        node("Relu", ["c"], ["a"]),
        node("ReduceMean", ["a"], ["m"], axes=[1, 2], keepdims=0),
        node("Reshape", ["state", "flat"], ["s"]),
        node("MatMul", ["s", "v"], ["h"]),
        node("Add", ["h", "m"], ["n"]),
        node("Mul", ["n", "rate"], ["r"]),
        node("Tanh", ["r"], ["t"]),
        node("MatMul", ["t", "o"], ["speech"]),
        node("Reshape", ["t", "back"], ["stateN"]),
    ]
    if masked:
        values["mask"] = np.where(np.arange(24) % 3, 0, -np.inf).astype(np.float32)
        at = next(i for i, each in enumerate(nodes) if each.output[0] == "speech")
        nodes[at : at + 1] = [
            node("Add", ["t", "mask"], ["hidden"]),
            node("Softmax", ["hidden"], ["looks"]),
            node("MatMul", ["looks", "o"], ["speech"]),
        ]
    float32 = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("sound", float32, ["N", 1, "T" if open_sides else SAMPLES]),
        helper.make_tensor_value_info("state", float32, [2, "N", 12] if open_sides else [2, 1, 12]),
        helper.make_tensor_value_info("rate", float32, []),
    ]
    outputs = [
        helper.make_tensor_value_info("speech", float32, [1, 8]),
        helper.make_tensor_value_info("stateN", float32, [2, 1, 12]),
    ]
    held = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data
