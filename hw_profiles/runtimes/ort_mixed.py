"""Fusion rules of ONNX Runtime for networks that are partly int8, partly float."""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType

from hw_profiles.network.quantization import ABSORBED, operations_in_float
from hw_profiles.network.tensor_formats import UINT8
from hw_profiles.network.workload import WEIGHTED, Op, Workload
from hw_profiles.runtimes.kernels import Kernel
from hw_profiles.runtimes.ort_float import FloatFuser
from hw_profiles.runtimes.ort_int8 import CHANNELS_LAST, IntegerFuser

_SILU_OF_INTEGERS = ("DequantizeLinear", "Sigmoid", "Mul")


def weights_in_float(workload: Workload) -> list[str]:
    """The operations of a network of 8-bit tensors whose weights are floating-point numbers."""
    ops = [op for op in workload.ops if op.kind in WEIGHTED and op.stores_weights]
    return [op.name for op in ops if workload.format(op.weight).floating]


class MixedFuser:
    """Each operation by the rules of its arithmetic, and conversions where a tensor goes from one to the other."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.in_float = operations_in_float(workload, weights_in_float(workload))
        weights = {name: value for name, value in workload.formats.items() if name not in workload.shapes}
        integers = MappingProxyType({**weights, **dict.fromkeys(workload.shapes, UINT8)})
        self.floats = FloatFuser(replace(workload, formats=MappingProxyType(weights)))
        self.integers = IntegerFuser(replace(workload, formats=integers))
        self.consumers = self.integers.consumers
        # What an operation in integers reads as well is taken up by no kernel in float.
        self.floats.consumers = {n: [] if self._is_quantized(n) else ops for n, ops in self.floats.consumers.items()}
        self.integers.kernels, self.integers.taken = self.floats.kernels, self.floats.taken
        self.integers.leading = self._leading()
        self.made_in_float = {op.name for op in workload.ops if op.name in self.in_float}

    def run(self) -> tuple[Kernel, ...]:
        """All kernels in order."""
        for source in self.workload.inputs:
            if self.workload.format(source).bits == 8:
                self._convert("quantize", source, source)
            else:
                self.made_in_float.add(source)
        for op in self.workload.ops:
            if op.name not in self.floats.taken:
                self._add(op)
        for output in self.workload.outputs:
            if output in self.made_in_float:
                self.floats.plain(output)
            else:
                self._convert("dequantize", self.integers.plain(output), output)
        return tuple(self.floats.kernels)

    def _leading(self) -> frozenset[str]:
        """Tensors that lead to a convolution in integers, if through other operations in integers."""
        found: set[str] = set()
        for op in reversed(self.workload.ops):
            if op.name not in self.in_float and (op.kind == "conv" or (op.name in found and op.kind in CHANNELS_LAST)):
                found.update(op.inputs)
        return frozenset(found)

    def _add(self, op: Op) -> None:
        if op.name not in self.in_float:
            for name in op.inputs:
                self._as_integers(name)
            self.integers.add(op)
            return
        for name in dict.fromkeys(op.inputs):
            self._as_float(name, op)
        before = len(self.floats.kernels)
        self.floats.add(op)
        self._adapt_float_kernels(before)

    def _as_integers(self, name: str) -> None:
        if name not in self.made_in_float or name in self.integers.stands:
            return
        held = f"{name}@integers"
        self._convert("quantize", self.floats.plain(name), held)
        self.integers.stands[name] = held

    def _as_float(self, name: str, reader: Op) -> None:
        """Of what is made in integers, and of what is made in float and read by an operation in integers as well; for
        each reader anew."""
        if name in self.made_in_float:
            if not self._is_quantized(name):
                return
            self._as_integers(name)
        held = f"{name}@float.{reader.name}"
        self._convert("dequantize", self.integers.plain(name), held)
        self.floats.stands[name] = held

    def _is_quantized(self, name: str) -> bool:
        return any(op.name not in self.in_float for op in self.consumers[name])

    def _convert(self, kind: str, read: str, written: str) -> None:
        count = math.prod(self.workload.shapes[self.workload.tensor_of(written)])
        node, size = ("QuantizeLinear", count) if kind == "quantize" else ("DequantizeLinear", 4 * count)
        self.floats.convert(kind, (read, written), "plain", (node,), size)

    def _adapt_float_kernels(self, start: int) -> None:
        """What conversions change of float kernels: a ReLU whose output is made integers is the saturation there, and
        the two halves of a SiLU each read a conversion of their own, which keeps them apart.
        """
        kernels = self.floats.kernels
        for i in range(start, len(kernels)):
            ops = kernels[i].ops
            if not ops:
                continue
            if ops[0].function == "silu" and "@float" in kernels[i].inputs[0]:
                kernels[i] = replace(kernels[i], nodes=_SILU_OF_INTEGERS)
            elif ops[-1].function in ABSORBED and self._is_quantized(ops[-1].name) and len(ops) < 3:
                kernels[i] = replace(kernels[i], nodes=("Conv",) if len(ops) == 2 else ())
