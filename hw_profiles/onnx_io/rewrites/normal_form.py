"""The one form in which algorithms read an ONNX file: constants as initializers, nothing computed of them alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper, version_converter

from hw_profiles.errors import InputError, short_reason
from hw_profiles.onnx_io.graph_edges import check_order, needed_nodes, reads, subgraphs
from hw_profiles.onnx_io.input_sides import states_shape
from hw_profiles.onnx_io.rewrites.graph_folding import fold_shapes, fold_weights, keep
from hw_profiles.onnx_io.rewrites.plain_gemm import make_plain
from hw_profiles.onnx_io.shapes import check_shape, where
from hw_profiles.onnx_io.untrusted_file import MOST_NODES, shown

_LONG_DOMAIN = "ai.onnx"
_FIRST_IR_OF_CONSTANT_INITIALIZERS = 4
_FIRST_OPSET_OF_COORDINATES, _FIRST_OPSET_OF_ONE_AXIS = 11, 13
_MOST_DENSE = 128 * 1024**2
_ARRAY = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}


def normal_form(
    model: Any, *, input_shape: Sequence[int] | None = None, batch: int | None = None, opset: int = 0
) -> Any:
    """A model that computes the same, in the form that every algorithm knows; the given one is left as it is.

    Functions of the file are inlined. Weights are initializers, whether the file holds them as such, as Constant nodes
    or as inputs with a value, or computes them of other constants (of float16 by Cast, standardized, turned); integers
    behind a DequantizeLinear stay integers. Shapes and pads that follow from the input's sides are constants. A Gemm
    has neither alpha nor beta nor transA, and as bias a number for each of its outputs. Equal initializers are one.
    What no output needs is left out.

    ``input_shape`` are the sides after the batch where the file leaves them open; ``batch`` closes the batch, which
    otherwise stays open or fixed as it is; ``opset``: the least that the result has.

    Raises:
        InputError: tensors in no order that runs, sides that contradict ``input_shape``, or an opset that ONNX cannot
            convert.

    >>> from onnx.helper import make_graph, make_model, make_node, make_tensor, make_tensor_value_info
    >>> ends = [make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "xy"]
    >>> value = make_tensor("", TensorProto.FLOAT, [1], [3.0])
    >>> nodes = [make_node("Constant", [], ["c"], value=value), make_node("Mul", ["x", "c"], ["y"])]
    >>> graph = normal_form(make_model(make_graph(nodes, "g", ends[:1], ends[1:]))).graph
    >>> [node.op_type for node in graph.node], [tensor.name for tensor in graph.initializer]
    (['Mul'], ['c'])
    """
    normal = inlined(model)
    check_order(normal.graph)
    _constants_to_initializers(normal)
    if opset:
        normal = at_opset(normal, opset)
        _constants_to_initializers(normal)
    _name_open_sides(normal.graph)
    _close(normal.graph, input_shape, batch)
    fold_shapes(normal)
    fold_weights(normal)
    make_plain(normal.graph)
    _drop_unused(normal.graph)
    merge_equal_initializers(normal.graph)
    return normal


def inlined(model: Any) -> Any:
    """A copy in which no node calls a function of the file, and ONNX's own domain has its short name.

    Raises:
        InputError: it would have too many nodes, or functions that call themselves.
    """
    if not model.functions:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return _with_short_domain(copy)
    functions = {(each.domain, each.name): each for each in model.functions}
    counted: dict[tuple[str, str], int] = {}

    def count(nodes: Iterable[Any], inside: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in inside:
                raise InputError(f"function {node.op_type!r:.80}: must not call itself")
            if key in functions:
                if key not in counted:
                    counted[key] = count(functions[key].node, (*inside, key))
                total += counted[key]
            total += 1 + sum(count(graph.node, inside) for graph in subgraphs(node))
            if total > MOST_NODES:
                raise InputError(f"a model must have at most {MOST_NODES} nodes, with its functions it has more")
        return total

    count(model.graph.node, ())
    try:
        return _with_short_domain(inliner.inline_local_functions(model, True))
    except Exception as error:
        raise InputError(f"its functions must be such that ONNX can inline them ({short_reason(error)})") from None


def _with_short_domain(model: Any) -> Any:
    """The model, in which "ai.onnx" is called "", which says the same."""
    for opset in model.opset_import:
        if opset.domain == _LONG_DOMAIN:
            opset.domain = ""
    for node in model.graph.node:
        if node.domain == _LONG_DOMAIN:
            node.domain = ""
    return model


def at_opset(model: Any, opset: int) -> Any:
    """The model, converted where its opset is below ``opset``.

    Raises:
        InputError: ONNX cannot convert it.
    """
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if versions and min(versions) >= opset:
        return model
    value_info = list(model.graph.value_info)
    before = min(versions, default=0)
    _check_converted_right(model, before, opset)
    try:
        model = version_converter.convert_version(model, opset)
    except Exception as error:
        raise InputError(f"the file must be convertible to opset {opset}, and is not ({short_reason(error)})") from None
    if before < _FIRST_OPSET_OF_COORDINATES <= opset:
        _say_old_coordinates(model.graph)
    model.graph.ClearField("value_info")  # the converter's own, which takes bytes and says nothing new
    model.graph.value_info.extend(value_info)
    return model


def _check_converted_right(model: Any, before: int, opset: int) -> None:
    """Raise an InputError for what ONNX's converter changes without a word."""
    changed = [node for node in model.graph.node if node.op_type == "Hardmax"]
    if changed and before < _FIRST_OPSET_OF_ONE_AXIS <= opset:
        raise InputError(f"{where(changed[0])}: means something else from opset 13 on; export the network with that")


