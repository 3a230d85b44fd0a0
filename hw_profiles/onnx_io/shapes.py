"""Infers types, shapes and small constants of an ONNX graph node by node, with limits."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from hw_profiles.errors import InputError, short_reason
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.network.workload import Shape
from hw_profiles.onnx_io.constant_folding import fold
from hw_profiles.onnx_io.untrusted_file import shown

LARGEST_TENSOR_BYTES = 2**31
MOST_AXES = 16
_MOST_VALUES = 64
_SHAPE_ONLY = ("Shape", "Size")
OWN_DOMAINS = ("", "ai.onnx")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_MICROSOFT = "com.microsoft"
_SHAPED_AS_THEIR_INPUT = {
    *((domain, name) for domain in OWN_DOMAINS for name in ("GroupNormalization", "MeanVarianceNormalization")),
    *((_MICROSOFT, name) for name in ("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "GroupNorm")),
}
"""Operations for which ONNX itself has no rule."""
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_WIDE = {"FLOAT": 32, "DOUBLE": 64, "COMPLEX64": 64, "COMPLEX128": 128}


@dataclass(slots=True)
class Constant:
    """A tensor that does not depend on the input; its ``value`` only where it is small.

    ``data_type`` is what is stored, ``read_as`` what operations take it for where that is another, ``widened`` the
    format in the file of what other operations than DequantizeLinear make of it.
    """

    shape: Shape
    data_type: int
    value: NDArray[Any] | None = None
    per_channel: bool = False
    read_as: int = TensorProto.UNDEFINED
    widened: TensorFormat | None = None


class Tensors:
    """Shapes and constants by the names of the graph; ``batch`` is the first side where the file leaves it open."""

    def __init__(self, model: Any, batch: int = 1) -> None:
        self._batch = batch
        self.constants: dict[str, Constant] = {}
        self.shapes: dict[str, Shape] = {}
        self.types: dict[str, int] = {}
        self._opsets = list(model.opset_import)
        self._versions = {o.domain: o.version for o in self._opsets}
        self._declared = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
        for tensor in model.graph.initializer:
            self.add_constant(tensor.name, read_constant(tensor))
        for sparse in model.graph.sparse_initializer:
            shape = check_shape(sparse.values.name, sparse.dims, sparse.values.data_type)
            self.add_constant(sparse.values.name, Constant(shape, sparse.values.data_type))

    def add_constant(self, name: str, constant: Constant) -> None:
        """A tensor that the file holds or that follows from such alone."""
        self._new(name)
        self.constants[name] = constant

    def add(self, name: str, shape: Sequence[int], data_type: int) -> None:
        """A tensor that depends on the input; its size is checked."""
        self._new(name)
        self.shapes[name] = check_shape(name, shape, data_type)
        self.types[name] = data_type

    def known(self, name: str) -> bool:
        """Whether something made it already."""
        return name in self.shapes or name in self.constants

    def shape(self, name: str) -> Shape:
        """Of a constant or of a tensor."""
        return self.shapes[name] if name in self.shapes else self.constants[name].shape

    def numbers(self, name: str) -> list[float] | None:
        """The values of a small constant, or None."""
        constant = self.constants.get(name)
        if constant is None or constant.value is None:
            return None
        return [float(v) for v in constant.value.reshape(-1)]

    def integers(self, name: str) -> list[int] | None:
        """The values of a small constant as integers, or None."""
        constant = self.constants.get(name)
        if constant is None or constant.value is None or constant.value.dtype.kind not in "iu":
            return None
        return [int(v) for v in constant.value.reshape(-1)]

    def folded(self, node: Any, reads: Sequence[str], attributes: dict[str, Any]) -> list[Constant]:
        """The node's outputs where all that it ``reads`` is constant or it asks for a shape alone, else nothing."""
        is_own = node.domain in OWN_DOMAINS
        if node.op_type in _SHAPE_ONLY and is_own and reads:
            return [_of_shape(node.op_type, self.shape(reads[0]), attributes)]
        if any(name not in self.constants for name in reads):
            return []
        constants = [Constant(shape, data_type) for shape, data_type in self.inferred(node)]
        values = [self.constants[name].value if name else None for name in node.input]
        known = not any(v is None and name for v, name in zip(values, node.input, strict=True))
        if known and is_own and all(math.prod(each.shape) <= _MOST_VALUES for each in constants):
            found = fold(node.op_type, values, attributes, [each.shape for each in constants])
            for constant, value in zip(constants, found, strict=False):  # nothing where they are unknown
                constant.value = value.astype(helper.tensor_dtype_to_np_dtype(constant.data_type))
        return constants

    def inferred(self, node: Any, unread: Container[str] = ()) -> list[tuple[Shape, int]]:
        """Shape and type of each output, from ONNX's own rules, or else from what the file says of them; of one that is
        ``unread`` and of which neither says anything, of no numbers."""
        outputs = [name for name in node.output if name]
        if node.op_type in _QUANTIZERS and node.domain in (*OWN_DOMAINS, _MICROSOFT):
            return [(self.shape(node.input[0]), self._float_type(node.input[0]))] * len(outputs)
        if (node.domain, node.op_type) in _SHAPED_AS_THEIR_INPUT:
            return [(self.shape(node.input[0]), self._float_type(node.input[0]))]
        found = self._by_schema(node)
        result: list[tuple[Shape, int]] = []
        for name in outputs:
            kind = found.get(name)
            dims = None if kind is None else _sides(kind)
            if dims is None and name in self._declared:
                kind = self._declared[name].type
                dims = _sides(kind, batch=self._batch)
            if (dims is None or kind is None) and name in unread:
                result.append(((0,), TensorProto.FLOAT))
                continue
            if dims is None or kind is None:
                raise InputError(
                    f"{where(node)}: the shape of {shown(name)} cannot be inferred from the file "
                    "(fixed sizes, or value_info for operations that ONNX does not define)"
                )
            element = kind.tensor_type.elem_type or TensorProto.FLOAT
            result.append((check_shape(name, dims, element), element))
        return result

    def _by_schema(self, node: Any) -> dict[str, Any]:
        version = self._versions.get(node.domain, self._versions.get("", 0))
        if node.domain not in OWN_DOMAINS or any(a.HasField("g") or a.graphs for a in node.attribute):
            return {}
        try:
            schema = onnx.defs.get_schema(node.op_type, version, "")
        except (onnx.defs.SchemaError, OverflowError, TypeError):  # the version may be any number
            return {}
        split_into = next((a.i for a in node.attribute if a.name == "num_outputs"), len(node.output))
        if split_into != len(node.output):
            raise InputError(f"{where(node)}: num_outputs must be {len(node.output)}, got {split_into}")
        types = {name: self._type(name) for name in node.input if name}
        data = {name: self._data(name) for name in types if self._has_value(name)}
        try:
            found: dict[str, Any] = shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self._opsets
            )
        except Exception as error:
            raise InputError(f"{where(node)}: {_reason(error)}") from None
        return found

    def _type(self, name: str) -> Any:
        constant = self.constants.get(name)
        data_type = self.types[name] if constant is None else constant.read_as or constant.data_type
        return helper.make_tensor_type_proto(data_type, list(self.shape(name)))

    def _float_type(self, name: str) -> int:
        """Between the two quantizers a tensor goes by the type that it stands for, so that it fits float operations."""
        data_type = self.types[name] if name in self.shapes else TensorProto.FLOAT
        return data_type if data_type in _FLOATS else TensorProto.FLOAT

    def _has_value(self, name: str) -> bool:
        return name in self.constants and self.constants[name].value is not None

    def _data(self, name: str) -> Any:
        return numpy_helper.from_array(np.asarray(self.constants[name].value), name)

    def _new(self, name: str) -> None:
        if self.known(name):
            raise InputError(f"tensor names must differ, {shown(name)} is made twice")


