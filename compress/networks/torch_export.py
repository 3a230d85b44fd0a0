"""Exports any module as an ONNX file with torch's exporter, and checks that both agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from hw_profiles.errors import InputError
from hw_profiles.network.workload import InputShape
from hw_profiles.onnx_io.session import open_session
from hw_profiles.torch_io.trace import INPUT, example_of, export, in_eval_mode, trace

PARITY = 1e-3  # of the largest logit; float32 sums in another order
_PARITY_IMAGES = 3


def export_module(module: nn.Module, input_shape: InputShape) -> bytes:
    """A float32 file with the tensors ``input`` (N, C, H, W), or several by their names in ``forward``, and ``output``
    that says what the module says.

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
    fixed = _renamed(export(module, input_shape), one_input=not isinstance(input_shape, Mapping))
    generator = np.random.default_rng(0)
    x = {
        name: generator.standard_normal((_PARITY_IMAGES, *zeros.shape[1:])).astype(np.float32)
        for name, zeros in example_of(module, input_shape).items()
    }
    single = [{name: value[i : i + 1] for name, value in x.items()} for i in range(_PARITY_IMAGES)]
    with torch.inference_mode(), in_eval_mode(module):
        made = [module(*map(torch.from_numpy, feed.values())) for feed in single]
    if not all(isinstance(each, torch.Tensor) for each in made):
        raise InputError(f"{type(module).__name__}: must have one output, a tensor, got {type(made[0]).__name__}")
    expected = np.concatenate([each.numpy() for each in made])
    opened = _with_open_batch(fixed)
    if _distance(opened, x, expected) < PARITY:
        return opened
    worst = max(_distance(fixed, feed, expected[i : i + 1]) for i, feed in enumerate(single))
    if not worst < PARITY:
        raise InputError(
            f"{type(module).__name__}: the exported file differs from the module by {worst:.1e} of the largest logit"
        )
    return fixed


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


def _distance(data: bytes, feed: Mapping[str, NDArray[np.float32]], expected: NDArray[np.float32]) -> float:
    import onnxruntime

    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4
    try:
        got = open_session(data).run(None, dict(feed), quiet)[0]
    except Exception:  # a shape that was computed for one image does not fit
        return float("inf")
    return distance(got, expected)


def _renamed(data: bytes, *, one_input: bool) -> bytes:
    """The file with its only input called ``input`` and its output ``output``."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    if len(graph.output) != 1:
        raise InputError(f"a classifier has one output, got {len(graph.output)}")
    new = {graph.output[0].name: "output"} | ({graph.input[0].name: INPUT} if one_input else {})
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
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    return _bytes(model)


def _bytes(model: Any) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data
