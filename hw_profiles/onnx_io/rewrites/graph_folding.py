"""Folds what an ONNX graph computes of constants and of the sides of its inputs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hw_profiles.errors import InputError
from hw_profiles.onnx_io.graph_edges import needed_nodes, reads, subgraphs
from hw_profiles.onnx_io.input_sides import states_shape
from hw_profiles.onnx_io.quantized_ops import as_float
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.shapes import MOST_AXES, Tensors, tensor_bytes

_DIFFERENT_EACH_TIME = (
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli",
)  # fmt: skip
_NOT_FOLDED = ("DequantizeLinear", *_DIFFERENT_EACH_TIME)  # integers stay integers
_LEAST_FOLDED_BYTES, _MOST_GROWTH = 64 * 1024**2, 4
_BATCHES = (1, 3)

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Known:
    """What follows from a file and the sides of its inputs: small constants, bytes of all that is constant, and the
    shapes of the other tensors."""

    values: Mapping[str, Array]
    constant_bytes: Mapping[str, int]
    shapes: Mapping[str, Sequence[int]]


def _known(model: Any, batch: int) -> _Known | None:
    """None where the file does not run at this batch; where the shape of a tensor cannot be told, nothing that depends
    on it is known."""
    graph, tensors = model.graph, Tensors(model, batch)
    given = set(tensors.constants)
    unknown: set[str] = set()
    for value in graph.input:
        dims = [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]
        if dims and dims[0] is None:
            dims[0] = batch
        if not states_shape(value) or None in dims:
            unknown.add(value.name)
        else:
            tensors.add(value.name, [side for side in dims if side is not None], value.type.tensor_type.elem_type)
    for node in needed_nodes(graph):
        needed = list(reads(node))
        if not unknown.isdisjoint(needed):
            unknown.update(node.output)
            continue
        try:
            _follow(node, needed, tensors)
        except InputError:
            unknown.update(node.output)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return None
    found = {name: each for name, each in tensors.constants.items() if name not in given}
    return _Known(
        {name: each.value for name, each in found.items() if each.value is not None},
        {name: tensor_bytes(each.shape, each.data_type) for name, each in found.items()},
        tensors.shapes,
    )


def _follow(node: Any, needed: Sequence[str], tensors: Tensors) -> None:
    plain, _ = as_float(node, tensors)
    attributes = {each.name: helper.get_attribute_value(each) for each in plain.attribute}
    outputs = [name for name in plain.output if name]
    constants = [] if node.op_type in _DIFFERENT_EACH_TIME else tensors.folded(plain, needed, attributes)
    if constants:
        for name, constant in zip(outputs, constants, strict=True):
            tensors.add_constant(name, constant)
        return
    for name, (shape, data_type) in zip(outputs, tensors.inferred(plain), strict=True):
        tensors.add(name, shape, data_type)


def fold_shapes(model: Any) -> None:
    """Replace what the sides of the input say, and is the same for every batch where that is open; pad average pools
    that round their sides up."""
    graph = model.graph
    sides = [value.type.tensor_type.shape.dim for value in graph.input]
    is_open = any(dims and not dims[0].dim_value > 0 for dims in sides)
    runs = [_known(model, batch) for batch in (_BATCHES if is_open else (1,))]
    if None in runs:
        return
    known = [run for run in runs if run is not None]
    _state_axes(graph, known)
    _name_all_axes(graph, known)
    _close_sizes(graph, known)
    _pad_pools(graph, known)
    first, *others = (run.values for run in known)
    outputs = {value.name for value in graph.output}
    single = [node for node in graph.node if len(node.output) == 1 and not any(True for _ in subgraphs(node))]
    made = {node.output[0]: node for node in single}
    folded = {}
    for name, value in first.items():
        if name in outputs or name not in made or made[name].op_type in _NOT_FOLDED:
            continue
        if all(name in other and _same(value, other[name]) for other in others):
            folded[name] = value
    _replace(graph, folded)


def _state_axes(graph: Any, runs: Sequence[_Known]) -> None:
    """How many axes an output has, where the file says nothing of it."""
    for value in graph.output:
        shape = runs[0].shapes.get(value.name)
        if shape is not None and value.type.HasField("tensor_type") and not states_shape(value):
            value.type.tensor_type.shape.SetInParent()
            for _ in shape:
                value.type.tensor_type.shape.dim.add()


def _name_all_axes(graph: Any, runs: Sequence[_Known]) -> None:
    """Factors for all axes in place of those for some of a Resize, which ONNX Runtime 1.32 turns with the channels."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if _is_short(tensor)}
    for node in graph.node:
        said = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        is_part = said.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
        if node.op_type != "Resize" or not said.get("axes") or is_part or "keep_aspect_ratio_policy" in said:
            continue
        found = [_factors_of_axes(list(node.input), constants, said["axes"], run) for run in runs]
        if found[0] is not None and all(each is not None and np.array_equal(each, found[0]) for each in found):
            kept = [each for each in node.attribute if each.name != "axes"]
            del node.attribute[:]
            node.attribute.extend(kept)
            name = f"{node.output[0]}.factors"
            graph.initializer.append(numpy_helper.from_array(found[0], name))
            node.input[2:] = [name]


