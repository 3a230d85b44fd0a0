"""The int8 quantization of a network: which tensors are integers, and their scales."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hw_profiles.network.graph import MOVES
from hw_profiles.network.tensor_formats import FLOAT32
from hw_profiles.network.workload import UNKNOWN, VIEWS, WEIGHTED, Op, Workload

Scales = NDArray[np.float32]

ABSORBED = ("relu", "relu6")
"""Functions that the saturation of the operation before them computes."""
_IN_INTEGERS = ("none", *ABSORBED, "sigmoid", "leaky_relu", "softmax")  # what is no function, and what has kernels
_OF_WHOLE_TENSORS = ("LayerNormalization", "InstanceNormalization", "Resize", "Upsample", "ReduceSum")
_OF_TWO_TENSORS = ("Add", "Sub", "Mul")
LARGEST_WEIGHT = 127
LARGEST_BIAS = 2.0**31 - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantization:
    """The scales of a network in 8-bit integers: a number is ``scale * (integer - zero_point)``.

    ``activations``: scale and zero point of every tensor of :func:`quantized_tensors`, as unsigned integers, or as
    signed ones where ``signed`` is set. ``weights``: scales of the weights, signed with zero point 0, of shape
    (out_channels,), or () for one of the whole tensor; a weight that is not named has :func:`weight_scales`.
    ``in_float``: operations whose weights stay float32, so that they are computed in float. A tensor that only such
    operations make and read, see :func:`tensors_in_float`, stays float32 as well where it has no scale.
    """

    activations: Mapping[str, tuple[float, int]]
    weights: Mapping[str, Scales] = field(default_factory=dict)
    signed: bool = False
    in_float: frozenset[str] = frozenset()

    def scales_of(self, name: str, weight: NDArray[np.float32]) -> Scales:
        """The scales of a weight of that name."""
        given = self.weights.get(name)
        return weight_scales(weight) if given is None else given


def quantized_tensors(workload: Workload) -> list[str]:
    """The tensors that an int8 runtime keeps: all but those which a ReLU alone reads.

    The ReLU is absorbed by the saturation of the operation before it.
    """
    consumers = workload.consumers()
    producers = {op.name: op for op in workload.ops}

    def absorbed(name: str) -> bool:
        made_by = producers.get(name)
        return (
            made_by is not None
            and name != workload.output
            and made_by.kind in (*WEIGHTED, "add")
            and len(consumers[name]) == 1
            and consumers[name][0].function in ABSORBED
        )

    return [name for name in workload.shapes if not absorbed(name)]


def integer_tensors(workload: Workload, quantization: Quantization) -> list[str]:
    """The tensors that this network keeps as integers: those of :func:`quantized_tensors` but the ones in float."""
    between = tensors_in_float(workload, quantization.in_float)
    return [n for n in quantized_tensors(workload) if n in quantization.activations or n not in between]


def gate_of(op: Op) -> str:
    """The name of a SiLU's gate, the sigmoid of what it reads."""
    return f"{op.name}.sigmoid"


def with_gates(workload: Workload, quantization: Quantization) -> Workload:
    """The workload in which each SiLU in integers whose gate has a scale is the product with that gate. ONNX Runtime
    has kernels in integers for both, and none for SiLU as a whole.

    >>> from hw_profiles.network.workload import WorkloadBuilder
    >>> builder = WorkloadBuilder("input", (1, 4))
    >>> _ = builder.activation("act", "input", "silu")
    >>> scales = Quantization(activations={"input": (0.1, 128), "act": (0.1, 3), "act.sigmoid": (1 / 255, 0)})
    >>> [(op.name, op.kind) for op in with_gates(builder.build(), scales).ops]
    [('act.sigmoid', 'activation'), ('act', 'mul')]
    """
    ops: list[Op] = []
    shapes = dict(workload.shapes)
    for op in workload.ops:
        gate = gate_of(op)
        if op.function == "silu" and gate in quantization.activations and op.name not in quantization.in_float:
            shapes[gate] = shapes[op.name]
            ops.append(Op(gate, "activation", op.inputs, function="sigmoid"))
            ops.append(Op(op.name, "mul", (*op.inputs, gate)))
        else:
            ops.append(op)
    return replace(workload, ops=tuple(ops), shapes=shapes) if len(ops) > len(workload.ops) else workload


def tensors_in_float(workload: Workload, in_float: Collection[str]) -> frozenset[str]:
    """The tensors that no operation but those ``in_float`` makes or reads."""
    consumers = workload.consumers()
    produced = {*workload.inputs, *in_float}
    return frozenset(
        name for name in workload.shapes if name in produced and all(op.name in in_float for op in consumers[name])
    )


def rounded_tensors(workload: Workload) -> frozenset[str]:
    """The tensors that are held as integers between operations in float too, as a C99 program needs them: those that a
    normalization, a resizing, or a sum or product of two tensors makes or reads."""
    return frozenset(name for op in workload.ops if _is_rounded(op) for name in (op.name, *op.inputs))


def _is_rounded(op: Op) -> bool:
    two = op.function in _OF_TWO_TENSORS and len(op.inputs) == 2
    return op.kind == UNKNOWN and (two or op.function in _OF_WHOLE_TENSORS)


