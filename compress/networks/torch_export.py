"""Exports any module as an ONNX file with torch's exporter, and checks that both agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from hw_profiles.errors import InputError
from hw_profiles.onnx_io.session import open_session
from hw_profiles.torch_io.trace import export, in_eval_mode, trace

PARITY = 1e-3  # of the largest logit; float32 sums in another order
_PARITY_IMAGES = 3


def export_module(module: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """A float32 file with the tensors ``input`` (N, C, H, W) and ``output`` that says what the module says.

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
    fixed = _renamed(export(module, input_shape))
    x = np.random.default_rng(0).standard_normal((_PARITY_IMAGES, *input_shape)).astype(np.float32)
    with torch.inference_mode(), in_eval_mode(module):
        made = [module(torch.from_numpy(x[i : i + 1])) for i in range(_PARITY_IMAGES)]
    if not all(isinstance(each, torch.Tensor) for each in made):
        raise InputError(f"{type(module).__name__}: must have one output, a tensor, got {type(made[0]).__name__}")
    expected = np.concatenate([each.numpy() for each in made])
    opened = _with_open_batch(fixed)
    if _distance(opened, x, expected) < PARITY:
        return opened
    worst = max(_distance(fixed, x[i : i + 1], expected[i : i + 1]) for i in range(_PARITY_IMAGES))
    if not worst < PARITY:
        raise InputError(
            f"{type(module).__name__}: the exported file differs from the module by {worst:.1e} of the largest logit"
        )
    return fixed


def distance(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference as a share of the largest number that is expected; infinite for another shape.

    >>> distance(np.float32([1, 2]), np.float32([1, 4]))
    0.5
    """
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(expected - got).max() / max(np.abs(expected).max(), 1e-6))


def _distance(data: bytes, x: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    import onnxruntime

    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4
    try:
        got = open_session(data).run(None, {"input": x}, quiet)[0]
    except Exception:  # a shape that was computed for one image does not fit
        return float("inf")
    return distance(got, expected)


def _renamed(data: bytes) -> bytes:
    """The file with its input called ``input`` and its output ``output``."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    if len(graph.output) != 1:
        raise InputError(f"a classifier has one output, got {len(graph.output)}")
    new = {graph.input[0].name: "input", graph.output[0].name: "output"}
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = new.get(name, name)
    graph.input[0].name, graph.output[0].name = "input", "output"
    return _bytes(model)


def _with_open_batch(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    return _bytes(model)


def _bytes(model: Any) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data