def _is_short(tensor: Any) -> bool:
    return len(tensor.dims) == 1 and tensor.dims[0] <= MOST_AXES


def _factors_of_axes(
    inputs: Sequence[str], constants: Mapping[str, Array], axes: Sequence[int], run: _Known
) -> Array | None:
    shape = run.shapes.get(inputs[0])
    scales, sizes = (constants.get(name) for name in [*inputs[2:], "", ""][:2])
    if shape is None:
        return None
    factors = np.ones(len(shape), np.float32)
    if scales is not None and len(scales) == len(axes):
        factors[list(axes)] = scales
        return factors
    if sizes is None or len(sizes) != len(axes):
        return None
    read = np.array(shape, np.float32)[list(axes)]
    factors[list(axes)] = sizes.astype(np.float32) / read
    return factors if np.array_equal(np.floor(read * factors[list(axes)]), sizes) else None


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _close_sizes(graph: Any, runs: Sequence[_Known]) -> None:
    """Constants for sizes that are computed only because the batch is open: factors of a Resize, and -1 for the batch
    of a Reshape."""
    for node in graph.node:
        at = {"Resize": 3, "Reshape": 1}.get(node.op_type, len(node.input))
        if len(node.input) <= at or any(each.name == "keep_aspect_ratio_policy" for each in node.attribute):
            continue
        found = [_factors(node, run) if at == 3 else _rest(node, run) for run in runs]
        first, *others = found
        if first is not None and all(each is not None and np.array_equal(each, first) for each in others):
            name = f"{node.output[0]}.closed"
            graph.initializer.append(numpy_helper.from_array(first, name))
            node.input[at - (at == 3) :] = [name]


def _pad_pools(graph: Any, runs: Sequence[_Known]) -> None:
    """Padding that is not counted in place of ``ceil_mode`` of an AveragePool, where both say the same: ONNX Runtime's
    kernel in integers divides what a window at the border holds by the size of the whole window."""
    for node in graph.node:
        said = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type != "AveragePool" or not said.get("ceil_mode"):
            continue
        sides = [[run.shapes.get(name, ())[2:] for name in (node.input[0], node.output[0])] for run in runs]
        pads = _pads_of_ceiling(said, *sides[0]) if all(each == sides[0] for each in sides) else None
        if pads is not None:
            kept = [each for each in node.attribute if each.name not in ("pads", "ceil_mode", "count_include_pad")]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("pads", pads)])


