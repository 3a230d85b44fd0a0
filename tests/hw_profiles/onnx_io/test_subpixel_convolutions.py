"""Transposed convolutions that are rewritten as convolutions say what they said."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.onnx_io.rewrites.subpixel_convolutions import make_subpixel
from hw_profiles.onnx_io.session import open_session

GROUPS = 2
NUMBERS = np.random.default_rng(0)
X = NUMBERS.standard_normal((2, 4, 5, 7)).astype(np.float32)


def graph_of(kernel: tuple[int, int], *, norm: bool = False, **attributes: Any) -> Any:
    held = {"w": NUMBERS.standard_normal((4, 3, *kernel)), "b": NUMBERS.standard_normal(3 * GROUPS)}
    made = "t" if norm else "y"
    nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], [made], group=GROUPS, **attributes)]
    if norm:
        held |= {name: NUMBERS.random(3 * GROUPS) + 0.5 for name in ("scale", "shift", "mean", "var")}
        nodes.append(helper.make_node("BatchNormalization", ["t", "scale", "shift", "mean", "var"], ["y"], epsilon=0.1))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sides]) for name, sides in
            (("x", [4, 5, 7]), ("y", ["C", "H", "W"]))]  # fmt: skip
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in held.items()]
    return helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)


def outputs(graph: Any) -> Any:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return open_session(model.SerializeToString()).run(None, {"x": X})[0]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((2, 2), {"strides": [2, 2]}),
        ((4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        ((5, 3), {"strides": [3, 3], "pads": [2, 1, 3, 2], "output_padding": [0, 1]}),
        ((2, 3), {"strides": [3, 3], "output_padding": [1, 0]}),
        ((3, 3), {"pads": [1, 2, 0, 1]}),
        ((5, 5), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((5, 5), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        ((4, 3), {"strides": [2, 2], "auto_pad": "VALID", "dilations": [1, 1]}),
    ],
)
def test_it_makes_the_same(kernel: tuple[int, int], attributes: dict[str, Any], norm: bool) -> None:
    graph = graph_of(kernel, norm=norm, **attributes)
    expected = outputs(graph)
    make_subpixel(graph)
    kinds = [node.op_type for node in graph.node]
    assert kinds[0] == "Conv"
    assert not {"ConvTranspose", "BatchNormalization"} & set(kinds)
    got = outputs(graph)
    assert got.shape == expected.shape
    assert np.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((3, 3), {"strides": [2, 1]}),
        ((3, 3), {"strides": [2, 2], "dilations": [2, 1]}),
        ((3, 3), {"strides": [2, 2], "output_shape": [10, 14]}),
        ((4, 4), {"strides": [2, 2], "output_padding": [1, 1]}),
    ],
)
def test_others_stay_as_they_are(kernel: tuple[int, int], attributes: dict[str, Any]) -> None:
    graph = graph_of(kernel, **attributes)
    before = graph.SerializeToString()
    make_subpixel(graph)
    assert graph.SerializeToString() == before


def test_a_normalization_that_others_read_around_is_not_folded() -> None:
    graph = graph_of((2, 2), norm=True, strides=[2, 2])
    graph.output.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", "C", "H", "W"]))
    expected = outputs(graph)
    make_subpixel(graph)
    assert [node.op_type for node in graph.node] == ["Conv", "DepthToSpace", "BatchNormalization"]
    assert np.allclose(outputs(graph), expected, atol=1e-5)


def test_a_weight_that_another_one_reads_is_held_for_it() -> None:
    graph = graph_of((2, 2), strides=[2, 2])
    graph.node.append(helper.make_node("ConvTranspose", ["x", "w", "b"], ["z"], group=GROUPS, dilations=[2, 2]))
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", "C", "H", "W"]))
    make_subpixel(graph)
    assert [node.op_type for node in graph.node] == ["Conv", "DepthToSpace", "ConvTranspose"]
    assert {"w", "b"} < {tensor.name for tensor in graph.initializer}
    assert outputs(graph).shape == (2, 6, 10, 14)
