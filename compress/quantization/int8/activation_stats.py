"""Statistics of the activations of an ONNX file: histograms, and extents per channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.data.network_inputs import Inputs, NamedInputs
from compress.quantization.int8.calibration import Histogram
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.session import open_session, run_session

Floats = NDArray[np.float32]
_BATCH = 64


def histograms(model: bytes, names: Sequence[str], images: Inputs) -> dict[str, Histogram]:
    """The histogram of each named tensor while inputs run through the file. One in which minus infinity stands has
    none, as a mask of attention has, or one of no numbers.

    Raises:
        InputError: a tensor has a number that is not finite otherwise.
    """
    found = {name: Histogram() for name in names}
    for values in run(model, names, images):
        for name, value in values.items():
            if not value.size or np.isneginf(value).any():
                found.pop(name, None)
            elif name in found:
                try:
                    found[name].add(value)
                except ValueError as error:
                    raise InputError(f"{name}: {error}") from None
    return found


def channel_extents(model: bytes, names: Sequence[str], images: Inputs) -> dict[str, NDArray[np.float64]]:
    """The largest magnitude of each channel (axis 1) of the named tensors: the mean over batches of the largest."""
    largest: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for values in run(model, names, images):
        for name, value in values.items():
            extent = np.maximum(value.max(axis=(0, *range(2, value.ndim))), -value.min(axis=(0, *range(2, value.ndim))))
            largest[name].append(extent.astype(np.float64))
    return {name: np.mean(batches, axis=0) for name, batches in largest.items()}


def logits(model: bytes, images: Inputs) -> Floats:
    """The file's first output for each image, (N, classes)."""
    graph = onnx.load_model_from_string(model).graph
    name, given = graph.output[0].name, by_name(graph, images)
    filled = given.filled(fixed_batch(graph))
    made = np.concatenate([np.atleast_1d(values[name]) for values in run(model, [name], filled)])
    return made[: len(made) // len(filled) * len(given)] if len(made) % len(filled) == 0 else made


def run(model: bytes, names: Sequence[str], images: Inputs) -> Iterator[dict[str, Floats]]:
    """The named tensors, inputs among them where they are named, of each batch; only what they need is computed. Of a
    file for batches of one size the last one is filled up with the first images.

    ``images`` are what the only input reads, or the arrays of several by name.
    """
    parsed = onnx.load_model_from_string(model)
    given = by_name(parsed.graph, images)
    wanted = [name for name in names if name not in given.arrays]
    del parsed.graph.output[:]
    parsed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = open_session(parsed.SerializeToString()) if wanted else None
    for batch in batches(given, fixed_batch(parsed.graph), _BATCH):
        values = run_session(session, wanted, batch) if session else []
        found = {**batch, **dict(zip(wanted, values, strict=True))}
        yield {name: found[name] for name in names}


def by_name(graph: Any, images: Inputs) -> NamedInputs:
    """Inputs by name; an array is what the first one of the file reads."""
    return images if isinstance(images, NamedInputs) else NamedInputs({graph.input[0].name: images})


def fixed_batch(graph: Any) -> int:
    """The size of batch that a file is made for, 0 where it takes any."""
    constants = {tensor.name for tensor in graph.initializer}
    sides = [value.type.tensor_type.shape.dim for value in graph.input if value.name not in constants]
    return int(max((dims[0].dim_value for dims in sides if dims), default=0))


def batches(images: NamedInputs, fixed: int, size: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Of the size that a file is made for, the last one filled up, or of ``size`` where that is 0."""
    for feed in images.filled(fixed).feeds(fixed or size):
        yield {name: np.asarray(array, order="C") for name, array in feed.items()}
