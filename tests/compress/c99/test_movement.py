"""What only moves numbers costs nothing where it cancels, and is copied exactly where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.c99 import verify, write_c99
from compress.c99.layers import Convolution, Move
from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images, run_layers
from compress.c99.runtime_layers import RuntimeComparison
from compress.c99.strided_copies import OUTSIDE, Index, broadcast_steps, strided_boxes
from tests.compress.c99.files import graph_file, images, onnx_layers
from tests.compress.c99.more_graphs import MORE_GRAPHS, moved_about, tokens
from tests.compress.c99.test_graphs import Draft, Graph
from tests.parameters import quick


@pytest.mark.parametrize("make", quick(MORE_GRAPHS, [*MORE_GRAPHS[:5]]))
def test_kernels_are_what_onnx_runtime_and_c_make_of_the_same_inputs(make: Callable[[], Graph], tmp_path: Path) -> None:
    nodes, weights, shape = make()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape, signed=make is tokens)
    network = read_network(file)
    x = images(shape, 3, seed=1)
    values = run_layers(network, quantize_images(network, x)[1])
    assert len(np.unique(values[network.output.name])) > 3
    for name, made in onnx_layers(file, network, values).items():
        assert np.abs(made - values[name]).max() <= 1, name
    write_c99(file, tmp_path / "c", test_images=x)
    result = verify(tmp_path / "c", file, x, machines=["host"], layer_images=3)
    assert result.problems == ()
    assert result.machines[0].exact == result.machines[0].values
    assert result.runtime is not None
    assert result.runtime.mean_steps < 0.5


def copied(index: Index, source: np.ndarray) -> np.ndarray:
    """As the kernel copies: loops in loops over flat arrays."""
    found = np.full(index.size, OUTSIDE)
    for box in strided_boxes(index) or ():
        for at in np.ndindex(*box.sizes):
            read = box.read_from + sum(a * s for a, s in zip(at, box.read_steps, strict=True))
            found[box.write_to + sum(a * s for a, s in zip(at, box.write_steps, strict=True))] = source[read]
    return found.reshape(index.shape)


@pytest.mark.parametrize("seed", range(12))
def test_any_chain_of_moves_is_copied_by_few_loops(seed: int) -> None:
    r = np.random.default_rng(seed)
    sides = r.integers(2, 5, 3)
    index = np.arange(sides.prod()).reshape(sides)
    for kind in r.permutation(5):
        if kind == 0:
            index = index.transpose(r.permutation(index.ndim))
        elif kind == 1:
            index = np.repeat(index, 2, axis=int(r.integers(index.ndim)))
        elif kind == 2:
            index = index[:, 1:, ::-1]
        elif kind == 3:
            index = index.reshape(1, *index.shape)[0]
        else:
            index = np.pad(index, [(0, 1), (2, 0), (0, 0)], constant_values=OUTSIDE)
    expected = np.where(index < 0, OUTSIDE, 100 + index)
    assert np.array_equal(copied(index, 100 + np.arange(sides.prod())), expected)


def test_numbers_in_no_order_have_no_few_loops() -> None:
    assert strided_boxes(np.random.default_rng(0).permutation(200)) is None
    assert broadcast_steps(np.arange(200), np.random.default_rng(0).permutation(200)) is None


def test_a_channel_shuffle_after_a_resize_is_one_copy(tmp_path: Path) -> None:
    nodes, weights, shape = moved_about()
    network = read_network(graph_file(tmp_path / "model.onnx", nodes, weights, shape))
    names = [type(layer.steps[0]).__name__ for layer in network.layers]
    assert names[:4] == ["Convolution", "Concat", "Concat", "Convolution"]


def in_and_out() -> Graph:
    """To channels last, a function there, and back, as TensorFlow's graphs do."""
    d = Draft(3)
    d.conv("x", "a", (4, 3, 3, 3))
    d.node("Transpose", ["a"], "b", perm=[0, 2, 3, 1])
    d.node("Sigmoid", ["b"], "c")
    d.node("Mul", ["b", "c"], "e")
    d.node("Transpose", ["e"], "f", perm=[0, 3, 1, 2])
    d.node("Add", ["f", "a"], "g")
    d.conv("g", "y", (4, 4, 1, 1))
    return d.graph(6, 7)