def _say_old_coordinates(graph: Any) -> None:
    """Let each Resize read the places that it read before opset 11, of which ONNX's converter says nothing.

    Raises:
        InputError: the nearest number of an image that gets larger along one axis and smaller along another.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        said = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type != "Resize" or "coordinate_transformation_mode" in said:
            continue
        node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
        if said.get("mode", b"nearest") == b"nearest":
            scales = constants.get(node.input[2])
            given = np.ones(1) if scales is None else numpy_helper.to_array(scales)
            if given.min(initial=1) < 1 < given.max(initial=1):
                raise InputError(f"{where(node)}: must enlarge all axes or none in files of opset 10 and before")
            node.attribute.append(
                helper.make_attribute("nearest_mode", "ceil" if given.min(initial=1) < 1 else "floor")
            )


def merge_equal_initializers(graph: Any) -> None:
    """Keep one of initializers of equal shape, type and bytes, for all that read any of them."""
    first: dict[tuple[Any, ...], str] = {}
    same: dict[str, str] = {}
    outputs = {value.name for value in graph.output}
    read_inside = {
        name for node in graph.node for inner in subgraphs(node) for each in inner.node for name in reads(each)
    }
    for tensor in graph.initializer:
        if tensor.name in outputs or tensor.name in read_inside or tensor.data_type == TensorProto.STRING:
            continue
        content = tensor.raw_data if tensor.HasField("raw_data") else _bytes_of(tensor)
        key = (tensor.data_type, tuple(tensor.dims), content)
        if (one := first.setdefault(key, tensor.name)) != tensor.name:
            same[tensor.name] = one
    if not same:
        return
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = same.get(name, name)
    keep(graph, "initializer", [tensor for tensor in graph.initializer if tensor.name not in same])


def _bytes_of(tensor: Any) -> bytes:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.ClearField("name")
    copy.ClearField("doc_string")
    data: bytes = copy.SerializeToString(deterministic=True)
    return data


def _constants_to_initializers(model: Any) -> None:
    graph = model.graph
    graph.initializer.extend(_dense([*graph.sparse_initializer]))
    graph.ClearField("sparse_initializer")
    kept = []
    for node in graph.node:
        tensor = _constant_tensor(node)
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    keep(graph, "node", kept)
    held = {tensor.name for tensor in graph.initializer}
    if any(value.name in held for value in graph.input):
        keep(graph, "input", [value for value in graph.input if value.name not in held])
    model.ir_version = max(model.ir_version, _FIRST_IR_OF_CONSTANT_INITIALIZERS)


def _constant_tensor(node: Any) -> Any | None:
    """The tensor of a Constant node, under the name of what it makes; None of any other node."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "sparse_value":
        tensor = _dense([attribute.sparse_tensor])[0]
        tensor.name = node.output[0]
        return tensor
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor
    if attribute.name in _ARRAY:
        value = np.asarray(helper.get_attribute_value(attribute), _ARRAY[attribute.name])
        return numpy_helper.from_array(value, node.output[0])
    return None


