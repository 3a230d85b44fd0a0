"""Nodes that only move numbers: followed on the places of the numbers, so that moves that cancel cost nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.c99.layers import INTEGERS, Concat, Integers, Move
from compress.c99.qdq_graph import Graph, place
from compress.c99.reading.builder import Builder, unknown
from compress.c99.reading.elementwise import joined_with_constants
from compress.c99.reading.values import Value, in_program_order, program_image, program_index
from compress.c99.strided_copies import OUTSIDE, Index, strided_boxes
from hw_profiles.errors import InputError, first_line
from hw_profiles.onnx_io.session import open_session

MOVES = frozenset({
    "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Resize", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Upsample",
})  # fmt: skip
COMMUTING = MOVES | {"Concat", "GlobalMaxPool", "MaxPool", "ReduceMax"}
"""Nodes whose output has the numbers of their inputs, so that it is quantized as they are."""
_OF_FLOATS = ("DepthToSpace", "SpaceToDepth")  # in ONNX Runtime


def moved(builder: Builder, node: Any) -> None:
    """A node that moves the numbers of one tensor."""
    if node.op_type == "Pad":
        _pad(builder, node)
        return
    value = builder.value(node)
    if any(name and not builder.constant(name) for name in node.input[1:]):
        raise InputError(unknown(node))
    if node.op_type in ("Identity", "Dropout"):
        builder.values[node.output[0]] = value
    else:
        _follow(builder, node, value)


def _follow(builder: Builder, node: Any, value: Value) -> None:
    """The places of the numbers after a node; where no few loops copy from there, a copy is made before it."""
    found = rearranged(builder.graph, node, value.index)
    if not all(index.size for index in found):
        raise InputError(f"{place(node)}: must not make a tensor of no numbers")
    if any(strided_boxes(in_program_order(index)) is None for index in found):
        tensor, value = builder.held(node)
        order = in_program_order(value.index)
        copy = builder.arranged(node, tensor, order, program_image(value.shape))
        value = Value(source=copy, index=program_index(value.shape))
        found = rearranged(builder.graph, node, value.index)
    names = [name for name in node.output if name]
    for name, index in zip(names, found, strict=True):
        builder.values[name] = Value(source=value.source, index=index)


def rearranged(graph: Graph, node: Any, index: Index, fill: int | None = None) -> list[Index]:
    """What a node makes of places, as ONNX Runtime runs it; ``fill`` stands for the number that it may fill in."""
    if node.op_type == "Transpose":
        return [index.transpose(graph.attributes(node).get("perm"))]
    floating = node.op_type in _OF_FLOATS
    kind, name = (TensorProto.DOUBLE, "float64") if floating else (TensorProto.INT32, "int32")
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    constants = []
    for i, given in enumerate(node.input[1:], 1):
        if given:
            copy.input[i] = f"constant.{i}"
            constants.append(numpy_helper.from_array(graph.constants[given], f"constant.{i}"))
    if fill is not None:
        copy.input.extend([""] * (3 - len(copy.input)))
        copy.input[2] = "fill"
        constants = [c for c in constants if c.name != "constant.2"]
        constants.append(numpy_helper.from_array(np.array(fill, name), "fill"))
    copy.input[0] = "places"
    outputs = [helper.make_tensor_value_info(each, kind, None) for each in node.output if each]
    inputs = [helper.make_tensor_value_info("places", kind, index.shape)]
    built = helper.make_graph([copy], "moves", inputs, outputs, constants)
    opsets = [o for o in graph.model.opset_import if o.domain in ("", "ai.onnx")]
    model = helper.make_model(built, opset_imports=opsets, ir_version=graph.model.ir_version)
    try:
        results = open_session(model.SerializeToString()).run(None, {"places": index.astype(name)})
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"{place(node)}: ONNX Runtime cannot run it alone ({reason})") from None
    return [np.asarray(result).astype(np.int64) for result in results]


def _pad(builder: Builder, node: Any) -> None:
    tensor, value = builder.held(node)
    if len(node.input) < 2 or not node.input[1] or node.input[1] not in builder.graph.constants:
        raise InputError(f"{place(node)}: must have constant pads, and opset 11 or later")
    mode = builder.graph.attributes(node).get("mode", b"constant").decode()
    if mode != "constant":
        _follow(builder, node, value)
        return
    number = builder.graph.scalar(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    if number is None:
        raise InputError(f"{place(node)}: the padding value must be a constant scalar")
    integers = builder.graph.in_integers(node.input[0])
    fill = (
        int(number) - tensor.quantization.shift
        if integers
        else int(tensor.quantization.of(np.array([number], np.float32))[0])
    )
    index = rearranged(builder.graph, node, value.index, OUTSIDE)[0]
    image = program_image(index.shape)
    copy = builder.arranged(node, tensor, in_program_order(index), image, fill)
    around = _around(index)
    padded = (value, around) if around is not None and fill == tensor.quantization.zero_point else None
    builder.values[node.output[0]] = Value(source=copy, index=program_index(index.shape), padded=padded)


def _around(index: Index) -> tuple[int, int, int, int] | None:
    """Rows and columns that are filled in at the top, left, bottom and right of an image, if that is all."""
    if index.ndim != 4 or index.shape[0] != 1:
        return None
    inside = index >= 0
    rows, columns = (np.flatnonzero(inside.any(axis=axes)) for axes in ((0, 1, 3), (0, 1, 2)))
    if not len(rows) or not inside[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all():
        return None
    height, width = index.shape[2:]
    return (int(rows[0]), int(columns[0]), height - 1 - int(rows[-1]), width - 1 - int(columns[-1]))


def concatenated(builder: Builder, node: Any) -> None:
    """Tensors side by side, along any axis; with the quantization that is wanted, or else that of the first."""
    if any(map(builder.constant, node.input)):
        joined_with_constants(builder, node)
        return
    parts = [builder.held(node, i) for i in range(len(node.input))]
    indices = [value.index for _, value in parts]
    axis = builder.graph.attributes(node).get("axis", 0)
    to = builder.wanted.get(node.output[0])
    if to is None:
        kinds = {tensor.quantization for tensor, _ in parts}
        to = kinds.pop() if len(kinds) == 1 else None
    if to is None:
        raise InputError(f"{place(node)}: its output is not in 8-bit integers; quantize it")
    axis %= indices[0].ndim
    starts = np.cumsum([0, *(index.shape[axis] for index in indices)])
    shape = (*indices[0].shape[:axis], int(starts[-1]), *indices[0].shape[axis + 1 :])
    moves, tables = list[Move](), list[Integers | None]()
    for (tensor, value), start in zip(parts, starts, strict=False):
        within = np.full(shape, OUTSIDE)
        within[(slice(None),) * axis + (slice(start, start + value.shape[axis]),)] = value.index
        boxes = strided_boxes(in_program_order(within))
        if boxes is None:
            raise InputError(f"{place(node)}: unsupported change of the data layout; use simpler Reshape and Transpose")
        moves.append(Move(boxes=boxes))
        tables.append(None if tensor.quantization == to else to.of(tensor.quantization.to_float(INTEGERS)))
    step = Concat(moves=tuple(moves), tables=tuple(tables))
    order = program_index(shape)
    made = builder.layer(node.output[0], tuple(tensor for tensor, _ in parts), program_image(shape), to, (step,))
    builder.values[node.output[0]] = Value(source=made, index=order)
