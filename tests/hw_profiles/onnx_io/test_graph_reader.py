"""ONNX files as graphs, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import InputError
from hw_profiles.network.quantization import (
    Quantization,
    in_float_around,
    integer_tensors,
    rounded_tensors,
    with_in_float,
)
from hw_profiles.onnx_io.graph_reader import read_graph
from hw_profiles.onnx_io.writer import write_graph

SHAPE = (4, 8, 8)
RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def node(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(" "), outputs.split(" "), **attributes)


def file_of(nodes: list[Any], constants: dict[str, np.ndarray], outputs: str = "y", opset: int = 20) -> bytes:
    """A file that reads x (N, 4, 8, 8)."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split(" ")]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [source], values, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def run(data: bytes) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, *SHAPE)).astype(np.float32)
    found: list[np.ndarray] = session.run(None, {"x": x})
    return found


def check(data: bytes) -> dict[str, str]:
    """That a file is written as it was read; the kinds of its operations by their names."""
    graph = read_graph(data)
    for got, expected in zip(run(write_graph(graph)), run(data), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    return {op.name: op.kind for op in graph.workload.ops}


HALF = np.float32(0.5)
ENDS = {"low": np.float32(0), "six": np.float32(6), "one": np.float32(1)}


@pytest.mark.parametrize(
    ("nodes", "constants", "kind"),
    [
        ([node("HardSigmoid", "x", alpha=1 / 6)], {}, "activation"),
        ([node("HardSigmoid", "x")], {}, "other"),
        ([node("Clip", "x low six")], ENDS, "activation"),
        ([node("Clip", "x low one")], ENDS, "other"),
        ([node("Sigmoid", "x", "g"), node("Mul", "x g")], {}, "activation"),
        ([node("HardSigmoid", "x", "g", alpha=1 / 6), node("Mul", "g x")], {}, "activation"),
        ([node("HardSigmoid", "x", "g"), node("Mul", "x g")], {}, "other"),
        ([node("Gelu", "x")], {}, "activation"),
        ([node("Gelu", "x", approximate="tanh")], {}, "other"),
        ([node("AveragePool", "x", kernel_shape=[3, 3], pads=[1] * 4)], {}, "avg_pool"),
        ([node("AveragePool", "x", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)], {}, "other"),
        ([node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], {}, "avg_pool"),
        ([node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}, "avg_pool"),
        ([node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1, ceil_mode=1)], {}, "other"),
        ([node("MaxPool", "x", kernel_shape=[3, 3], dilations=[2, 2])], {}, "other"),
        ([node("ReduceMean", "x axes", keepdims=0)], {"axes": np.array([2, 3])}, "flatten"),
        ([node("ReduceMean", "x axes")], {"axes": np.array([1])}, "other"),
        ([node("Add", "x c")], {"c": floats(4, 1, 1)}, "other"),
        ([node("Sub", "x s"), ], {"s": HALF}, "other"),
        ([node("Max", "x s"), ], {"s": np.float32(0)}, "activation"),
        ([node("Max", "s x"), ], {"s": np.zeros((1, 1), np.float32)}, "activation"),
        ([node("Max", "x s"), ], {"s": HALF}, "other"),
        ([node("Relu", "x", "r"), node("Add", "x r")], {}, "add"),
        ([node("Relu", "x", "r"), node("Sub", "x r")], {}, "other"),
        ([node("Relu", "x", "r"), node("Concat", "x r", axis=1)], {}, "concat"),
        ([node("Relu", "x", "r"), node("Concat", "x r", axis=-1)], {}, "other"),
        ([node("Transpose", "x", perm=[0, 2, 3, 1])], {}, "transpose"),
        ([node("Flatten", "x", "f"), node("Gemm", "f w b", transB=1)], {"w": floats(5, 256), "b": floats(5)}, "linear"),
        ([node("Flatten", "x", "f"), node("Gemm", "f w")], {"w": floats(256, 5)}, "linear"),
        ([node("Flatten", "x", "f"), node("Gemm", "f w b")], {"w": floats(256, 5), "b": floats(1, 1)}, "linear"),
        ([node("Flatten", "x", "f"), node("Gemm", "f w", alpha=0.5)], {"w": floats(256, 5)}, "linear"),
        ([node("MatMul", "x w")], {"w": floats(8, 5)}, "linear"),
        ([node("MatMul", "w x")], {"w": floats(8, 8)}, "other"),
        ([node("Relu", "x", "r"), node("MatMul", "x r")], {}, "matmul"),
        ([node("Conv", "x w")], {"w": floats(6, 4, 3, 3)}, "conv"),
        ([node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": floats(6, 4, 3, 3)}, "conv"),
        ([node("Reshape", "x s", "r"), node("Conv", "r w", pads=[3, 5], strides=[2], dilations=[3])],
         {"s": np.array([0, 4, 64]), "w": floats(6, 4, 9)}, "conv"),
        ([node("Reshape", "x s", "r"), node("GlobalAveragePool", "r")], {"s": np.array([0, 4, 64])}, "global_avg_pool"),
        ([node("Reshape", "x s", "r"), node("MaxPool", "r", kernel_shape=[2])], {"s": np.array([0, 4, 64])}, "other"),
        ([node("Conv", "x w", group=4)], {"w": floats(8, 1, 3, 3)}, "conv"),
        ([node("ConvTranspose", "x w", strides=[2, 2])], {"w": floats(4, 6, 2, 2)}, "transpose"),
        ([node("ConvTranspose", "x w", pads=[1, 1, 1, 1])], {"w": floats(4, 6, 3, 3)}, "conv"),
        ([node("ConvTranspose", "x w", strides=[2, 2], dilations=[2, 2])], {"w": floats(4, 6, 2, 2)}, "other"),
        ([node("Pad", "x p", "q"), node("Conv", "q w")], {"p": np.array([0, 0, 1, 2, 0, 0, 0, 1]), "w": floats(6, 4, 3, 3)},
         "conv"),
        ([node("LRN", "x", size=3)], {}, "other"),
        ([node("ReverseSequence", "x l", batch_axis=0, time_axis=1)], {"l": np.array([3])}, "other"),
    ],
)  # fmt: skip
def test_what_is_said_is_said_exactly_and_the_rest_is_kept(
    nodes: list[Any], constants: dict[str, np.ndarray], kind: str
) -> None:
    assert check(file_of(nodes, constants))["y"] == kind


def test_a_linear_layer_of_many_positions_takes_the_bias_behind_it() -> None:
    nodes = [node("MatMul", "x w", "m"), node("Add", "b m")]
    data = file_of(nodes, {"w": floats(8, 5), "b": floats(5)})
    assert check(data) == {"m": "linear"}
    assert read_graph(data).weights["m.bias"].shape == (5,)


def test_a_normalization_behind_a_convolution_goes_into_it_and_one_before_it_does_not() -> None:
    constants = {
        "w": floats(6, 4, 3, 3),
        "v": floats(2, 6, 1, 1),
        **{n: np.abs(floats(6)) + 1 for n in ("s", "m", "var")},
    }
    norm = node("BatchNormalization", "c s b m var", "n")
    nodes = [node("Conv", "x w", "c"), norm, node("Relu", "n", "r"), node("Conv", "r v")]
    assert check(file_of(nodes, {**constants, "b": floats(6)})) == {"n": "conv", "r": "activation", "y": "conv"}
    before = [node("Conv", "x w", "c"), node("Relu", "c", "d"), norm, node("Add", "n d", "r"), node("Conv", "r v")]
    before[2] = node("BatchNormalization", "d s b m var", "n")
    kinds = check(file_of(before, {**constants, "b": floats(6)}))
    assert (kinds["n"], kinds["y"]) == ("other", "conv")


def test_both_halves_of_a_split_are_one_node() -> None:
    nodes = [node("Split", "x", "a b", axis=1, num_outputs=2), node("Relu", "a", "r"), node("Mul", "r b")]
    data = file_of(nodes, {})
    assert check(data) == {"a": "slice", "b": "slice", "r": "activation", "y": "mul"}
    written = onnx.load_model_from_string(write_graph(read_graph(data))).graph.node
    assert sum(each.op_type == "Split" for each in written) == 1


def test_a_weight_that_an_unknown_node_reads_as_well_is_written_for_both() -> None:
    nodes = [node("Conv", "x a.weight", "a"), node("Einsum", "a a.weight", equation="nohw,oikl->nihw")]
    data = file_of(nodes, {"a.weight": floats(6, 4, 3, 3)})
    assert check(data) == {"a": "conv", "y": "other"}
    constants = [each.name for each in onnx.load_model_from_string(write_graph(read_graph(data))).graph.initializer]
    assert constants == ["a.weight", "a.weight.kept"]


def test_an_output_that_is_read_as_well_and_one_that_only_has_a_name_stay() -> None:
    nodes = [node("Conv", "x w", "c"), node("Identity", "c", "y"), node("Relu", "c", "z")]
    data = file_of(nodes, {"w": floats(6, 4, 3, 3)}, outputs="y z")
    check(data)
    assert [each.name for each in onnx.load_model_from_string(write_graph(read_graph(data))).graph.output] == ["y", "z"]


def test_control_flow_is_refused() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "te"]
    branches = [
        helper.make_graph([node(kind, "x", v.name)], v.name, [], [v])
        for kind, v in zip(("Relu", "Neg"), values, strict=True)
    ]
    nodes = [
        node("ReduceMean", "x", "mean", keepdims=0), node("Greater", "mean zero", "positive"),
        helper.make_node("If", ["positive"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]  # fmt: skip
    with pytest.raises(InputError, match="control flow and sequences are not followed"):
        read_graph(file_of(nodes, {"zero": np.float32(0)}))


def test_a_weight_that_several_operations_read_is_held_once_with_a_bias_for_each() -> None:
    nodes = [node("Conv", "x w b", "a", pads=[1] * 4), node("Relu", "a", "r"), node("Conv", "r w b", pads=[1] * 4)]
    data = file_of(nodes, {"w": floats(4, 4, 3, 3), "b": floats(4)})
    assert check(data) == {"a": "conv", "r": "activation", "y": "conv"}
    assert list(read_graph(data).weights) == ["a.weight", "a.bias", "y.bias"]
    assert (
        sum(
            len(each.dims) == 4 for each in onnx.load_model_from_string(write_graph(read_graph(data))).graph.initializer
        )
        == 1
    )


def test_a_weight_and_its_transpose_are_two() -> None:
    nodes = [
        node("Flatten", "x", "f"),
        node("Gemm", "f v", "g"),
        node("Gemm", "g w", "h"),
        node("Gemm", "h w", transB=1),
    ]
    data = file_of(nodes, {"v": floats(256, 5), "w": floats(5, 5)})
    assert check(data) == {"f": "flatten", "g": "linear", "h": "linear", "y": "linear"}
    assert list(read_graph(data).weights) == ["g.weight", "h.weight", "y.weight"]


def test_a_weight_that_is_read_in_rows_and_at_places_is_written_for_both() -> None:
    """The first is a Gemm with its weight turned, the second a MatMul with it as it is."""
    nodes = [
        node("MatMul", "x w", "m"), node("ReduceMean", "m axes", "r", keepdims=0), node("Gemm", "r w"),
    ]  # fmt: skip
    data = file_of(nodes, {"w": floats(8, 8), "axes": np.array([1, 2])})
    graph = read_graph(data)
    check(data)
    assert list(graph.weights) == ["m.weight"]
    scales = {"x": (0.04, 128), "m": (0.15, 128), "r": (0.03, 128), "y": (0.15, 128)}
    got, expected = run(write_graph(graph, Quantization(activations=scales)))[0], run(data)[0]
    assert np.abs(got - expected).max() < 0.1 * np.abs(expected).max()


def test_a_shared_weight_is_float_for_the_operation_in_float_alone() -> None:
    nodes = [node("Conv", "x w", "a", pads=[1] * 4), node("Relu", "a", "r"), node("Conv", "r w", pads=[1] * 4)]
    graph = read_graph(file_of(nodes, {"w": floats(4, 4, 3, 3)}))
    scales = dict.fromkeys(("x", "r", "y"), (0.1, 128))
    for raised in ("a", "y"):
        mixed = with_in_float(graph.workload, Quantization(activations=scales), [raised])
        written = onnx.load_model_from_string(write_graph(graph, mixed)).graph
        kinds = [each.data_type for each in written.initializer if len(each.dims) == 4]
        assert sorted(kinds) == [TensorProto.FLOAT, TensorProto.INT8]
        read = {n.output[0].removesuffix(".float"): n.input[1] for n in written.node if n.op_type == "Conv"}
        assert read == {each: "a.weight.float" if each == raised else "a.weight" for each in ("a", "y")}


def test_around_a_node_that_nobody_knows_tensors_are_float() -> None:
    nodes = [
        node("Conv", "x w", "a"), node("LRN", "a", "b", size=3), node("Relu", "b", "c"), node("Tanh", "c", "d"),
        node("Conv", "d v"),
    ]  # fmt: skip
    graph = read_graph(file_of(nodes, {"w": floats(6, 4, 3, 3), "v": floats(2, 6, 1, 1)}))
    found = integer_tensors(graph.workload, Quantization(activations={}, in_float=in_float_around(graph.workload)))
    assert found == ["x", "a", "d", "y"]


def test_what_several_tensors_make_is_rounded_between_nodes_in_float() -> None:
    """As a C99 program needs it: what a normalization and what two tensors make and read, and a sum of such. A function
    of one number is not."""
    nodes = [
        node("Conv", "x w", "a"), node("Tanh", "a", "d"), node("Mul", "d k", "b"), node("LayerNormalization", "b scale", "c"),
        node("LRN", "c", "e", size=3), node("Add", "c e", "f"), node("Sub", "f e", "g"), node("Mul", "g k", "h"),
        node("Tanh", "h"),
    ]  # fmt: skip
    workload = read_graph(
        file_of(nodes, {"w": floats(6, 4, 3, 3), "k": floats(1, 6, 1, 1), "scale": floats(6)})
    ).workload
    in_float = in_float_around(workload)
    assert sorted(in_float) == ["b", "c", "d", "e", "g", "h", "y"]
    assert sorted(rounded_tensors(workload)) == ["b", "c", "e", "f", "g"]
    scales = dict.fromkeys(rounded_tensors(workload), (0.1, 128))
    found = integer_tensors(workload, Quantization(activations=scales, in_float=in_float))
    assert found == ["x", "a", "b", "c", "e", "f", "g"]


def test_a_sum_is_rounded_and_a_mean_which_has_no_wider_range_is_not() -> None:
    for kind, rounded in (("ReduceSum", ["a", "b"]), ("ReduceMean", [])):
        nodes = [node("Conv", "x w", "a"), node(kind, "a axes", "b"), node("Softmax", "b")]
        graph = read_graph(file_of(nodes, {"w": floats(6, 4, 3, 3), "axes": np.array([1, 2])}))
        assert sorted(rounded_tensors(graph.workload)) == rounded


def test_files_that_are_no_networks_are_refused() -> None:
    with pytest.raises(InputError, match="not an ONNX file"):
        read_graph(b"no")
    with pytest.raises(InputError, match=r"the shape of .y. cannot be inferred from the file"):
        read_graph(file_of([node("Whirl", "x")], {}))


def test_a_node_that_is_called_as_another_operation_gets_a_name_of_its_own() -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("LRN", "c", "l", size=3, name="r"),
        node("Relu", "l", "r"),
        node("Conv", "r v"),
    ]
    check(file_of(nodes, {"w": floats(4, 4, 3, 3), "v": floats(2, 4, 1, 1)}))


def test_a_normalization_that_takes_the_batch_s_own_mean_is_kept() -> None:
    norm = helper.make_node(
        "BatchNormalization", ["m", "s", "b", "mean", "var"], ["y", "mean2", "var2"], training_mode=1
    )
    ones = {name: np.abs(floats(5)) + 1 for name in ("s", "b", "mean", "var")}
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w", "m"), norm]
    assert check(file_of(nodes, {"w": floats(256, 5), **ones}))["m"] == "other"


def test_an_output_that_a_relu_reads_is_rounded_as_every_output() -> None:
    """The first one, and one that is the input itself."""
    nodes = [node("Conv", "x w", "y"), node("Relu", "y", "z")]
    graph = read_graph(file_of(nodes, {"w": floats(4, 4, 3, 3)}, outputs="y z"))
    assert integer_tensors(graph.workload, Quantization(activations={})) == ["x", "y", "z"]
    nodes = [node("Identity", "x"), node("Conv", "x w", "z")]
    data = file_of(nodes, {"w": floats(4, 4, 3, 3)}, outputs="y z")
    scales = {"x": (0.04, 128), "z": (0.2, 128)}
    got, expected = run(write_graph(read_graph(data), Quantization(activations=scales))), run(data)
    np.testing.assert_array_equal(got[0], expected[0])
    assert np.abs(got[1] - expected[1]).max() < 0.1 * np.abs(expected[1]).max()


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_what_is_added_or_normalized_behind_a_product_goes_into_it(kind: str, added: bool) -> None:
    numbers = {name: np.abs(floats(5)) + 1 for name in ("s", "b", "mean", "var")}
    behind = node("Add", "m c") if added else node("BatchNormalization", "m s b mean var")
    data = file_of(
        [node("Flatten", "x", "f"), node(kind, "f w", "m"), behind],
        {"w": floats(256, 5) * np.float32(0.02), "c": floats(5), **numbers},
    )
    assert set(check(data).values()) == {"flatten", "linear"}
    both = [
        node("Flatten", "x", "f"),
        node(kind, "f w", "m"),
        node("Add", "m c", "a"),
        node("BatchNormalization", "a s b mean var"),
    ]
    check(file_of(both, {"w": floats(256, 5) * np.float32(0.02), "c": floats(5), **numbers}))
