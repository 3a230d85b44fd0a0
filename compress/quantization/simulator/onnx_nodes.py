"""Nodes of an ONNX file in PyTorch, with gradients: what a network that is trained in integers keeps as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from compress.quantization.simulator.node_inputs import Attributes, Given, first, integers, number, tensors
from compress.quantization.simulator.node_windows import (
    average_pool,
    convolution,
    max_pool,
    resize,
    transposed_convolution,
)
from hw_profiles.errors import InputError
from hw_profiles.network.graph import KeptNodes
from hw_profiles.onnx_io.shapes import where

_LEAST = 1e-24
Run = Callable[[list[Tensor]], Tensor]


def function_of_nodes(kept: KeptNodes, inputs: Sequence[str], output: str) -> Run:
    """What the nodes of one operation make of its inputs; their own constants are not trained.

    Raises:
        InputError: a node that has no function here.

    >>> node = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5)
    >>> function_of_nodes(KeptNodes((node,), ()), ["x"], "y")([torch.tensor([-2.0, 3.0])])
    tensor([-1.,  3.])
    """
    for node in kept.nodes:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _NODES:
            raise InputError(
                f"{where(node)}: cannot be trained in integers; quantize the network after training (int8), or write "
                "it with other operations"
            )
    constants = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in kept.constants}
    attributes = [
        {each.name: helper.get_attribute_value(each) for each in node.attribute} | {"outputs": len(node.output)}
        for node in kept.nodes
    ]

    def run(values: list[Tensor]) -> Tensor:
        found = {name: tensor.to(values[0].device) for name, tensor in constants.items()}
        found |= dict(zip(inputs, values, strict=True))
        for node, said in zip(kept.nodes, attributes, strict=True):
            made = _NODES[node.op_type](said, [found[name] if name else None for name in node.input])
            results = [made] if isinstance(made, Tensor) else made
            found |= dict(zip(node.output, results, strict=False))
        return found[output]

    return run


def _one(function: Callable[[Tensor], Tensor]) -> Callable[[Attributes, Given], Tensor]:
    return lambda said, given: function(first(given))


def _folded_over(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Attributes, Given], Tensor]:
    """A function of two tensors, of any number of them."""

    def run(said: Attributes, given: Given) -> Tensor:
        result, *others = tensors(given)
        for other in others:
            result = function(result, other)
        return result

    return run


def _clip(said: Attributes, given: Given) -> Tensor:
    return first(given).clamp(number(said, given, 1, "min", -math.inf), number(said, given, 2, "max", math.inf))


def _prelu(said: Attributes, given: Given) -> Tensor:
    x, slope = tensors(given)
    return torch.where(x < 0, x * slope, x)


def _hard_sigmoid(said: Attributes, given: Given) -> Tensor:
    return (first(given) * float(said.get("alpha", 0.2)) + float(said.get("beta", 0.5))).clamp(0, 1)


def _gelu(said: Attributes, given: Given) -> Tensor:
    return F.gelu(first(given), approximate=said.get("approximate", b"none").decode())


def _layer_norm(said: Attributes, given: Given) -> Tensor:
    x, scale, *shift = tensors(given)
    axes = list(range(said.get("axis", -1) % x.ndim, x.ndim))
    normal = _standardized(x, axes, said.get("epsilon", 1e-5)) * scale
    return normal + shift[0] if shift else normal


def _standardized(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centered = x - x.mean(axes, keepdim=True)
    return centered * (centered.square().mean(axes, keepdim=True) + epsilon).rsqrt()


def _batch_norm(said: Attributes, given: Given) -> Tensor:
    x, scale, shift, mean, variance = tensors(given)
    factor = scale / (variance + float(said.get("epsilon", 1e-5))).sqrt()
    along = (-1, *[1] * (x.ndim - 2))
    return x * factor.view(along) + (shift - mean * factor).view(along)


def _instance_norm(said: Attributes, given: Given) -> Tensor:
    x, scale, shift = tensors(given)
    along = (-1, *[1] * (x.ndim - 2))
    axes = list(range(2, x.ndim))
    return _standardized(x, axes, said.get("epsilon", 1e-5)) * scale.view(along) + shift.view(along)


def _reshape(said: Attributes, given: Given) -> Tensor:
    x, sides = first(given), integers(said, given, 1, "shape")
    assert sides is not None
    kept = not said.get("allowzero", 0)
    return x.reshape([x.shape[i] if kept and side == 0 else side for i, side in enumerate(sides)])


def _flatten(said: Attributes, given: Given) -> Tensor:
    x = first(given)
    axis = said.get("axis", 1) % (x.ndim + 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(said: Attributes, given: Given) -> Tensor:
    x, axes = first(given), integers(said, given, 1, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(said: Attributes, given: Given) -> Tensor:
    x, axes = first(given), integers(said, given, 1, "axes") or []
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(said: Attributes, given: Given) -> Tensor:
    x = first(given)
    return x.permute(said.get("perm", list(range(x.ndim))[::-1]))


def _slice(said: Attributes, given: Given) -> Tensor:
    x = first(given)
    starts, ends = integers(said, given, 1, "starts") or [], integers(said, given, 2, "ends") or []
    axes = integers(said, given, 3, "axes") or list(range(len(starts)))
    steps = integers(said, given, 4, "steps") or [1] * len(starts)
    for axis, *sides in zip(axes, starts, ends, steps, strict=True):
        places = range(*slice(*sides).indices(x.shape[axis]))
        x = x.index_select(axis, torch.tensor(places, dtype=torch.long, device=x.device))
    return x


def _split(said: Attributes, given: Given) -> list[Tensor]:
    x, axis = first(given), said.get("axis", 0)
    sizes = integers(said, given, 1, "split") or -(-x.shape[axis] // said["outputs"])
    return list(torch.split(x, sizes, axis))


def _gather(said: Attributes, given: Given) -> Tensor:
    x, places = tensors(given)
    axis = said.get("axis", 0) % x.ndim
    flat = places.reshape(-1).long() % x.shape[axis]
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _concat(said: Attributes, given: Given) -> Tensor:
    """Side by side; a constant of one image stands in each."""
    parts, axis = tensors(given), said["axis"]
    if axis % parts[0].ndim:
        count = max(part.shape[0] for part in parts)
        parts = [part.expand(count, *part.shape[1:]) if len(part) == 1 else part for part in parts]
    return torch.cat(parts, axis)


def _expand(said: Attributes, given: Given) -> Tensor:
    x, sides = first(given), integers(said, given, 1, "shape") or []
    return x.expand(torch.broadcast_shapes(x.shape, sides))  # type: ignore[no-untyped-call]


def _pad(said: Attributes, given: Given) -> Tensor:
    x, pads = first(given), integers(said, given, 1, "pads") or []
    axes = integers(said, given, 3, "axes") or list(range(x.ndim))
    around = {axis % x.ndim: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    mode = said.get("mode", b"constant").decode()
    if mode == "constant":
        backwards = [side for axis in reversed(range(x.ndim)) for side in around.get(axis, (0, 0))]
        return F.pad(x, backwards, value=number({}, given, 2, "", 0.0))
    for axis, (before, after) in around.items():
        places = torch.arange(-before, x.shape[axis] + after, device=x.device)
        last = x.shape[axis] - 1
        within = places.clamp(0, last) if mode == "edge" else places % (last + 1)
        if mode == "reflect":
            within = last - (places.abs() % (2 * max(last, 1)) - last).abs()
        x = x.index_select(axis, within)
    return x


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[[Attributes, Given], Tensor]:
    def run(said: Attributes, given: Given) -> Tensor:
        x, axes = first(given), integers(said, given, 1, "axes")
        if not axes and said.get("noop_with_empty_axes", 0):
            return x
        return function(x, axes or list(range(x.ndim)), bool(said.get("keepdims", 1)))

    return run


def _global(function: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[[Attributes, Given], Tensor]:
    return lambda said, given: function(first(given), list(range(2, first(given).ndim)), True)


def _gemm(said: Attributes, given: Given) -> Tensor:
    a, b, *c = tensors(given)
    product = (a.T if said.get("transA", 0) else a) @ (b.T if said.get("transB", 0) else b)
    product = product * float(said.get("alpha", 1.0))
    return product + float(said.get("beta", 1.0)) * c[0] if c else product


def _depth_to_space(said: Attributes, given: Given) -> Tensor:
    x, size = first(given), said["blocksize"]
    count, channels, height, width = x.shape
    left = channels // size**2
    if said.get("mode", b"DCR") == b"CRD":
        x = x.reshape(count, left, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    else:
        x = x.reshape(count, size, size, left, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(count, left, height * size, width * size)


def _softmax(said: Attributes, given: Given) -> Tensor:
    return first(given).softmax(said.get("axis", -1))


def _norm(said: Attributes, given: Given) -> Tensor:
    """LpNormalization, and the norms that are reductions."""
    x, order = first(given), said.get("p", 2)
    length: Tensor = torch.linalg.vector_norm(x, order, said.get("axis", -1), True)
    return x / length.clamp_min(_LEAST)


def _root(x: Tensor) -> Tensor:
    """Without the infinite gradient that it has at zero, which integers often are."""
    return x.clamp_min(_LEAST).sqrt()


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.mean(axes, keepdim=keep)


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep)


def _largest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.amax(axes, keep)


_NODES: Mapping[str, Callable[[Attributes, Given], Tensor | list[Tensor]]] = {
    "Abs": _one(torch.abs), "Neg": _one(torch.neg), "Exp": _one(torch.exp), "Log": _one(torch.log),
    "Sqrt": _one(_root), "Reciprocal": _one(torch.reciprocal), "Erf": _one(torch.erf), "Sin": _one(torch.sin),
    "Cos": _one(torch.cos), "Relu": _one(torch.relu), "Sigmoid": _one(torch.sigmoid), "Tanh": _one(torch.tanh),
    "Softplus": _one(F.softplus), "Softsign": _one(F.softsign), "Mish": _one(F.mish), "HardSwish": _one(F.hardswish),
    "Identity": _one(lambda x: x), "Dropout": _one(lambda x: x), "Selu": _one(F.selu),
    "LeakyRelu": lambda said, given: F.leaky_relu(first(given), said.get("alpha", 0.01)),
    "Elu": lambda said, given: F.elu(first(given), said.get("alpha", 1.0)),
    "Celu": lambda said, given: F.celu(first(given), said.get("alpha", 1.0)),
    "PRelu": _prelu, "Clip": _clip, "HardSigmoid": _hard_sigmoid, "Gelu": _gelu,
    "Add": _folded_over(torch.add), "Sum": _folded_over(torch.add), "Sub": _folded_over(torch.sub),
    "Mul": _folded_over(torch.mul), "Div": _folded_over(torch.div), "Pow": _folded_over(torch.pow),
    "Max": _folded_over(torch.maximum), "Min": _folded_over(torch.minimum), "MatMul": _folded_over(torch.matmul),
    "Softmax": _softmax, "LayerNormalization": _layer_norm, "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm, "LpNormalization": _norm,
    "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Transpose": _transpose,
    "Slice": _slice, "Split": _split, "Gather": _gather, "Expand": _expand, "Pad": _pad,
    "Tile": lambda said, given: first(given).repeat(integers(said, given, 1, "repeats") or []),
    "Concat": _concat,
    "ReduceMean": _reduction(_mean), "ReduceSum": _reduction(_sum), "ReduceMax": _reduction(_largest),
    "ReduceL2": _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "GlobalAveragePool": _global(_mean), "GlobalMaxPool": _global(_largest),
    "MaxPool": max_pool, "AveragePool": average_pool, "Conv": convolution, "ConvTranspose": transposed_convolution,
    "Gemm": _gemm, "Resize": resize, "DepthToSpace": _depth_to_space,
    "Cast": lambda said, given: first(given) if said["to"] == TensorProto.FLOAT else first(given).long(),
}  # fmt: skip