def read_constant(tensor: Any) -> Constant:
    """What a TensorProto says of itself; its numbers are read only if they are few and are in the file."""
    shape = check_shape(tensor.name, tensor.dims, tensor.data_type)
    count = math.prod(shape)
    value = None
    if count <= _MOST_VALUES and tensor.data_type != TensorProto.STRING:
        try:
            value = numpy_helper.to_array(tensor)
        except Exception as error:
            raise InputError(f"constant {shown(tensor.name)}: {_reason(error)}") from None
    elif tensor.HasField("raw_data") and len(tensor.raw_data) != tensor_bytes(shape, tensor.data_type):
        need = tensor_bytes(shape, tensor.data_type)
        raise InputError(f"constant {shown(tensor.name)}: must hold {need} bytes, got {len(tensor.raw_data)}")
    elif not tensor.HasField("raw_data") and not _stored(tensor, count):
        raise InputError(f"constant {shown(tensor.name)}: must hold {count} numbers, and does not")
    return Constant(shape, tensor.data_type, value)


def check_shape(name: str, dims: Sequence[int], data_type: int) -> Shape:
    """``dims`` as a shape, or an InputError where no tensor of a network looks like that."""
    shape = tuple(int(side) for side in dims)
    if len(shape) > MOST_AXES:
        raise InputError(f"tensor {shown(name)}: must have at most {MOST_AXES} axes, got {len(shape)}")
    if min(shape, default=0) < 0:
        raise InputError(f"tensor {shown(name)}: every side must be at least 0, got {shape}")
    if tensor_bytes(shape, data_type) > LARGEST_TENSOR_BYTES:
        raise InputError(f"tensor {shown(name)}: must have at most {LARGEST_TENSOR_BYTES} bytes, got the shape {shape}")
    return shape


