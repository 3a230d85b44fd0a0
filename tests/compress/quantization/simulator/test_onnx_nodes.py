"""Each node in PyTorch makes what ONNX Runtime makes of it, and has a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from compress.quantization.simulator.onnx_nodes import _NODES, function_of_nodes
from hw_profiles import InputError
from hw_profiles.network.graph import KeptNodes
from hw_profiles.onnx_io.session import open_session

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


IMAGE, ROWS = (2, 4, 7, 6), (2, 5, 8)
CASES: list[tuple[str, tuple[int, ...], list[np.ndarray | None], dict[str, Any]]] = [
    *((kind, ROWS, [], {}) for kind in (
        "Abs", "Neg", "Exp", "Erf", "Sin", "Cos", "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Mish",
        "HardSwish", "Identity", "Selu", "LeakyRelu", "Elu", "Celu", "HardSigmoid", "Gelu", "Softmax",
        "LpNormalization", "Reciprocal", "Transpose", "Flatten",
    )),
    ("LeakyRelu", ROWS, [], {"alpha": 0.3}),
    ("Elu", ROWS, [], {"alpha": 0.3}),
    ("HardSigmoid", ROWS, [], {"alpha": 0.3, "beta": 0.4}),
    ("Gelu", ROWS, [], {"approximate": "tanh"}),
    ("Softmax", ROWS, [], {"axis": 1}),
    ("PRelu", IMAGE, [floats(4, 1, 1)], {}),
    ("Clip", ROWS, [np.float32(-0.5), None], {}),
    ("Clip", ROWS, [None, np.float32(0.5)], {}),
    *((kind, ROWS, [floats(8)], {}) for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")),
    ("Pow", ROWS, [np.float32(2)], {}),
    ("MatMul", ROWS, [floats(8, 3)], {}),
    ("Gemm", (5, 8), [floats(3, 8), floats(3)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("LayerNormalization", ROWS, [floats(8), floats(8)], {"epsilon": 1e-3}),
    ("LayerNormalization", ROWS, [floats(5, 8)], {"axis": 1}),
    ("BatchNormalization", IMAGE, [floats(4), floats(4), floats(4), np.abs(floats(4)) + 1], {"epsilon": 1e-3}),
    ("InstanceNormalization", IMAGE, [floats(4), floats(4)], {"epsilon": 1e-3}),
    ("Reshape", ROWS, [np.int64([0, -1, 4])], {}),
    ("Flatten", IMAGE, [], {"axis": 2}),
    ("Squeeze", (2, 1, 5, 1), [np.int64([1, -1])], {}),
    ("Unsqueeze", ROWS, [np.int64([1, -1])], {}),
    ("Transpose", IMAGE, [], {"perm": [0, 2, 3, 1]}),
    ("Slice", IMAGE, [np.int64([1, -1]), np.int64([9, -99]), np.int64([1, 3]), np.int64([2, -2])], {}),
    ("Split", IMAGE, [np.int64([1, 3])], {"axis": 1}),
    ("Gather", IMAGE, [np.int64([[0, -1], [2, 1]])], {"axis": 2}),
    ("Gather", IMAGE, [np.int64(1)], {"axis": 2}),
    ("Expand", (2, 1, 8), [np.int64([3, 1, 5, 1])], {}),
    ("Tile", ROWS, [np.int64([1, 2, 3])], {}),
    ("Concat", ROWS, [floats(2, 3, 8)], {"axis": 1}),
    ("Pad", IMAGE, [np.int64([0, 0, 1, 2, 0, 1, 0, 1]), np.float32(0.5)], {}),
    *(("Pad", IMAGE, [np.int64([0, 0, 1, 2, 0, 0, 3, 1])], {"mode": mode}) for mode in ("reflect", "edge")),
    *((kind, IMAGE, [np.int64([1, -1])], {"keepdims": 0}) for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")),
    ("ReduceMean", IMAGE, [], {}),
    *((kind, IMAGE, [], {}) for kind in ("GlobalAveragePool", "GlobalMaxPool")),
    ("MaxPool", IMAGE, [], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 0, 1, 1]}),
    ("MaxPool", IMAGE, [], {"kernel_shape": [3, 2], "dilations": [2, 2]}),
    ("MaxPool", IMAGE, [], {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("MaxPool", (2, 4, 9), [], {"kernel_shape": [3], "strides": [2]}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
    ("Conv", IMAGE, [floats(6, 2, 3, 3), floats(6)], {"group": 2, "pads": [1, 0, 2, 1], "dilations": [2, 1]}),
    ("Conv", (2, 4, 9), [floats(6, 4, 3)], {"strides": [2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", IMAGE, [floats(4, 3, 3, 3), floats(6)], {"group": 2, "strides": [2, 2], "pads": [1, 1, 0, 1], "output_padding": [1, 1]}),
    ("Resize", IMAGE, [None, np.float32([1, 1, 2, 1.5])], {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}),
    ("Resize", IMAGE, [None, np.float32([1, 1, 2, 1.5])], {"mode": "nearest"}),
    *(("Resize", IMAGE, [None, None, np.int64([2, 4, 11, 3])], {"mode": "linear", "coordinate_transformation_mode": where}) for where in ("half_pixel", "align_corners")),
    *(("DepthToSpace", IMAGE, [], {"blocksize": 2, "mode": mode}) for mode in ("DCR", "CRD")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "shape", "others", "attributes"), CASES, ids=[case[0] for case in CASES])
def test_a_node_makes_what_onnx_runtime_makes(
    kind: str, shape: tuple[int, ...], others: list[np.ndarray | None], attributes: dict[str, Any]
) -> None:
    constants = {f"c{i}": np.asarray(value) for i, value in enumerate(others) if value is not None}
    names = ["x", *(f"c{i}" if value is not None else "" for i, value in enumerate(others))]
    outputs = ["y", "z"] if kind == "Split" else ["y"]
    node = helper.make_node(kind, names, outputs, **attributes)
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    value = [helper.make_tensor_value_info(name, 1, None) for name in ("x", outputs[-1])]
    built = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", 1, shape)], value[1:], tensors)
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    (wanted,) = open_session(model.SerializeToString()).run(None, {"x": x})
    given = torch.from_numpy(x).requires_grad_()
    made = function_of_nodes(KeptNodes((node,), tuple(tensors)), ["x"], outputs[-1])([given])
    np.testing.assert_allclose(made.detach().numpy(), wanted, rtol=1e-5, atol=1e-5)
    made.sum().backward()
    assert given.grad is not None


def test_every_node_that_is_known_is_tried() -> None:
    rare = {"Log", "Sqrt", "Dropout", "Cast"}  # of positive numbers alone, or without a function of their own
    assert _NODES.keys() - rare == {case[0] for case in CASES}


@pytest.mark.parametrize("kind", ["Sqrt", "ReduceL2", "LpNormalization"])
def test_gradients_at_zero_are_finite(kind: str) -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    made = function_of_nodes(KeptNodes((helper.make_node(kind, ["x"], ["y"]),), ()), ["x"], "y")([x])
    made.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_nodes_one_after_the_other_are_one_function() -> None:
    nodes = (helper.make_node("Mul", ["x", "two"], ["m"]), helper.make_node("Add", ["m", "y"], ["z"]))
    run = function_of_nodes(KeptNodes(nodes, (numpy_helper.from_array(np.float32(2), "two"),)), ["x", "y"], "z")
    assert run([torch.tensor([1.0]), torch.tensor([0.5])]).tolist() == [2.5]


def test_a_node_without_a_function_is_named() -> None:
    node = helper.make_node("GridSample", ["x"], ["y"], name="/warp")
    with pytest.raises(InputError, match=r"node '/warp' \(GridSample\): cannot be trained in integers; quantize"):
        function_of_nodes(KeptNodes((node,), ()), ["x"], "y")
