"""The graph of a QDQ file: integer constants, and the scale and zero point of each tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import InputError
from hw_profiles.onnx_io.untrusted_file import shown

_SHIFT = {np.dtype(np.int8): 0, np.dtype(np.uint8): 128}
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_PASS_ON = (*_QUANTIZERS, "Identity", "Dropout")
_USUAL_OPSET = 20
_MULTIPLIES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGER_NODES = "the C99 writer reads QuantizeLinear and DequantizeLinear around float operations (QDQ)"


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorQuantization:
    """A float tensor as signed 8-bit integers: ``scale * (integer - zero_point)``.

    ``shift`` is what the file's own integers are more: 128 where they are unsigned, else 0.

    >>> TensorQuantization(scale=0.5, zero_point=-3, shift=128).of(np.float32([1.25, 99]))
    array([ -1, 127], dtype=int8)
    """

    scale: float
    zero_point: int
    shift: int = 0

    def same_numbers(self, other: TensorQuantization) -> bool:
        """Whether an integer of the program stands for the same number in both."""
        return (self.scale, self.zero_point) == (other.scale, other.zero_point)

    def of(self, values: NDArray[np.float32]) -> NDArray[np.int8]:
        """Numbers as integers: divided in float32, rounded half to even, saturated."""
        steps = np.rint(values.astype(np.float32) / np.float32(self.scale)) + np.float32(self.zero_point)
        integers: NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
        return integers

    @property
    def range(self) -> tuple[float, float]:
        """The numbers that the lowest and the highest integer stand for."""
        lowest, highest = self.to_float(np.array([-128, 127], np.int8)).tolist()
        return lowest, highest

    def to_float(self, integers: NDArray[np.int8]) -> NDArray[np.float32]:
        """What the integers stand for."""
        return (integers.astype(np.int32) - self.zero_point).astype(np.float32) * np.float32(self.scale)


class Graph:
    """Nodes by what they make and who reads it, constants, and what QuantizeLinear and DequantizeLinear say."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.producers: dict[str, Any] = {}
        self.consumers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            self._add(node)

    def attributes(self, node: Any) -> dict[str, Any]:
        """The attributes of a node by name."""
        return {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def source(self, name: str) -> str:
        """The float tensor behind one that has gone through QuantizeLinear, DequantizeLinear or what does nothing."""
        while (node := self.producers.get(name)) is not None and node.op_type in _PASS_ON:
            name = node.input[0]
        return name

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element, else None."""
        value = self.constants.get(name)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    @property
    def opset(self) -> int:
        """The version of ONNX's own operations."""
        versions = [each.version for each in self.model.opset_import if each.domain in ("", "ai.onnx")]
        return int(max(versions, default=_USUAL_OPSET))

    def in_integers(self, name: str) -> bool:
        """Whether a tensor that depends on the network's input is one of integers."""
        quantizer, source = self._quantizer(name)
        if quantizer is not None:
            return bool(quantizer.op_type == "QuantizeLinear")
        return self._input_type(source) in (TensorProto.UINT8, TensorProto.INT8)

    def constant(self, name: str) -> bool:
        """Whether a tensor is constant, integers behind DequantizeLinear included."""
        maker = self.producers.get(name)
        behind = maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in self.constants
        return name in self.constants or behind

    def number_array(self, name: str) -> NDArray[np.float32] | None:
        """A constant as float32 numbers, also one of integers behind DequantizeLinear; else None."""
        value, maker = self.constants.get(name), self.producers.get(name)
        if value is not None:
            return value.astype(np.float32)
        if maker is None or not self.constant(name):
            return None
        held, scales = self.constants[maker.input[0]], self._scales(maker, maker.input[1])
        given = self._zero_point(maker)
        if given is None:
            return None
        zero = given.reshape(-1)
        sides = [1] * held.ndim
        if scales.size > 1:
            axis = self.attributes(maker).get("axis", 1) % held.ndim
            if scales.size != held.shape[axis] or zero.size not in (1, scales.size):
                raise InputError(f"{place(maker)}: must have one scale or one for each channel")
            sides[axis] = scales.size
        zeros = zero.astype(np.int64).reshape(sides if zero.size > 1 else [1] * held.ndim)
        found: NDArray[np.float32] = (held.astype(np.int64) - zeros).astype(np.float32) * scales.reshape(sides)
        return found

    def quantization(self, node: Any) -> TensorQuantization:
        """What a QuantizeLinear or DequantizeLinear of an activation says.

        Raises:
            InputError: not one positive scale and an 8-bit zero point for the whole tensor.
        """
        zero = self._zero_point(node)
        scale = self.scalar(node.input[1])
        if zero is None or zero.dtype not in _SHIFT or zero.size != 1 or scale is None:
            kind = "none" if zero is None else f"{zero.dtype}, {zero.size} of them"
            raise InputError(f"{place(node)}: must have one scale and an 8-bit zero point for the tensor, got {kind}")
        if not 0 < scale < np.inf:
            raise InputError(f"{place(node)}: its scale must be positive and finite, got {scale}")
        shift = _SHIFT[zero.dtype]
        return TensorQuantization(scale=scale, zero_point=int(zero.reshape(-1)[0]) - shift, shift=shift)

    def float_weight(self, node: Any) -> bool:
        """Whether a node multiplies by a constant in float."""
        constants = (self.constants.get(name) for name in node.input[:2])
        return node.op_type in _MULTIPLIES and any(c is not None and c.dtype.kind == "f" for c in constants)

    def weight(self, node: Any, i: int, axis: int) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Integers of a node's constant input without their zero points, and their scales: one, or one per channel of
        ``axis``.

        Raises:
            InputError: not 8-bit integers of constant scales; the node is named.
        """
        maker = self.producers.get(node.input[i])
        values = None if maker is None or maker.op_type != "DequantizeLinear" else self.constants.get(maker.input[0])
        if maker is None or values is None:
            raise InputError(f"{place(node)}: its weights must be integers and DequantizeLinear; quantize them")
        if values.dtype not in _SHIFT:
            raise InputError(f"{place(node)}: its weights must be 8-bit integers, got {values.dtype}")
        zero = self._zero_point(maker)
        if zero is None or zero.dtype != values.dtype:
            raise InputError(f"{place(node)}: the zero point of its weights must be constant, of their type")
        scales = self._scales(node, maker.input[1])
        if scales.size > 1 and (
            self.attributes(maker).get("axis", 1) % values.ndim != axis or scales.size != values.shape[axis]
        ):
            raise InputError(f"{place(node)}: its weights must have one scale or one per output channel")
        zeros = zero.astype(np.int16).reshape(-1)
        if zeros.size not in (1, scales.size):
            raise InputError(f"{place(node)}: its weights must have as many zero points as scales, got {zeros.size}")
        sides = [-1 if i == axis else 1 for i in range(values.ndim)] if zeros.size > 1 else [1] * values.ndim
        return values.astype(np.int16) - zeros.reshape(sides), scales

    def bias(self, node: Any, i: int, scales: NDArray[np.float32]) -> NDArray[np.int64]:
        """A constant input as integers of the given scales, as ONNX Runtime holds it; zeros where there is none."""
        if len(node.input) <= i or not node.input[i]:
            return np.zeros(scales.size, np.int64)
        maker = self.producers.get(node.input[i])
        if maker is None or maker.op_type != "DequantizeLinear":
            values, held = self.constants.get(node.input[i]), None
        else:
            values, held = self._less_zero_point(maker), self._scales(node, maker.input[1])
        if values is None or values.size != scales.size:
            raise InputError(f"{place(node)}: its bias must be constant, with a number for each output channel")
        if held is not None:
            if np.allclose(held, scales, rtol=1e-6, atol=0):
                return values.reshape(-1).astype(np.int64)
            values = values.astype(np.float64) * held
        return np.rint(values.reshape(-1).astype(np.float64) / scales).astype(np.int64)

    def _add(self, node: Any) -> None:
        if node.op_type == "Constant":
            value = next((a for a in node.attribute if a.name == "value"), None)
            if value is not None:
                self.constants[node.output[0]] = numpy_helper.to_array(value.t)
            return
        if node.op_type.startswith("QLinear") or node.op_type in ("QGemm", "ConvInteger", "MatMulInteger"):
            raise InputError(f"{place(node)}: {_INTEGER_NODES}; quantize with quant_format=QDQ")
        if node.op_type in _QUANTIZERS and len(node.input) < 2:
            raise InputError(f"{place(node)}: must have a scale")
        for name in node.output:
            self.producers[name] = node
        for name in node.input:
            self.consumers.setdefault(name, []).append(node)
        if node.op_type == "DequantizeLinear" and self.scalar(node.input[0]) is not None:
            self._dequantized_number(node)

    def _zero_point(self, node: Any) -> NDArray[Any] | None:
        """Of a QuantizeLinear or DequantizeLinear: 0 where it says none, None where it is not constant."""
        name = node.input[2] if len(node.input) > 2 else ""
        return self.constants.get(name) if name else np.zeros(1, self._integers_of(node))

    def _integers_of(self, node: Any) -> Any:
        """The type that a QuantizeLinear makes or a DequantizeLinear reads, where no zero point says it."""
        if node.op_type == "QuantizeLinear":
            return helper.tensor_dtype_to_np_dtype(self.attributes(node).get("output_dtype") or TensorProto.UINT8)
        if node.input[0] in self.constants:
            return self.constants[node.input[0]].dtype
        quantizer, source = self._quantizer(node.input[0])
        zero = None if quantizer is None else self._zero_point(quantizer)
        return helper.tensor_dtype_to_np_dtype(self._input_type(source)) if zero is None else zero.dtype

    def _quantizer(self, name: str) -> tuple[Any | None, str]:
        """The QuantizeLinear or DequantizeLinear that a tensor comes of, or None and the network's input."""
        while (node := self.producers.get(name)) is not None and node.op_type not in _QUANTIZERS:
            name = next((i for i in node.input if i and i not in self.constants), "")
        return node, name

    def _input_type(self, name: str) -> int:
        kinds = {value.name: value.type.tensor_type.elem_type for value in self.model.graph.input}
        return int(kinds.get(name, TensorProto.FLOAT))

    def _less_zero_point(self, node: Any) -> NDArray[Any] | None:
        """The constant integers that a DequantizeLinear reads, without its zero point."""
        values, zero = self.constants.get(node.input[0]), self._zero_point(node)
        if values is None or zero is None or zero.size not in (1, values.size):
            return None
        found: NDArray[Any] = values.reshape(-1).astype(np.int64) - zero.reshape(-1).astype(np.int64)
        return found

    def _dequantized_number(self, node: Any) -> None:
        zero = self.scalar(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
        number, scale = self.scalar(node.input[0]), self.scalar(node.input[1])
        if number is not None and zero is not None and scale is not None:
            self.constants[node.output[0]] = np.array(np.float32(number - zero) * np.float32(scale))

    def _scales(self, node: Any, name: str) -> NDArray[np.float32]:
        value = self.constants.get(name)
        if value is None or value.dtype != np.float32 or not bool(np.all((value > 0) & np.isfinite(value))):
            raise InputError(f"{place(node)}: scales must be constant, float32, positive and finite")
        return value.reshape(-1)


def place(node: Any) -> str:
    """A node as it may appear in a message.

    >>> from onnx.helper import make_node
    >>> place(make_node("Relu", ["x"], ["y"], name="act"))
    "node 'act' (Relu)"
    """
    return f"node {shown(node.name or ''.join(node.output[:1]))} ({node.op_type})"
