"""Graphs of what only moves numbers, of constants for each channel, of other ranks than four, and of means."""

from __future__ import annotations

import numpy as np

from tests.compress.c99.test_graphs import Draft, Graph


def moved_about() -> Graph:
    d = Draft(4)
    d.conv("x", "a", (8, 4, 3, 3), pads=[1, 1, 1, 1])
    d.node("Resize", ["a", "", d.constant("scales", np.float32([1, 1, 2, 3]))], "b", mode="nearest",
           coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    d.nodes.append(d.made("Split", ["b", d.constant("parts", np.array([3, 5]))], ["c", "e"], axis=1))
    d.node("Concat", ["e", "c"], "f", axis=1)
    d.node("Reshape", ["f", d.constant("grouped", np.array([1, 2, 4, 8, 15]))], "g")
    d.node("Transpose", ["g"], "h", perm=[0, 2, 1, 3, 4])
    d.node("Reshape", ["h", d.constant("flat", np.array([1, 8, 8, 15]))], "i")
    bounds = [d.constant(name, np.array(v)) for name, v in (("low", [1]), ("high", [15]), ("along", [3]), ("by", [2]))]
    d.node("Slice", ["i", *bounds], "j")
    d.node("Concat", ["j", "j"], "k", axis=2)
    d.conv("k", "l", (8, 8, 1, 1))
    d.node("DepthToSpace", ["l"], "m", blocksize=2)
    d.node("Pad", ["m", d.constant("around", np.array([0, 0, 2, 1, 0, 0, 1, 2]))], "n", mode="reflect")
    d.conv("n", "o", (3, 2, 2, 2))
    d.node("Transpose", ["o"], "y", perm=[0, 3, 1, 2])
    return d.graph(4, 5)


def padded() -> Graph:
    d = Draft(3)
    d.conv("x", "a", (4, 3, 1, 1))
    cut = d.constant("cut", np.array([0, 0, -1, 0, 0, 0, 0, -1]))
    d.node("Pad", ["a", cut], "b")
    d.conv("b", "c", (4, 4, 3, 3))
    d.node("Relu", ["c"], "e")
    channels = d.constant("channels", np.array([0, 2, 0, 0, 0, 1, 0, 0]))
    d.node("Pad", ["e", channels, d.constant("half", np.float32(0.5))], "f")
    around = d.constant("around", np.array([0, 0, 1, 0, 0, 0, 2, 1]))
    d.node("Pad", ["f", around], "g")
    d.conv("g", "h", (5, 7, 3, 3), strides=[2, 1])
    d.node("MaxPool", ["h"], "y", kernel_shape=[2, 2])
    return d.graph(9, 8)


def each_channel() -> Graph:
    d = Draft(6)
    r = d.generator
    d.conv("x", "a", (6, 6, 1, 1))
    d.node("PRelu", ["a", d.constant("slopes", r.uniform(-0.3, 0.6, (6, 1, 1)).astype(np.float32))], "b")
    d.conv("b", "c", (6, 6, 1, 1))
    names = [d.constant(name, r.uniform(0.5, 1.5, 6).astype(np.float32)) for name in ("scale", "shift", "mean", "var")]
    d.node("Relu", ["c"], "e")
    d.node("BatchNormalization", ["e", *names], "f")
    d.conv("f", "g", (6, 6, 3, 3))
    d.node("Mul", ["g", d.constant("layer_scale", r.uniform(-1, 1, (1, 6, 1, 1)).astype(np.float32))], "h")
    d.node("Sub", [d.constant("bias", r.uniform(-1, 1, (6, 1, 1)).astype(np.float32)), "h"], "i")
    d.node("Relu", ["i"], "j")
    d.conv("j", "k", (6, 6, 1, 1))
    d.node("Add", ["k", d.constant("places", r.uniform(-1, 1, (1, 1, 3, 4)).astype(np.float32))], "y")
    return d.graph(5, 6)


def means() -> Graph:
    d = Draft(5)
    d.conv("x", "a", (6, 5, 3, 3))
    d.node("ReduceMean", ["a", d.constant("columns", np.array([3]))], "b", keepdims=0)
    d.node("ReduceMax", ["b", d.constant("rows", np.array([2]))], "c", keepdims=0)
    d.node("ReduceMean", ["a", d.constant("channels", np.array([1]))], "e", keepdims=1)
    d.node("Sigmoid", ["e"], "f")
    d.node("Mul", ["f", "a"], "g")
    d.node("GlobalMaxPool", ["g"], "h")
    d.node("Flatten", ["h"], "i")
    d.node("Add", ["i", "c"], "j")
    d.gemm("j", "y", (7, 6))
    return d.graph(7, 9)


def tokens() -> Graph:
    """Rows of numbers, as transformers have them, without attention."""
    d = Draft(3)
    d.conv("x", "a", (8, 3, 2, 2), strides=[2, 2])
    d.node("Reshape", ["a", d.constant("rows", np.array([1, 8, 12]))], "b")
    d.node("Transpose", ["b"], "c", perm=[0, 2, 1])
    weight = d.constant("w", (d.generator.standard_normal((8, 10)) / 3).astype(np.float32))
    d.node("MatMul", ["c", weight], "e")
    d.node("Add", ["e", d.constant("bias", d.generator.standard_normal(10).astype(np.float32))], "f")
    d.node("Softmax", ["f"], "g", axis=-1)
    d.node("Add", ["g", "f"], "h")
    d.node("Transpose", ["h"], "i", perm=[0, 2, 1])
    d.conv("i", "j", (6, 5, 3), group=2, pads=[1, 1])
    d.node("MaxPool", ["j"], "k", kernel_shape=[2], strides=[2])
    d.node("Flatten", ["k"], "l")
    d.gemm("l", "y", (4, 36))
    return d.graph(6, 8)


def enlarged() -> Graph:
    """As segmentation networks end: transposed convolutions and a class for each pixel."""
    d = Draft(3)
    d.conv("x", "a", (4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    weight = d.constant("w", (d.generator.standard_normal((4, 3, 3, 3)) / 4).astype(np.float32))
    d.node("ConvTranspose", ["a", weight], "b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1],
           auto_pad="NOTSET")  # fmt: skip
    d.node("Add", ["b", "x"], "c")
    d.node("Softmax", ["c"], "y", axis=1)
    return d.graph(6, 8)


def across() -> Graph:
    """Broadcast along columns, and a flattened image as output."""
    d = Draft(8)
    d.conv("x", "a", (8, 8, 1, 1))
    d.node("GlobalAveragePool", ["a"], "p")
    d.node("Flatten", ["p"], "f")
    d.node("Add", ["a", "f"], "s")
    d.node("Flatten", ["s"], "y")
    return d.graph(3, 8)


def islands() -> Graph:
    """Functions and means of them that are not quantized in between, as our own quantizer leaves them."""
    d = Draft(3)
    r = d.generator
    axes = [d.constant(f"axis{i}", np.array(i)) for i in ([2, 3], [3], [2])]
    d.conv("x", "a", (6, 3, 3, 3))
    d.node("PRelu", ["a", d.constant("slopes", r.uniform(-0.3, 0.6, (6, 1, 1)).astype(np.float32))], "b")
    d.node("ReduceMean", ["b", axes[0]], "c", keepdims=0)
    d.node("Tanh", ["a"], "e")
    d.node("ReduceMean", ["e", axes[1]], "e2", keepdims=0)
    d.node("ReduceMean", ["e2", axes[2]], "f", keepdims=0)
    d.node("ReduceMean", ["a", axes[1]], "g", keepdims=0)
    d.node("ReduceMean", ["g", axes[2]], "h", keepdims=0)
    names = [d.constant(name, r.uniform(0.5, 1.5, 6).astype(np.float32)) for name in ("scale", "shift", "mean", "var")]
    d.node("BatchNormalization", ["a", *names], "i")
    d.node("Relu", ["i"], "j")
    d.node("ReduceMean", ["j", axes[0]], "k", keepdims=0)
    d.node("Add", ["c", "f"], "l")
    d.node("Add", ["h", "k"], "m")
    d.node("Mul", ["l", "m"], "n")
    d.node("Mish", ["b"], "o")
    d.conv("o", "p", (6, 6, 5, 6))
    d.node("Flatten", ["p"], "q")
    d.node("Add", ["n", "q"], "r")
    d.gemm("r", "y", (5, 6))
    return d.graph(7, 8)


def attention() -> Graph:
    """A block of a transformer: layer normalization, two heads, a sum."""
    d = Draft(6)
    r = d.generator
    d.conv("x", "a", (8, 6, 2, 2), strides=[2, 2])
    d.node("Reshape", ["a", d.constant("rows", np.array([1, 8, 12]))], "b")
    d.node("Transpose", ["b"], "c", perm=[0, 2, 1])
    numbers = [d.constant(name, r.uniform(-1, 2, 8).astype(np.float32)) for name in ("factor", "shift")]
    d.node("LayerNormalization", ["c", *numbers], "n", epsilon=1e3)  # more than what is normalized
    for name in "qkv":
        weight = d.constant(f"{name}_w", (r.standard_normal((8, 8)) / 3).astype(np.float32))
        d.node("MatMul", ["n", weight], f"{name}0")
        d.node("Reshape", [f"{name}0", d.constant(f"{name}_heads", np.array([1, 12, 2, 4]))], f"{name}1")
        d.node("Transpose", [f"{name}1"], name, perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3])
    d.node("MatMul", ["q", "k"], "s")
    d.node("Add", ["s", d.constant("places", r.uniform(-1, 1, (1, 2, 12, 12)).astype(np.float32))], "sp")
    d.node("Softmax", ["sp"], "p")
    d.node("MatMul", ["p", "v"], "o")
    d.node("Transpose", ["o"], "t", perm=[0, 2, 1, 3])
    d.node("Reshape", ["t", d.constant("joined", np.array([1, 12, 8]))], "u")
    d.node("Add", ["u", "c"], "w")
    d.node("MatMul", ["w", d.constant("last", (r.standard_normal((8, 5)) / 3).astype(np.float32))], "y")
    return d.graph(6, 8)


def interpolated() -> Graph:
    """Other sides by linear interpolation, and a normalization of groups."""
    d = Draft(4)
    r = d.generator
    d.conv("x", "a", (6, 4, 3, 3))
    d.node("Resize", ["a", "", "", d.constant("larger", np.array([1, 6, 9, 11]))], "b", mode="linear")
    d.conv("b", "c", (6, 6, 1, 1))
    scales = d.constant("smaller", np.float32([1, 1, 0.5, 1.5]))
    d.node("Resize", ["c", "", scales], "e", mode="linear", coordinate_transformation_mode="asymmetric")
    d.conv("e", "f", (6, 6, 1, 1))
    sides = d.constant("sides", np.array([1, 6, 7, 6]))
    d.node("Resize", ["f", "", "", sides], "g", mode="linear", coordinate_transformation_mode="align_corners")
    d.node("Reshape", ["g", d.constant("groups", np.array([0, 2, -1]))], "h")
    d.node(
        "InstanceNormalization",
        ["h", *(d.constant(n, np.full(2, v, np.float32)) for n, v in (("one", 1), ("none", 0)))],
        "i",
    )
    d.node("Reshape", ["i", d.constant("again", np.array([1, 6, 7, 6]))], "j")
    names = [d.constant(name, r.uniform(-1, 2, (6, 1, 1)).astype(np.float32)) for name in ("factor", "shift")]
    d.node("Mul", ["j", names[0]], "k")
    d.node("Add", ["k", names[1]], "l")
    d.conv("l", "y", (3, 6, 3, 3))
    return d.graph(7, 8)


MORE_GRAPHS = (islands, attention, interpolated, moved_about, padded, each_channel, means, tokens, enlarged, across)