def _pads_of_ceiling(said: Mapping[str, Any], read: Sequence[int], made: Sequence[int]) -> list[int] | None:
    """The pads with which a pool that rounds down makes as many windows; None where they would say something else."""
    kernel = said["kernel_shape"]
    axes = range(len(kernel))
    pads, strides = said.get("pads") or [0, 0] * len(kernel), said.get("strides") or [1] * len(kernel)
    is_plain = said.get("auto_pad", b"NOTSET") == b"NOTSET" and {*said.get("dilations", ())} <= {1}
    is_known = len(read) == len(made) == len(kernel) and min(*read, *made) > 0
    if not is_plain or not is_known or (said.get("count_include_pad") and any(pads)):
        return None
    last = [min(made[i] - 1, (read[i] + pads[i] - 1) // strides[i]) for i in axes]  # a window begins within the image
    ends = [last[i] * strides[i] + kernel[i] - pads[i] - read[i] for i in axes]
    return [*pads[: len(kernel)], *(max(pads[len(kernel) + i], ends[i]) for i in axes)]


def _factors(node: Any, run: _Known) -> Array | None:
    """Of all axes; None where these sizes do not follow from them."""
    shape, sizes = run.shapes.get(node.input[0]), run.values.get(node.input[3])
    if shape is None or sizes is None or len(shape) != len(sizes):
        return None
    factors = sizes.astype(np.float32) / np.array(shape, np.float32)
    return factors if np.array_equal(np.floor(np.array(shape, np.float32) * factors), sizes) else None


def _rest(node: Any, run: _Known) -> Array | None:
    """The sides with -1 for the first; None where one of them says something else than its size."""
    sizes = run.values.get(node.input[1])
    return None if sizes is None or sizes.min(initial=1) < 1 else np.array([-1, *sizes[1:]], np.int64)


def fold_weights(model: Any) -> None:
    """Run once, in ONNX Runtime, what depends on initializers alone."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    known = _known(model, 1)
    sizes = {} if known is None else known.constant_bytes
    most = max(_LEAST_FOLDED_BYTES, _MOST_GROWTH * sum(t.ByteSize() for t in graph.initializer))
    inner: list[Any] = []
    for node in graph.node:
        if not _is_foldable(node) or not constants.issuperset(reads(node)) or not outputs.isdisjoint(node.output):
            continue
        cost = sum(sizes.get(name, most + 1) for name in node.output if name)
        if cost > most:
            continue
        most -= cost
        inner.append(node)
        constants.update(node.output)
    if not inner:
        return
    made = {name for node in inner for name in node.output if name}
    chosen = {id(node) for node in inner}
    wanted = {name for node in graph.node if id(node) not in chosen for name in reads(node)} & made
    _replace(graph, _run(model, inner, sorted(wanted)))


def _is_foldable(node: Any) -> bool:
    return (
        node.domain in ("", "ai.onnx")
        and bool(node.input)
        and node.op_type not in _NOT_FOLDED
        and not any(True for _ in subgraphs(node))
    )


def _run(model: Any, nodes: Sequence[Any], wanted: Sequence[str]) -> dict[str, Array]:
    """Nothing where ONNX Runtime cannot: then these nodes stay, which is right as well."""
    needed = {name for node in nodes for name in node.input}
    held = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    ends = [onnx.ValueInfoProto(name=name) for name in wanted]
    part = helper.make_model(
        helper.make_graph(list(nodes), "constants", [], ends, held),
        opset_imports=list(model.opset_import), ir_version=max(model.ir_version, 8),
    )  # fmt: skip
    try:
        values = open_session(part.SerializeToString()).run(list(wanted), {})
    except Exception:
        return {}
    return {name: value for name, value in zip(wanted, values, strict=True) if isinstance(value, np.ndarray)}


def _replace(graph: Any, values: Mapping[str, Array]) -> None:
    """Initializers in the place of nodes, and without the nodes that are not needed any more."""
    if not values:
        return
    keep(graph, "node", [node for node in graph.node if not any(name in values for name in node.output)])
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(v).reshape(v.shape), n) for n, v in values.items()
    )
    keep(graph, "node", needed_nodes(graph))


def keep(graph: Any, field: str, items: Sequence[Any]) -> None:
    """Let ``items``, which are some of a field's in their order, be all of it."""
    if len(items) != len(getattr(graph, field)):
        copies = []
        for item in items:
            copy = type(item)()
            copy.CopyFrom(item)
            copies.append(copy)
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