def test_transposes_that_cancel_are_no_layers(tmp_path: Path) -> None:
    nodes, weights, shape = in_and_out()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape)
    network = read_network(file)
    assert not any(isinstance(step, Move) for layer in network.layers for step in layer.steps)
    write_c99(file, tmp_path / "c")
    assert verify(tmp_path / "c", file, images(shape, 2), machines=["host"]).problems == ()


def tensorflow_file(path: Path) -> Path:
    """As TensorFlow Lite's converter and tf2onnx write an int8 network: integers at both ends, images with the channels
    last, a Reshape of integers, and a dense layer as MatMul and Add."""
    r = np.random.default_rng(5)
    weights = {
        "conv": r.integers(-127, 128, (6, 2, 3, 3)).astype(np.int8),
        "conv.bias": r.integers(-2000, 2000, 6).astype(np.int32),
        "dense": r.integers(-127, 128, (5, 6 * 20)).astype(np.int8),
        "dense.bias": r.integers(-2000, 2000, 5).astype(np.int32),
    }
    scales = {
        "conv": r.uniform(0.001, 0.004, 6),
        "dense": np.array(0.002),
        "x": 0.02,
        "a": 0.03,
        "b": 0.05,
        "y": 1 / 256,
    }
    scales |= {"conv.bias": scales["x"] * scales["conv"], "dense.bias": scales["a"] * scales["dense"]}
    zeros = {"x": -3, "a": -128, "b": 7, "y": -128}
    held = {f"{name}.held": value for name, value in weights.items()}
    held |= {f"{name}.scale": np.float32(value) for name, value in scales.items()}
    held |= {f"{name}.zero": np.int8(value) for name, value in zeros.items()}
    held |= {f"{name}.zero": np.zeros(np.shape(scales[name]), value.dtype) for name, value in weights.items()}
    held["flat"] = np.array([-1, 120])

    def quantized(kind: str, source: str, output: str, name: str, **axis: int) -> onnx.NodeProto:
        return helper.make_node(kind, [source, f"{name}.scale", f"{name}.zero"], [output], **axis)

    nodes = [
        *(
            quantized("DequantizeLinear", f"{n}.held", n, n, **({"axis": 0} if np.ndim(scales[n]) else {}))
            for n in weights
        ),
        helper.make_node("Transpose", ["x"], ["x.turned"], perm=[0, 3, 1, 2]),
        quantized("DequantizeLinear", "x.turned", "x.float", "x"),
        helper.make_node("Conv", ["x.float", "conv", "conv.bias"], ["a.conv"], pads=[0, 0, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a.conv"], ["a.relu"]),
        quantized("QuantizeLinear", "a.relu", "a", "a"),
        helper.make_node("Transpose", ["a"], ["a.turned"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["a.turned", "flat"], ["a.flat"]),
        quantized("DequantizeLinear", "a.flat", "a.float", "a"),
        helper.make_node("Transpose", ["dense"], ["dense.turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["a.float", "dense.turned"], ["b.product"]),
        helper.make_node("Add", ["b.product", "dense.bias"], ["b.sum"]),
        quantized("QuantizeLinear", "b.sum", "b", "b"),
        quantized("DequantizeLinear", "b", "b.float", "b"),
        helper.make_node("Softmax", ["b.float"], ["y.softmax"]),
        quantized("QuantizeLinear", "y.softmax", "y", "y"),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.INT8, ["N", 8, 10, 2]),
        helper.make_tensor_value_info("y", TensorProto.INT8, ["N", 5]),
    ]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "tensorflow", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
    return path


def test_a_file_of_tensorflow_is_computed_bit_for_bit(tmp_path: Path) -> None:
    file = tensorflow_file(tmp_path / "model.onnx")
    network = read_network(file)
    assert [type(layer.steps[0]).__name__ for layer in network.layers] == ["Convolution", "Convolution", "Softmax"]
    assert network.integer_ends == (True, True)
    assert network.input.shape == (8, 10, 2)
    step = network.layers[1].steps[0]
    assert isinstance(step, Convolution)
    assert step.weight.shape == (5, 4, 5, 6)
    write_c99(file, tmp_path / "c")
    result = verify(tmp_path / "c", file, machines=["host"])
    assert result.problems == ()
    assert result.random_inputs
    assert result.machines[0].equal == result.machines[0].images >= 4
    assert result.runtime is not None
    assert (result.runtime.equal, result.runtime.mean_steps) == (1.0, 0.0)


def lopsided() -> Graph:
    """Weights most of which are positive, so that their zero point is not in the middle."""
    d = Draft(6)
    d.conv("x", "a", (8, 3, 3, 3), group=2)
    d.conv("a", "b", (8, 1, 2, 3), group=8)
    d.node("Flatten", ["b"], "f")
    d.gemm("f", "y", (5, 8 * 3 * 2))
    for name in ("a_w", "b_w", "y_w"):
        d.weights[name] = np.abs(d.weights[name]) - np.float32(0.1) * np.abs(d.weights[name]).max()
    return d.graph(6, 6)


def test_weights_with_a_zero_point_of_their_own_are_computed_exactly(tmp_path: Path) -> None:
    nodes, weights, shape = lopsided()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape, per_channel=False, unsigned_weights=True)
    network = read_network(file)
    assert [step.weight.shape[3] for step in network.convolutions()] == [6, 2, 16]
    write_c99(file, tmp_path / "c")
    result = verify(tmp_path / "c", file, images(shape, 3), machines=["host"])
    assert result.problems == ()
    assert result.runtime is not None
    assert result.runtime.mean_steps < 0.1


def test_an_input_that_is_normalized_in_float_is_quantized_to_cover_what_follows(tmp_path: Path) -> None:
    d = Draft(3)
    names = [
        d.constant(n, d.generator.uniform(0.5, 1.5, 3).astype(np.float32)) for n in ("scale", "shift", "mean", "var")
    ]
    d.node("BatchNormalization", ["x", *names], "i")
    d.conv("i", "a", (4, 3, 3, 3))
    d.node("Relu", ["a"], "y")
    nodes, weights, shape = d.graph(8, 8)
    model = onnx.load(graph_file(tmp_path / "quantized.onnx", nodes, weights, shape))
    next(node for node in model.graph.node if node.op_type == "BatchNormalization").input[0] = "x"
    file = tmp_path / "model.onnx"
    onnx.save(model, file)
    write_c99(file, tmp_path / "c")
    result = verify(tmp_path / "c", file, images(shape, 3), machines=["host"])
    assert result.problems == ()
    assert result.runtime is not None
    assert 0 < result.runtime.mean_steps < 0.5


def test_what_differs_from_onnx_runtime_by_more_than_rounding_is_a_problem() -> None:
    fine = RuntimeComparison(
        layers=3, equal=0.9, largest=1, worst="conv", disagreement=0.5, own_disagreement=0.0, mean_steps=0.04,
        own_mean_steps=0.0,
    )  # fmt: skip
    assert fine.problems() == ()
    assert "layer 'conv' is 2 steps" in replace(fine, largest=2).problems()[0]
    assert "50.0% of the images get another class" in replace(fine, mean_steps=0.2).problems()[0]
    assert replace(fine, mean_steps=0.2, own_mean_steps=0.3).problems() == ()


def test_integers_are_asked_for_where_the_file_takes_integers(tmp_path: Path) -> None:
    file = tensorflow_file(tmp_path / "model.onnx")
    write_c99(file, tmp_path / "c")
    with pytest.raises(ValueError, match=r"the file takes integers \(int8\) as input, got float32"):
        verify(tmp_path / "c", file, np.zeros((1, 8, 10, 2), np.float32), machines=["host"])
    with pytest.raises(ValueError, match=r"images must be \(N, 8, 10, 2\), got \(1, 2, 8, 10\)"):
        verify(tmp_path / "c", file, np.zeros((1, 2, 8, 10), np.int8), machines=["host"])