def tensor_bytes(shape: Shape, data_type: int) -> int:
    """Bytes of a tensor of ONNX's type; types below 8 bits are packed."""
    return -(-math.prod(shape) * element_bits(data_type) // 8)


def element_bits(data_type: int) -> int:
    """Bits of one element of ONNX's type."""
    if data_type not in TensorProto.DataType.values() or data_type == TensorProto.UNDEFINED:
        raise InputError(f"element types must be ONNX's, got number {data_type}")
    name = TensorProto.DataType.Name(data_type)
    if name in _WIDE:
        return _WIDE[name]
    digits = "".join(c for c in name.partition("E")[0] if c.isdigit())  # INT4, FLOAT8E5M2
    return int(digits) if digits else 8


def where(node: Any) -> str:
    """How a message calls a node."""
    return f"node {shown(node.name or next(filter(None, node.output), '?'))} ({shown(node.op_type)[1:-1]})"


def _stored(tensor: Any, count: int) -> bool:
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    held = max((len(field) for field in fields), default=0)
    return held >= count // 8 or tensor.data_type == TensorProto.STRING


def _of_shape(kind: str, shape: Shape, attributes: dict[str, Any]) -> Constant:
    if kind == "Size":
        return Constant((), TensorProto.INT64, np.asarray(math.prod(shape)))
    part = np.asarray(shape[attributes.get("start", 0) : attributes.get("end", len(shape))], np.int64)
    return Constant(part.shape, TensorProto.INT64, part)


def _sides(kind: Any, batch: int | None = None) -> list[int] | None:
    """The sides, or None where one is open; ``batch`` stands in for an open first one."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = [d.dim_value if d.dim_value > 0 or d.HasField("dim_value") else None for d in kind.tensor_type.shape.dim]
    if dims and (dims[0] is None or dims[0] == -1):
        dims[0] = batch
    return None if None in dims else [int(side) for side in dims if side is not None]


def _reason(error: Exception) -> str:
    return "".join(c if c.isprintable() else "?" for c in short_reason(error))
