"""Converts one call of PyTorch's ATen library into an Op."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hw_profiles.network.workload import VIEWS, Op, Pair, Shape

Four = tuple[int, int, int, int]
NO_OP = "none"  # kind of a call that leaves its tensor as it is


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that goes in: ``name`` is empty where it does not depend on the image; ``parameter`` is another number
    for each parameter and buffer of the module, 0 where it is none."""

    name: str
    shape: Shape
    parameter: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A function by its ``kind``, the ``arguments`` by name (tensors as Operands), and the ``shape`` of the result."""

    kind: str
    arguments: Mapping[str, Any]
    shape: Shape

    @property
    def operands(self) -> list[Operand]:
        """All tensors that go in, those in lists too."""
        found: list[Operand] = []
        for value in self.arguments.values():
            for item in value if isinstance(value, list | tuple) else (value,):
                if isinstance(item, Operand):
                    found.append(item)
        return found

    @property
    def x(self) -> tuple[str, ...]:
        """Names of those that depend on the image."""
        return tuple(operand.name for operand in self.operands if operand.name)

    def weight(self, *names: str) -> Shape:
        """Shape of the first of these arguments that is a constant tensor."""
        for name in names:
            operand = self.arguments.get(name)
            if isinstance(operand, Operand) and not operand.name:
                return operand.shape
        return ()

    def integers(self, name: str, default: int = 1) -> list[int]:
        """An argument of one or more numbers as a list."""
        value = self.arguments.get(name)
        if value is None:
            return [default]
        return list(value) if isinstance(value, list | tuple) else [value]


def read_call(call: Call) -> Op:
    """The operation that a call is, still without a name; ``other`` where nobody knows it, NO_OP where it is none.

    >>> read_call(Call("relu", {"self": Operand("x", (1, 3))}, (1, 3))).function
    'relu'
    """
    reader = _READERS.get(call.kind)
    if reader is not None:
        return reader(call)
    if call.kind in _FUNCTIONS:
        return Op("", "activation", call.x, function=_FUNCTIONS[call.kind])
    if call.kind in _MOVES:
        return _moved(call)
    if call.kind in _VIEWS:
        flat = call.shape == (1, math.prod(call.shape))
        return _unless_same(call, "flatten" if flat else "reshape")
    if call.kind in _NOTHING:
        return Op("", NO_OP, call.x[:1])
    return Op("", "other", call.x, function=call.kind)


def _conv(call: Call) -> Op:
    arguments = call.arguments
    weight: Shape = arguments["weight"].shape
    transposed = bool(arguments.get("transposed")) or "transpose" in call.kind
    kernel, dilation = weight[2:], call.integers("dilation")
    padding = arguments.get("padding", 0)
    if isinstance(padding, str):
        dilations = dilation * len(kernel) if len(dilation) == 1 else dilation
        totals = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilations, strict=True)]
        around = _four([t // 2 for t in totals], [t - t // 2 for t in totals])
    else:
        sides = call.integers("padding", 0)
        sides = sides * len(kernel) if len(sides) == 1 else sides
        around = _four(sides, sides)
    return Op(
        "",
        "conv_transpose" if transposed else "conv",
        call.x,
        weight,
        arguments.get("bias") is not None,
        _pair(call.integers("stride"), len(kernel)),
        around,
        arguments.get("groups", 1),
        _pair(kernel, len(kernel)),
        _pair(dilation, len(kernel)),
    )


def _linear(call: Call) -> Op:
    if call.arguments["weight"].name:
        return Op("", "matmul", call.x[:2])
    return Op("", "linear", call.x, call.arguments["weight"].shape, bias=call.arguments.get("bias") is not None)


def _addmm(call: Call) -> Op:
    weight = call.weight("mat2")
    return Op("", "linear", call.x, weight[::-1], bias=True) if weight else Op("", "matmul", call.x[-2:])


def _matmul(call: Call) -> Op:
    first, second = (operand for operand in call.operands[-2:])
    if not second.name:
        if len(second.shape) == 2:
            return Op("", "linear", call.x, second.shape[::-1])
        return Op("", "matmul", call.x, second.shape)
    if not first.name:
        if len(first.shape) == 2:
            return Op("", "linear", call.x, first.shape)
        return Op("", "matmul", call.x, (*first.shape[:-2], *first.shape[-2:][::-1]))
    return Op("", "matmul", (first.name, second.name))


def _normalization(call: Call) -> Op:
    weight = call.weight("weight")
    function = {"native_layer_norm": "layer_norm", "native_group_norm": "group_norm"}.get(call.kind, call.kind)
    return Op("", "activation", call.x, weight, bool(call.weight("bias")), function=function)


def _batch_norm(call: Call) -> Op:
    return Op("", "affine", call.x, call.weight("weight", "running_mean"), bias=True)


def _instance_norm(call: Call) -> Op:
    return Op("", "activation", call.x, call.weight("weight"), bool(call.weight("bias")), function="instance_norm")


def _prelu(call: Call) -> Op:
    weight = call.weight("weight")
    return Op("", "activation", call.x, weight if math.prod(weight) > 1 else (), function="prelu")


def _clamp(call: Call) -> Op:
    low = call.arguments.get("min", call.arguments.get("min_val"))
    high = call.arguments.get("max", call.arguments.get("max_val"))
    function = {(0, 6): "relu6", (0, None): "relu"}.get((low, high), "clip")
    return Op("", "activation", call.x, function=function)


def _binary(call: Call) -> Op:
    kind, function = _BINARY[call.kind]
    weight = call.weight("self", "other")
    return Op("", kind, call.x, weight if math.prod(weight) > 1 else (), function=function)


def _power(call: Call) -> Op:
    return Op("", "activation" if len(call.x) == 1 else "other", call.x, function="pow")


def _pool(call: Call) -> Op:
    axes = len(call.shape) - 2
    kernel = call.integers("kernel_size")
    stride = call.arguments.get("stride") or kernel
    sides = call.integers("padding", 0)
    sides = sides * axes if len(sides) == 1 else sides
    return Op(
        "",
        "max_pool" if "max" in call.kind else "avg_pool",
        call.x,
        stride=_pair(stride if isinstance(stride, list | tuple) else [stride], axes),
        padding=_four(sides, sides),
        kernel_size=_pair(kernel, axes),
        dilation=_pair(call.integers("dilation"), axes),
    )


def _adaptive_pool(call: Call) -> Op:
    source = call.operands[0].shape
    average = "avg" in call.kind
    if average and call.shape[2:] == (1, 1):
        return Op("", "global_avg_pool", call.x)
    if call.shape == source:
        return Op("", NO_OP, call.x)
    stride = [a // b for a, b in zip(source[2:], call.shape[2:], strict=True)]
    kernel = [a - (b - 1) * s for a, b, s in zip(source[2:], call.shape[2:], stride, strict=True)]
    axes = len(stride)
    kind = "avg_pool" if average else "max_pool"
    return Op("", kind, call.x, stride=_pair(stride, axes), kernel_size=_pair(kernel, axes))


def _reduce(call: Call) -> Op:
    source = call.operands[0].shape
    rank = len(source)
    given = call.arguments.get("dim")
    axes = range(rank) if given is None or given == [] else [a % rank for a in call.integers("dim")]
    if call.kind == "mean" and rank == 4 and sorted(axes) == [2, 3]:
        return Op("", "global_avg_pool", call.x)
    function = {"amax": "max", "amin": "min"}.get(call.kind, call.kind)
    return Op("", "reduce", call.x, function=function)


def _pad(call: Call) -> Op:
    pads, source = call.integers("pad", 0), call.operands[0].shape
    if not any(pads):
        return Op("", NO_OP, call.x)
    mode, fill = call.arguments.get("mode", "constant"), call.arguments.get("value")
    outer = pads[4:]
    if mode != "constant" or fill not in (None, 0) or any(outer) or min(pads) < 0 or len(source) != 4:
        return Op("", "pad", call.x, function=mode if "_pad" not in call.kind else call.kind.partition("_pad")[0])
    left, right, top, bottom = [*pads, 0, 0][:4]
    return Op("", "pad", call.x, padding=(top, left, bottom, right))


def _moved(call: Call) -> Op:
    kind = _MOVES[call.kind]
    if kind == "concat":
        constants = [o.shape for o in call.operands if not o.name and math.prod(o.shape) > 1]
        return Op("", kind, call.x, constants[0] if constants else ())
    return Op("", kind, call.x) if kind in ("transpose", "gather") else _unless_same(call, kind)


def _unless_same(call: Call, kind: str) -> Op:
    same = call.operands[0].shape == call.shape
    inputs = call.x[:1] if kind in VIEWS else call.x
    return Op("", NO_OP if same else kind, inputs)


def _pair(values: Sequence[int], axes: int) -> Pair:
    """Height and width of a list for ``axes`` axes, or of one number for all; an axis that is missing is 1."""
    spread = list(values) * axes if len(values) == 1 else list(values)
    height, width = (1, 1, *spread)[-2:]
    return (height, width)


def _four(begins: Sequence[int], ends: Sequence[int]) -> Four:
    (top, left), (bottom, right) = (0, 0, *begins)[-2:], (0, 0, *ends)[-2:]
    return (top, left, bottom, right)


_BINARY = {
    "add": ("add", "none"), "sub": ("add", "sub"), "rsub": ("add", "sub"), "maximum": ("add", "max"),
    "minimum": ("add", "min"), "mul": ("mul", "none"), "div": ("mul", "div"), "true_divide": ("mul", "div"),
    "multiply": ("mul", "none"), "subtract": ("add", "sub"), "divide": ("mul", "div"),
}  # fmt: skip
_SAME_NAME = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "silu", "gelu", "sigmoid", "tanh", "mish", "softplus",
    "softsign", "softmax", "log_softmax", "log_sigmoid", "exp", "log", "sqrt", "rsqrt", "abs", "neg", "erf", "sin",
    "cos", "tan", "reciprocal", "floor", "ceil", "round", "sign", "square", "cumsum", "softshrink", "hardshrink",
)  # fmt: skip
_FUNCTIONS = {
    **{kind: kind for kind in _SAME_NAME},
    "hardswish": "hard_swish", "hardsigmoid": "hard_sigmoid", "_softmax": "softmax", "_log_softmax": "log_softmax",
    "special_softmax": "softmax", "_safe_softmax": "softmax", "_to_copy": "cast",
}  # fmt: skip
ELEMENTWISE = {
    "batch_norm",
    "clamp",
    "clip",
    "hardtanh",
    "clamp_min",
    "clamp_max",
    "hardswish",
    "hardsigmoid",
    *_SAME_NAME,
}
ELEMENTWISE -= {"softmax", "log_softmax", "cumsum"}  # these may make another type
_MOVES = {
    **dict.fromkeys(("cat", "concat", "stack"), "concat"),
    **dict.fromkeys(("slice", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind"), "slice"),
    **dict.fromkeys(("select", "index", "index_select", "gather", "flip", "roll", "embedding"), "gather"),
    **dict.fromkeys(("unfold", "im2col"), "gather"),
    **dict.fromkeys(("permute", "transpose", "t", "swapaxes", "movedim"), "transpose"),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle"), "transpose"),
    **dict.fromkeys(("expand", "expand_as", "repeat", "tile", "broadcast_to", "repeat_interleave"), "expand"),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d"), "resize"),
    **dict.fromkeys(("_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), "resize"),
}  # fmt: skip
_VIEWS = (
    "view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "unflatten", "reshape_as", "view_as", "ravel",
)  # fmt: skip
_NOTHING = (
    "dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach", "alias", "lift_fresh", "identity",
)  # fmt: skip
_READERS: Mapping[str, Callable[[Call], Op]] = {
    **dict.fromkeys([f"conv{n}d" for n in (1, 2, 3)], _conv),
    **dict.fromkeys([f"conv_transpose{n}d" for n in (1, 2, 3)], _conv),
    **dict.fromkeys(("convolution", "_convolution"), _conv),
    **dict.fromkeys(("matmul", "mm", "bmm", "baddbmm"), _matmul),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "rms_norm"), _normalization),
    **dict.fromkeys(("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(("clamp", "clip", "hardtanh", "clamp_min", "clamp_max"), _clamp),
    **dict.fromkeys([f"{m}_pool{n}d" for m in ("max", "avg") for n in (1, 2, 3)], _pool),
    **dict.fromkeys([f"adaptive_{m}_pool{n}d" for m in ("max", "avg") for n in (1, 2, 3)], _adaptive_pool),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "std", "var", "prod", "norm", "linalg_vector_norm"), _reduce),
    **dict.fromkeys(("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _pad),
    "linear": _linear,
    "addmm": _addmm,
    "instance_norm": _instance_norm,
    "prelu": _prelu,
    "pow": _power,
    "max_pool2d_with_indices": _pool,
}  # fmt: skip
KNOWN = {*_READERS, *_FUNCTIONS, *_MOVES, *_VIEWS, *_NOTHING}
CONSTANT = (
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
)