def _dense(sparse: Sequence[Any]) -> list[Any]:
    """Sparse tensors with their zeros.

    Raises:
        InputError: they are too large, or say places outside of them.
    """
    sides = [check_shape(each.values.name, each.dims, each.values.data_type) for each in sparse]
    if sum(map(math.prod, sides)) > _MOST_DENSE:
        raise InputError(f"sparse initializers must stand for at most {_MOST_DENSE} numbers in all")
    made = []
    for each, shape in zip(sparse, sides, strict=True):
        values, places = numpy_helper.to_array(each.values), numpy_helper.to_array(each.indices)
        dense = np.zeros(shape, values.dtype)
        try:
            index = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), shape)
            dense.reshape(-1)[index] = values
        except (IndexError, ValueError) as error:
            raise InputError(f"sparse initializer {shown(each.values.name)}: {short_reason(error)}") from None
        made.append(numpy_helper.from_array(dense, each.values.name))
    return made


def _name_open_sides(graph: Any) -> None:
    """Sides of 0 and -1, which some exporters write where they mean any number."""
    for value in (*graph.input, *graph.output):
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.Clear()
                dim.dim_param = f"{value.name}.{i}" if i else "N"


def _close(graph: Any, input_shape: Sequence[int] | None, batch: int | None) -> None:
    """Write the sides that are given into the first input, and forget shapes that the file says of other tensors."""
    if not graph.input or (input_shape is None and batch is None):
        return
    if input_shape is not None and not states_shape(graph.input[0]):
        _add_open_sides(graph.input[0], 1 + len(input_shape))
    dims = graph.input[0].type.tensor_type.shape.dim
    if not dims:
        return
    sides = [None] * (len(dims) - 1) if input_shape is None else list(input_shape)
    fixed = [dim.dim_value if dim.dim_value > 0 else None for dim in dims]
    if len(sides) != len(dims) - 1 or any(a and b and a != b for a, b in zip(fixed[1:], sides, strict=True)):
        raise InputError(
            f"input {shown(graph.input[0].name)} has the dimensions {fixed[1:]}, but input_shape is {tuple(sides)}"
        )
    changed = False
    for dim, old, new in zip(dims, fixed, [batch, *sides], strict=True):
        if old is None and new is not None:
            dim.dim_value, changed = new, True
    if changed:
        graph.ClearField("value_info")
        for output in graph.output:
            _open_sides(output, batch)


def _add_open_sides(value: Any, count: int) -> None:
    for _ in range(count):
        value.type.tensor_type.shape.dim.add()


def _open_sides(value: Any, batch: int | None) -> None:
    """Sides under a name may have got a size."""
    if not value.type.HasField("tensor_type"):
        return
    for i, dim in enumerate(value.type.tensor_type.shape.dim):
        if not dim.dim_value > 0:
            dim.Clear()
            if i == 0 and batch is None:
                dim.dim_param = "N"


def _drop_unused(graph: Any) -> None:
    keep(graph, "node", needed_nodes(graph))
    used = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    keep(graph, "initializer", [tensor for tensor in graph.initializer if tensor.name in used])
    made = {name for node in graph.node for name in node.output}
    keep(graph, "value_info", [value for value in graph.value_info if value.name in made])
