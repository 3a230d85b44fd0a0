"""Samples the inputs of a convolution or linear layer at some positions of each image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.quantization.int8.activation_stats import Floats
from hw_profiles.network.workload import Op


def as_image(op: Op, x: NDArray[Any]) -> NDArray[Any]:
    """(N, C, H, W), where a linear layer reads or makes places as (N, …, C), and a convolution maybe (N, C, W)."""
    if op.kind == "linear":
        x = np.moveaxis(x, -1, 1)
        return x.reshape(*x.shape[:2], -1, 1)
    return x[:, :, None] if x.ndim == 3 else x


def patches_of(op: Op, x: Floats, places: NDArray[np.int64], columns: int) -> Floats:
    """(N × places, groups, in / groups × kernel): what the kernel covers at each place."""
    top, left, bottom, right = op.padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    image = np.arange(len(x))[:, None]
    rows, cols = places // columns * op.stride[0], places % columns * op.stride[1]
    taps = [
        padded[image, :, rows + i * op.dilation[0], cols + j * op.dilation[1]]
        for i in range(op.kernel_size[0])
        for j in range(op.kernel_size[1])
    ]
    stacked = np.stack(taps, axis=-1)  # (N, places, C, kernel)
    patches: Floats = stacked.reshape(places.size, op.groups, -1).astype(np.float32)
    return patches


def layer_examples(
    op: Op, tensors: tuple[NDArray[Any], Floats], grid: tuple[float, int], rows: int, seed: int
) -> tuple[Floats, Floats]:
    """About so many ``rows`` at random places, as many of each image: what the layer reads there (rows, groups, in /
    groups × kernel) and what it should make (rows, groups, out / groups).

    ``tensors``: what it reads (N, …), in integers of the scale and zero point in ``grid``, and what it makes.
    """
    x, y = tensors
    generator = np.random.default_rng(seed)
    count = 0
    scale, zero = grid
    read, wanted = [], []
    for i in range(len(y)):
        one, out = as_image(op, x[i : i + 1]), as_image(op, y[i : i + 1])[0]
        sides = out.shape[1:]
        count = count or min(sides[0] * sides[1], max(1, -(-rows // len(y))))
        places = generator.integers(0, sides[0] * sides[1], (1, count))
        numbers = (one.astype(np.float32) - zero) * np.float32(scale)
        read.append(patches_of(op, numbers, places, sides[1]))
        wanted.append(out.reshape(len(out), -1)[:, places[0]].T.reshape(count, op.groups, -1))
    return np.concatenate(read), np.concatenate(wanted)
