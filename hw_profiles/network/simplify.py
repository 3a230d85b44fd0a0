"""Graph simplifications that every runtime does, such as folding batch normalization."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from hw_profiles.network.activations import ACTIVATIONS
from hw_profiles.network.workload import WEIGHTED, Op, Shape

_OWN_GATES = {each.gate: name for name, each in ACTIVATIONS.items() if each.gate}
MERGED = (
    "affine",
    "add",
)  # what may go into the operation before it; ``shared_bias`` says that its constants are shared
_ZEROS = "none"  # what a pad is filled with unless its function says so


def simplify(
    ops: Sequence[Op], shapes: Mapping[str, Shape], kept: Collection[str]
) -> tuple[tuple[Op, ...], dict[str, str]]:
    """The operations that are left, and which tensor stands for each that is gone. Those in ``kept`` stay.

    A batch normalization goes into the convolution or linear operation before it, an added constant into a linear one,
    zeros around an image into the convolutions that read it, and a tensor times its own gate is SiLU or hard-swish.

    >>> conv = Op("conv", "conv", ("input",), (4, 3, 3, 3))
    >>> norm = Op("norm", "affine", ("conv",), (4,), bias=True)
    >>> ops, gone = simplify([conv, norm], {"conv": (1, 4, 6, 6), "norm": (1, 4, 6, 6)}, ["norm"])
    >>> ops[0].normalized, gone
    (True, {'norm': 'conv'})
    """
    simplifier = _Simplifier(ops, shapes, kept)
    for op in ops:
        simplifier.add(op)
    return tuple(_really_shared(simplifier.done.values())), simplifier.gone


def _really_shared(ops: Collection[Op]) -> Iterator[Op]:
    """A weight into which a normalization was folded is shared by those alone into which the same one was."""
    owners: dict[str, Op] = {}
    for each in ops:
        op = replace(each, shared_bias="") if each.kind in MERGED and each.shared_bias else each
        owner = owners.setdefault(op.weight, op)
        if owner is not op and (owner.normalized, owner.bias) != (op.normalized, op.bias):
            yield replace(op, shared_weight="", shared_bias="")
        else:
            yield op


class _Simplifier:
    def __init__(self, ops: Sequence[Op], shapes: Mapping[str, Shape], kept: Collection[str]) -> None:
        self.shapes = shapes
        self.kept = set(kept)
        self.done: dict[str, Op] = {}
        self.gone: dict[str, str] = {}
        self.zeros: dict[str, tuple[int, int, int, int]] = {}
        self.consumers: dict[str, list[Op]] = {}
        for op in ops:
            for name in set(op.inputs):
                self.consumers.setdefault(name, []).append(op)

    def add(self, op: Op) -> None:
        zeros = self.zeros.get(op.inputs[0]) if op.inputs else None
        if zeros is not None:
            top, left, bottom, right = (a + b for a, b in zip(op.padding, zeros, strict=True))
            op = replace(op, padding=(top, left, bottom, right))
        before = self._only_for(op.inputs[0]) if len(op.inputs) == 1 else None
        merged = None if before is None else _merged(before, op, self.shapes[op.name])
        op = replace(op, inputs=tuple(self.gone.get(name, name) for name in op.inputs))
        if before is not None and merged is not None:
            self.done[before.name] = merged
            self.gone[op.name] = before.name
        elif self._zeros_of_convolutions(op):
            self.zeros[op.name] = op.padding
            self.gone[op.name] = op.inputs[0]
        else:
            op = self._gated(op)
            self.done[op.name] = op

    def _only_for(self, name: str) -> Op | None:
        """The operation that made the tensor, where but one reads it."""
        single = len(self.consumers.get(name, ())) == 1 and name not in self.kept
        return self.done.get(name) if single else None

    def _zeros_of_convolutions(self, op: Op) -> bool:
        if op.kind != "pad" or op.function != _ZEROS or not any(op.padding) or op.name in self.kept:
            return False
        consumers = self.consumers.get(op.name, ())
        return bool(consumers) and all(reader.kind == "conv" for reader in consumers)

    def _gated(self, op: Op) -> Op:
        if op.kind != "mul" or op.function != "none" or len(op.inputs) != 2:
            return op
        for x, name in (op.inputs, op.inputs[::-1]):
            gate = self._only_for(name)
            if gate is not None and gate.function in _OWN_GATES and gate.inputs == (x,):
                del self.done[gate.name]
                return Op(op.name, "activation", (x,), function=_OWN_GATES[gate.function])
        return op


def _merged(before: Op, op: Op, shape: Shape) -> Op | None:
    if before.kind not in WEIGHTED or len(before.inputs) != 1 or before.normalized:
        return None
    weight = before.shared_weight if op.shared_bias else ""
    bias_name = f"{weight.removesuffix('.weight')}.bias" if weight else ""
    if op.kind == "affine" and (before.kind != "linear" or len(shape) == 2):
        return replace(before, bias=True, normalized=True, shared_weight=weight, shared_bias=bias_name)
    bias = op.kind == "add" and op.function == "none" and op.weight_shape == (before.out_channels,)
    if bias and before.kind == "linear" and not before.bias:
        return replace(before, bias=True, shared_weight=weight, shared_bias=bias_name)
    return None