def with_in_float(workload: Workload, quantization: Quantization, names: Collection[str]) -> Quantization:
    """The scales of a network in which the operations of these ``names`` are computed in float too, with all operations
    without weights that read nothing else, and tensors between them stay float.

    >>> from search_spaces import preset
    >>> workload = preset("resnet8").workload()
    >>> mixed = with_in_float(workload, fixed_quantization(workload), ["stem", "classifier"])
    >>> sorted(mixed.in_float), "input" in mixed.activations, "stem.act" in mixed.activations
    (['classifier', 'stem', 'stem.act'], False, True)
    """
    in_float = in_float_around(workload, {*names, *quantization.in_float})
    between = tensors_in_float(workload, in_float)
    kept = {name: pair for name, pair in quantization.activations.items() if name not in between}
    return replace(quantization, activations=kept, in_float=in_float)


def in_float_around(workload: Workload, names: Collection[str] = ()) -> frozenset[str]:
    """The operations of ``names``, those of which nothing is known, and what follows them in float, see
    :func:`operations_in_float`; where there are no ``names`` only functions of single numbers and what moves numbers.

    >>> from hw_profiles.network.workload import Op, WorkloadBuilder
    >>> builder = WorkloadBuilder("input", (1, 4))
    >>> _ = builder.append(Op("fft", "other", ("input",), function="DFT"), (1, 4))
    >>> _ = builder.activation("act", "fft", "relu")
    >>> sorted(in_float_around(builder.build()))
    ['act', 'fft']
    """
    unknown = {op.name for op in workload.ops if op.kind == UNKNOWN}
    if names:
        return operations_in_float(workload, unknown | set(names))
    rounded = {op.name for op in workload.ops if _is_rounded(op)}
    in_integers = {
        op.name
        for op in workload.ops
        if op.kind not in ("activation", *MOVES, *VIEWS) or not rounded.isdisjoint(op.inputs)
    }
    return operations_in_float(workload, unknown, in_integers=in_integers)


def operations_in_float(
    workload: Workload, names: Collection[str], *, in_integers: Collection[str] = ()
) -> frozenset[str]:
    """Those of ``names``; functions that a runtime computes in float anyway, where nothing else reads them; and
    operations without weights that read only what these make and nothing else reads, but for those ``in_integers``.
    """
    consumers = {name: {op.name for op in ops} for name, ops in workload.consumers().items()}
    fixed = set(names)
    for op in reversed(workload.ops):
        if op.function not in _IN_INTEGERS and consumers[op.name] and consumers[op.name] <= fixed:
            fixed.add(op.name)
    without = [op for op in workload.ops if op.kind not in WEIGHTED and op.inputs and op.name not in in_integers]
    following = {op.name: op.inputs for op in without}
    in_float = fixed | following.keys()
    while True:
        gone = {
            name
            for name in in_float - fixed
            if not all(read in in_float and consumers[read] <= in_float for read in following[name])
        }
        if not gone:
            return frozenset(in_float)
        in_float -= gone


def quantized_workload(workload: Workload, quantization: Quantization) -> Workload:
    """The workload with the format of each tensor: integers, but for what operations in float make and for their
    weights; their outputs are made integers where these are read.

    >>> from search_spaces import preset
    >>> workload = preset("resnet8").workload()
    >>> mixed = quantized_workload(workload, with_in_float(workload, fixed_quantization(workload), ["classifier"]))
    >>> mixed.format("stem.weight").bits, mixed.format("classifier.weight").bits, mixed.format("classifier").bits
    (8, 32, 32)
    """
    workload = with_gates(workload, quantization)
    formats = dict(workload.with_precision("int8").formats)
    for op in workload.ops:
        if op.name in quantization.in_float:
            formats |= dict.fromkeys((op.name, op.weight, op.bias_name), FLOAT32)
    formats |= dict.fromkeys({*workload.inputs} - {*integer_tensors(workload, quantization)}, FLOAT32)
    return replace(workload, formats=MappingProxyType(formats))


def fixed_quantization(workload: Workload) -> Quantization:
    """Plausible scales for every tensor that is held as integers: enough to time a file, not to trust its outputs."""
    functions = {op.name: op.function for op in workload.ops}
    after = {"relu": (6 / 255, 0), "relu6": (6 / 255, 0), "sigmoid": (1 / 255, 0), "hard_sigmoid": (1 / 255, 0)}
    scales = {name: after.get(functions.get(name, "none"), (0.05, 128)) for name in quantized_tensors(workload)}
    # A maximum is computed in integers only if it has the scale of what it is taken of.
    same = {op.name: scales[op.inputs[0]] for op in workload.ops if op.kind == "max_pool"}
    return Quantization(activations=scales | same)


def weight_scales(weight: NDArray[np.float32]) -> Scales:
    """The scale of each output channel that maps its largest magnitude to 127."""
    largest = np.abs(weight.reshape(weight.shape[0], -1)).max(axis=1)
    scales: Scales = np.maximum(largest / LARGEST_WEIGHT, np.float32(1e-12)).astype(np.float32)
    return scales


def quantized_weight(weight: NDArray[np.float32], scales: Scales) -> NDArray[np.int8]:
    """The nearest integers, half to even, within -127..127.

    >>> quantized_weight(np.float32([[0.5, -99.0]]), np.float32([0.25]))
    array([[   2, -127]], dtype=int8)
    """
    along = scales.reshape(-1, *([1] * (weight.ndim - 1)))
    integers: NDArray[np.int8] = np.clip(np.rint(weight / along), -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8)
    return integers
