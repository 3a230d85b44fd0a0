"""Collects the layers of a program while the nodes of a file are read in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.c99.layers import INTEGERS, Move, ProgramLayer, Step, Stored, Table, Target, Tensor
from compress.c99.qdq_graph import Graph, TensorQuantization, place
from compress.c99.reading.values import Draft, Image, Value
from compress.c99.strided_copies import OUTSIDE, Index, strided_boxes
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.untrusted_file import shown

KNOWN = (
    "convolutions, linear layers and products of matrices, sums and products, pooling, means, softmax, normalizations, "
    "linear Resize, functions of one number, and whatever only moves numbers"
)
_ADD_NODES = (
    "not quantized to 8-bit integers; quantize the model (e.g. with `nas compress`), or add QuantizeLinear and "
    "DequantizeLinear"
)


class Builder:
    """Values by the names of the file's tensors, and the layers so far.

    ``wanted`` has quantizations that follow for tensors from what later nodes say, see :func:`wanted_quantizations`.
    """

    def __init__(self, graph: Graph, wanted: Mapping[str, TensorQuantization], input_name: str) -> None:
        self.graph = graph
        self.input_name = input_name
        self.wanted = wanted
        self.values: dict[str, Value] = {}
        self.layers: list[ProgramLayer] = []
        self.stored: dict[str, Stored] = {}
        self.input: Tensor | None = None
        self._done: dict[tuple[int | str, TensorQuantization], Tensor] = {}
        self._drafts: list[Draft | Tensor] = []  # kept, so that no other has the id of one

    def constant(self, name: str) -> bool:
        """Whether a tensor is constant, integers behind DequantizeLinear included."""
        return self.graph.constant(name)

    def value(self, node: Any, i: int = 0) -> Value:
        """An input of a node, which depends on the network's input."""
        name = node.input[i] if i < len(node.input) else ""
        if name not in self.values:
            raise InputError(unknown(node))
        return self.values[name]

    def held(self, node: Any, i: int = 0) -> tuple[Tensor, Value]:
        """An input of a node that is held as integers, and where its numbers lie in them.

        Raises:
            InputError: it is not quantized; the node that makes it is named.
        """
        self.value(node, i)
        return self.integers(node.input[i])

    def integers(self, name: str) -> tuple[Tensor, Value]:
        """A tensor of the file that is held as integers, see :meth:`held`."""
        value = self.values[name]
        if isinstance(value.source, Draft):
            found = self.wanted.get(name) or self._covering(value.source)
            if found is None:
                raise InputError(self._unquantized(name, value.source))
            value = self.values[name] = self.quantized(value, found, name)
        assert isinstance(value.source, Tensor)
        return value.source, value

    def _covering(self, draft: Draft) -> TensorQuantization | None:
        """A quantization of all numbers that a layer can give, whatever it reads; None where these are not known."""
        if draft.floats is not None:
            values = draft.floats.all_numbers()
            ends = (float(values.min()), float(values.max()))
        elif draft.range is not None:
            ends = draft.range
        else:
            return None
        lowest, highest = np.clip(ends, *self.limits(draft)).tolist()
        low, high = min(lowest, 0.0), max(highest, 0.0)
        if not np.isfinite(high - low) or high == low:
            return None
        scale = float(np.float32((high - low) / 255))
        return TensorQuantization(scale=scale, zero_point=int(np.clip(np.rint(-128 - low / scale), -128, 127)))

    def _unquantized(self, name: str, draft: Draft) -> str:
        maker = draft.clamps[-1] if draft.clamps else draft.node
        return f"tensor {shown(name)}: {_ADD_NODES}" if maker is None else f"{place(maker)}: {_ADD_NODES}"

    def quantized(self, value: Value, to: TensorQuantization, name: str) -> Value:
        """A value as integers of a quantization; a layer makes them where it has another one, or none yet."""
        source = value.source
        if isinstance(source, Tensor) and source.quantization.same_numbers(to):
            return Value(source=replace(source, quantization=to), index=value.index, padded=value.padded)
        key = (id(source) if isinstance(source, Draft) else source.name, to)
        if key not in self._done:
            if isinstance(source, Tensor):
                values = to.of(source.quantization.to_float(INTEGERS))
                self._done[key] = self.layer(name, (source,), source.shape, to, (Table(values=values),))
            elif source.node is None:
                self._done[key] = self._input(source, to, name)
            else:
                steps = source.make(to, self._target(source, to))
                self._done[key] = self.layer(name, source.inputs, source.shape, to, steps)
            self._drafts.append(source)
        return Value(source=self._done[key], index=value.index)

    def _input(self, draft: Draft, to: TensorQuantization, name: str) -> Tensor:
        if self.input is not None and self.input.quantization != to:
            raise InputError(f"tensor {shown(name)}: the network's input must be quantized in one way, got two")
        self.input = Tensor(name=self.input_name, shape=draft.shape, quantization=to)
        return self.input

    def layer(
        self, name: str, inputs: tuple[Tensor, ...], shape: Image, to: TensorQuantization, steps: tuple[Step, ...]
    ) -> Tensor:
        """Append a layer; its output has a name of its own."""
        taken = {layer.output.name for layer in self.layers} | {"" if self.input is None else self.input.name}
        free = name
        while free in taken:
            free += "'"
        output = Tensor(name=free, shape=shape, quantization=to)
        self.layers.append(
            ProgramLayer(name=free, inputs=inputs, output=output, steps=steps, offsets=(0,) * len(inputs), offset=0)
        )
        return output

    def arranged(self, node: Any, tensor: Tensor, index: Index, shape: Image, fill: int | None = None) -> Tensor:
        """A tensor whose numbers lie as ``index`` says, in the order of its axes: the given one where they do, else a
        copy.

        Raises:
            InputError: no few loops make that copy.
        """
        flat = index.reshape(-1)
        if len(flat) == tensor.size and np.array_equal(flat, np.arange(len(flat))):
            return Tensor(name=tensor.name, shape=shape, quantization=tensor.quantization)
        boxes = strided_boxes(index)
        if boxes is None:
            raise InputError(
                f"{place(node)}: unsupported change of the data layout; use simpler Reshape and Transpose operations"
            )
        fill = tensor.quantization.zero_point if fill is None else fill
        step = Move(boxes=boxes, fill=fill if (flat == OUTSIDE).any() else None)
        return self.layer(f"{tensor.name}:moved", (tensor,), shape, tensor.quantization, (step,))

    def _target(self, draft: Draft, to: TensorQuantization) -> Target:
        """The limits of what comes out of the ReLU and Clip nodes after a layer."""
        low, high = to.of(self.limits(draft)).tolist()
        return Target(zero_point=to.zero_point, low=low, high=high)

    def limits(self, draft: Draft) -> NDArray[np.float32]:
        """The lowest and the highest number that the ReLU and Clip nodes after a layer let through."""
        values = np.array([-np.inf, np.inf], np.float32)
        for node in draft.clamps:
            lowest, highest = (self._limit(node, i) for i in (1, 2))
            values = np.clip(values, lowest, highest)
        return values

    def _limit(self, node: Any, i: int) -> np.float32:
        default = np.float32(-np.inf if i == 1 else np.inf)
        if node.op_type == "Relu":
            return np.float32(0) if i == 1 else default
        if node.op_type in ("Max", "Min"):
            values = [v for v in map(self.graph.scalar, node.input) if v is not None]
            return np.float32(values[0]) if (node.op_type == "Max") == (i == 1) else default
        if len(node.input) > i and node.input[i]:
            value = self.graph.scalar(node.input[i])
            if value is None:
                raise InputError(f"{place(node)}: its limits must be constant")
            return np.float32(value)
        return np.float32(self.graph.attributes(node).get("min" if i == 1 else "max", default))


Handler = Callable[[Builder, Any], None]


def unknown(node: Any) -> str:
    """The message for a node that nothing is known of."""
    return f"{place(node)}: no C99 kernel is known for it; known are {KNOWN}: replace or remove it"


def wanted_quantizations(graph: Graph, moving: frozenset[str]) -> dict[str, TensorQuantization]:
    """The quantization of each tensor that all who read it agree on, ``moving`` nodes on behalf of those who read
    them: what only moves or compares numbers may as well do so in integers."""
    found: dict[str, TensorQuantization] = {}

    def said(node: Any) -> TensorQuantization | None:
        if node.op_type == "QuantizeLinear":
            return graph.quantization(node)
        if node.op_type not in moving:
            return None
        outputs = {found.get(name) for name in node.output if name}
        return outputs.pop() if len(outputs) == 1 else None

    for node in reversed(graph.model.graph.node):
        for name in filter(None, node.output):
            agreed = {said(reader) for reader in graph.consumers.get(name, [])}
            one = agreed.pop() if len(agreed) == 1 else None
            if one is not None:
                found[name] = one
    return found
