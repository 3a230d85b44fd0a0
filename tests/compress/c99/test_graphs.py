"""Kernels in every shape, in files that ONNX Runtime quantized: windows, groups, joins, functions, flattened images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from compress.c99 import verify, write_c99
from compress.c99.layers import Convolution
from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images, run_layers
from tests.compress.c99.files import Weights, graph_file, images, onnx_layers

Graph = tuple[list[Any], Weights, tuple[int, int, int]]


@dataclass
class Draft:
    """Nodes and random weights of a graph from ``x`` on."""

    channels: int

    def __post_init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {}
        self.generator = np.random.default_rng(7)

    def made(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
        return helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}_node", **attributes)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.made(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.weights[name] = np.asarray(value)
        return name

    def conv(self, x: str, output: str, shape: tuple[int, ...], *, bias: bool = True, **attributes: Any) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        names = [self.constant(f"{output}_w", (self.generator.standard_normal(shape) * scale).astype(np.float32))]
        if bias:
            names.append(self.constant(f"{output}_b", self.generator.standard_normal(shape[0]).astype(np.float32)))
        return self.node("Conv", [x, *names], output, **attributes)

    def gemm(self, x: str, output: str, shape: tuple[int, int]) -> str:
        scale = 1 / np.sqrt(shape[1])
        weight = self.constant(f"{output}_w", (self.generator.standard_normal(shape) * scale).astype(np.float32))
        return self.node(
            "Gemm", [x, weight, self.constant(f"{output}_b", np.ones(shape[0], np.float32))], output, transB=1
        )

    def graph(self, height: int, width: int) -> Graph:
        return self.nodes, self.weights, (self.channels, height, width)


def rectangular() -> Graph:
    d = Draft(3)
    d.conv("x", "a", (5, 3, 3, 1), strides=[2, 1], pads=[1, 0, 0, 0])
    d.conv("a", "b", (6, 5, 2, 5), dilations=[2, 1], pads=[0, 3, 1, 1], bias=False)
    d.node("Relu", ["b"], "y")
    return d.graph(11, 13)


def grouped() -> Graph:
    d = Draft(6)
    d.conv("x", "a", (9, 2, 3, 3), group=3, pads=[1, 1, 1, 1])
    d.conv("a", "y", (18, 1, 3, 3), group=9, pads=[1, 1, 1, 1], strides=[2, 2])
    return d.graph(9, 7)


def depthwise() -> Graph:
    d = Draft(19)
    d.conv("x", "a", (19, 1, 5, 3), group=19, pads=[2, 1, 2, 1])
    d.conv("a", "b", (19, 1, 3, 3), group=19, pads=[2, 2, 2, 2], dilations=[2, 2])
    d.conv("b", "c", (19, 1, 7, 7), group=19, pads=[3, 3, 3, 3], strides=[2, 2])
    d.conv("c", "y", (19, 1, 2, 2), group=19, strides=[2, 2])
    return d.graph(12, 10)


def pools() -> Graph:
    d = Draft(18)
    d.conv("x", "i", (18, 18, 1, 1))
    d.node("MaxPool", ["i"], "a", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    d.node("AveragePool", ["a"], "b", kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 0])
    d.node("AveragePool", ["b"], "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    d.node("MaxPool", ["c"], "e", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    d.node("MaxPool", ["e"], "y", kernel_shape=[6, 2], strides=[2, 1], ceil_mode=1)  # larger than the image
    return d.graph(9, 10)


def joins() -> Graph:
    d = Draft(4)
    d.conv("x", "a", (8, 4, 1, 1), strides=[2, 2])
    d.conv("x", "b", (8, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    d.node("Sub", ["a", "b"], "s")
    d.node("Add", ["s", "a"], "t")
    d.node("GlobalAveragePool", ["t"], "p")
    d.node("Sigmoid", ["p"], "g")
    d.node("Mul", ["g", "t"], "m")
    d.node("Mul", ["m", "m"], "q")
    d.node("Concat", ["q", "b", "a"], "y", axis=1)
    return d.graph(9, 8)


def functions() -> Graph:
    d = Draft(8)
    d.conv("x", "a", (8, 8, 1, 1))
    d.node("LeakyRelu", ["a"], "b", alpha=0.2)
    d.node("Sigmoid", ["b"], "c")
    d.node("Clip", ["c", d.constant("low", np.float32(0.3)), d.constant("high", np.float32(0.8))], "f")
    d.conv("f", "g", (8, 8, 1, 1))
    d.node("Add", ["g", d.constant("one", np.float32(1.5))], "y")
    return d.graph(5, 6)


def classifier() -> Graph:
    d = Draft(3)
    d.conv("x", "a", (7, 3, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1])
    d.node("Flatten", ["a"], "f")
    d.gemm("f", "b", (11, 7 * 4 * 5))
    d.node("Relu", ["b"], "c")
    d.gemm("c", "e", (6, 11))
    d.node("Softmax", ["e"], "y", axis=1)
    return d.graph(8, 10)


def padding() -> Graph:
    d = Draft(5)
    d.conv("x", "a", (6, 5, 1, 1))
    d.node("Pad", ["a", d.constant("pads", np.array([0, 0, 1, 2, 0, 0, 3, 0], np.int64))], "b")
    d.node("MaxPool", ["b"], "y", kernel_shape=[2, 2])
    return d.graph(6, 5)


GRAPHS = (rectangular, grouped, depthwise, pools, joins, functions, classifier, padding)


@pytest.mark.parametrize("signed", [False, True], ids=["u8", "s8"])
@pytest.mark.parametrize("make", GRAPHS)
def test_kernels_are_what_onnx_runtime_and_c_make_of_the_same_inputs(
    make: Callable[[], Graph], signed: bool, tmp_path: Path
) -> None:
    nodes, weights, shape = make()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape, signed=signed, per_channel=not signed)
    network = read_network(file)
    x = images(shape, 3, seed=1)
    values = run_layers(network, quantize_images(network, x)[1])
    assert len(np.unique(values[network.output.name])) > 3
    for name, made in onnx_layers(file, network, values).items():
        assert np.abs(made - values[name]).max() <= 1, name
    write_c99(file, tmp_path / "c", test_images=x)
    result = verify(tmp_path / "c", file, x, machines=["host"], layer_images=3)
    assert result.machines[0].exact == result.machines[0].values
    assert result.machines[0].equal == 3


def test_a_depthwise_convolution_is_computed_over_its_input(tmp_path: Path) -> None:
    nodes, weights, shape = depthwise()
    network = read_network(graph_file(tmp_path / "model.onnx", nodes, weights, shape))
    over = [layer for layer in network.layers if layer.offset == layer.offsets[0]]
    assert len(over) >= 3
    assert sum(layer.ring_rows > 0 for layer in over) >= 2
    assert network.arena_bytes < 2 * network.input.size


def test_weights_of_a_flattened_image_follow_the_order_of_the_program(tmp_path: Path) -> None:
    nodes, weights, shape = classifier()
    network = read_network(graph_file(tmp_path / "model.onnx", nodes, weights, shape))
    step = network.layers[1].steps[0]
    assert isinstance(step, Convolution)
    assert step.weight.shape == (11, 4, 5, 7)
