"""Exports any module as an ONNX file with torch's exporter, and checks that both agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

from hw_profiles.errors import InputError
from hw_profiles.network.workload import InputShape
from hw_profiles.onnx_io.session import open_session
from hw_profiles.torch_io.trace import INPUT, example_of, export, in_eval_mode, trace

OUTPUT = "output"
PARITY = 1e-3  # of the largest logit; float32 sums in another order
_PARITY_IMAGES = 3


def export_module(module: nn.Module, input_shape: InputShape) -> bytes:
    """A float32 file with the tensors ``input`` (N, C, H, W), or several by their names in ``forward``, and ``output``
    that says what the module says. Several outputs, in tuples, lists or dicts, have the names of their places, such as
    ``boxes`` of a dict and ``output_1`` of a tuple.

    Shapes are computed when the file is made, for one image. Where the graph is right for several images too, N is
    open, else it is 1.

    Raises:
        InputError: its ways depend on the numbers in the image, torch cannot export it, or the file says something
            else, as it does of a module that draws random numbers.

    >>> file = export_module(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2))
    >>> open_session(file).get_inputs()[0].shape
    ['N', 3, 2, 2]
    """
    trace(module, input_shape)  # the exporter would write down one of several ways and say nothing
    generator = np.random.default_rng(0)
    x = {
        name: generator.standard_normal((_PARITY_IMAGES, *zeros.shape[1:])).astype(np.float32)
        for name, zeros in example_of(module, input_shape).items()
    }
    single = [{name: value[i : i + 1] for name, value in x.items()} for i in range(_PARITY_IMAGES)]
    with torch.inference_mode(), in_eval_mode(module):
        made = [_outputs_by_name(module(*map(torch.from_numpy, feed.values()))) for feed in single]
    fixed = _renamed(export(module, input_shape), list(made[0]), one_input=not isinstance(input_shape, Mapping))
    opened = _with_open_batch(fixed)
    expected = [list(each.values()) for each in made]
    of_all = [np.concatenate(each) if each[0].ndim else each[0] for each in zip(*expected, strict=True)]
    if _distance(opened, x, of_all) < PARITY:
        return opened
    worst = max(_distance(fixed, feed, each) for feed, each in zip(single, expected, strict=True))
    if not worst < PARITY:
        raise InputError(
            f"{type(module).__name__}: the exported file differs from the module by {worst:.1e} of the largest logit"
        )
    return fixed


def _outputs_by_name(made: Any) -> dict[str, NDArray[Any]]:
    """The tensors in what a module returns, in the order in which torch exports them."""
    found, _ = tree_flatten_with_path(made)
    tensors = [(path, value) for path, value in found if isinstance(value, Tensor)]
    if len(tensors) == 1:
        return {OUTPUT: tensors[0][1].numpy()}
    return {_name_of_place(path): value.numpy() for path, value in tensors}


def _name_of_place(path: Sequence[Any]) -> str:
    """
    >>> found, _ = tree_flatten_with_path((1, {"boxes": [2, 3]}))
    >>> [_name_of_place(path) for path, _ in found]
    ['output_0', 'output_1_boxes_0', 'output_1_boxes_1']
    """
    parts = [getattr(key, "key", getattr(key, "name", getattr(key, "idx", ""))) for key in path]
    first = [] if isinstance(parts[0], str) else [OUTPUT]
    return "_".join(map(str, [*first, *parts]))


def distance(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference as a share of the largest number that is expected; infinite for another shape.

    >>> distance(np.float32([1, 2]), np.float32([1, 4]))
    0.5
    """
    if got.shape != expected.shape:
        return float("inf")
    found, wanted = np.asarray(got, np.float64), np.asarray(expected, np.float64)  # of truth values as well
    with np.errstate(invalid="ignore"):
        apart = np.where(found == wanted, 0.0, np.abs(wanted - found))  # as infinity may be
    return float(apart.max(initial=0.0) / max(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0), 1e-6))


def _distance(data: bytes, feed: Mapping[str, NDArray[np.float32]], expected: Sequence[NDArray[Any]]) -> float:
    """That of the output that is furthest off."""
    import onnxruntime

    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4
    try:
        got = open_session(data).run(None, dict(feed), quiet)
    except Exception:  # a shape that was computed for one image does not fit
        return float("inf")
    return max(distance(one, wanted) for one, wanted in zip(got, expected, strict=True))


def _renamed(data: bytes, outputs: Sequence[str], *, one_input: bool) -> bytes:
    """The file with its only input called ``input`` and its outputs called as said; a tensor that is several of them
    is each by a node of its own.

    Raises:
        InputError: it has another number of outputs.
    """
    model = onnx.load_model_from_string(data)
    graph = model.graph
    if len(graph.output) != len(outputs):
        raise InputError(
            f"the module returns {len(outputs)} tensors ({', '.join(outputs)}), its exported file {len(graph.output)}"
        )
    new = {graph.input[0].name: INPUT} if one_input else {}
    made = {name for node in graph.node for name in node.output}
    taken = {*made, INPUT, *(each.name for each in (*graph.input, *graph.initializer))}
    for value, wanted in zip(graph.output, outputs, strict=True):
        name = wanted if wanted not in taken else f"{OUTPUT}_{wanted}"
        if value.name in made and value.name not in new:
            new[value.name] = name
        else:  # what it reads, a constant, or an output that has a name already
            graph.node.append(helper.make_node("Identity", [value.name], [name], name=name))
            value.name = name
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = new.get(name, name)
    for value in (*graph.input, *graph.output):
        value.name = new.get(value.name, value.name)
    return _bytes(model)


def _with_open_batch(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    return _bytes(model)


def _bytes(model: Any) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data
