"""Nodes of an ONNX file whose windows slide over an image, and those that resize one, in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.quantization.simulator.node_inputs import Attributes, Given, first, integers, tensors
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.untrusted_file import shown


def _pads(said: Attributes, x: Tensor, reach: Sequence[int], strides: Sequence[int]) -> tuple[list[int], list[int]]:
    """Before and after each side of an image; ``reach`` is how far a window goes."""
    mode, count = said.get("auto_pad", b"NOTSET"), len(reach)
    if mode not in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = [0] * 2 * count if mode == b"VALID" else list(said.get("pads", [0] * 2 * count))
        return pads[:count], pads[count:]
    totals = [
        max((-(-side // step) - 1) * step + each - side, 0)
        for side, step, each in zip(x.shape[2:], strides, reach, strict=True)
    ]
    small = [total // 2 for total in totals]
    large = [total - half for total, half in zip(totals, small, strict=True)]
    return (small, large) if mode == b"SAME_UPPER" else (large, small)


def _around(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """As torch wants it, the last axis first."""
    return [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]


def _pool(said: Attributes, given: Given) -> tuple[Tensor, dict[str, list[int]], list[int]]:
    """What a pooling reads with what lies around it, its sizes, and how many rows and columns of windows it has."""
    x, kernel = first(given), list(said["kernel_shape"])
    ones = [1] * len(kernel)
    strides, dilations = list(said.get("strides", ones)), list(said.get("dilations", ones))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    before, after = _pads(said, x, reach, strides)
    count = []
    for side, above, below, window, step in zip(x.shape[2:], before, after, reach, strides, strict=True):
        room = side + above + below - window
        windows = (-(-room // step) if said.get("ceil_mode", 0) else room // step) + 1
        count.append(windows - int((windows - 1) * step >= side + above))  # one must begin within or before the image
    return x, {"kernel": kernel, "strides": strides, "dilations": dilations, "before": before, "after": after}, count


def _windows(x: Tensor, sizes: Mapping[str, list[int]], count: Sequence[int], value: float) -> Tensor:
    """(N, C, rows, columns, kernel): ``value`` lies around the image."""
    around: list[int] = []
    for axis in reversed(range(len(count))):
        reach = sizes["dilations"][axis] * (sizes["kernel"][axis] - 1) + 1
        needed = (count[axis] - 1) * sizes["strides"][axis] + reach
        around += [sizes["before"][axis], max(needed - x.shape[2 + axis] - sizes["before"][axis], 0)]
    x = F.pad(x, around, value=value)
    for axis, windows in enumerate(count):
        reach = sizes["dilations"][axis] * (sizes["kernel"][axis] - 1) + 1
        x = x.unfold(2 + axis, reach, sizes["strides"][axis]).narrow(2 + axis, 0, windows)
        x = x[..., :: sizes["dilations"][axis]]
    return x.flatten(2 + len(count))


def max_pool(said: Attributes, given: Given) -> Tensor:
    """The largest number of each window."""
    return _windows(*_pool(said, given), -math.inf).amax(-1)


def average_pool(said: Attributes, given: Given) -> Tensor:
    """The mean of each window, of what lies inside the image or of all."""
    x, sizes, count = _pool(said, given)
    inside = torch.ones_like(x[:1, :1])
    if said.get("count_include_pad", 0):
        inside = F.pad(inside, _around(sizes["before"], sizes["after"]), value=1.0)
        counted = {**sizes, "before": [0] * len(count), "after": [0] * len(count)}
    else:
        counted = sizes
    return _windows(x, sizes, count, 0.0).sum(-1) / _windows(inside, counted, count, 0.0).sum(-1)


def convolution(said: Attributes, given: Given) -> Tensor:
    """A convolution, also one whose weights are computed or of one or three axes."""
    x, weight, *bias = tensors(given)
    sides = x.ndim - 2
    strides, dilations = (list(said.get(name, [1] * sides)) for name in ("strides", "dilations"))
    reach = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    before, after = _pads(said, x, reach, strides)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[sides - 1]
    padded = F.pad(x, _around(before, after))
    return convolve(padded, weight, bias[0] if bias else None, strides, 0, dilations, said.get("group", 1))


def transposed_convolution(said: Attributes, given: Given) -> Tensor:
    """A transposed convolution."""
    x, weight, *bias = tensors(given)
    sides = x.ndim - 2
    ones, none = [1] * sides, [0] * sides
    strides, dilations = list(said.get("strides", ones)), list(said.get("dilations", ones))
    convolve: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[sides - 1]
    extra = list(said.get("output_padding", none))
    whole: Tensor = convolve(x, weight, None, strides, 0, extra, said.get("group", 1), dilations)
    pads = list(said.get("pads", none * 2))
    for axis in range(sides):
        whole = whole.narrow(2 + axis, pads[axis], whole.shape[2 + axis] - pads[axis] - pads[axis + sides])
    return whole + bias[0].view(-1, *ones) if bias else whole


def resize(said: Attributes, given: Given) -> Tensor:
    """An image of other sides, by the nearest number or linearly.

    Raises:
        InputError: another mode.
    """
    x, mode = first(given), said.get("mode", b"nearest").decode()
    sizes = integers({}, given, 3, "") if len(given) > 3 and given[3] is not None else None
    if sizes is None:
        scales = next(each for each in reversed(given) if each is not None).tolist()
        sizes = [math.floor(side * scale) for side, scale in zip(x.shape, scales, strict=True)]
    where = said.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode == "nearest":
        for axis in range(2, x.ndim):
            x = x.index_select(axis, _nearest(x.shape[axis], sizes[axis], where, said).to(x.device))
        return x
    if mode != "linear" or x.ndim != 4 or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise InputError(f"a Resize of mode {shown(mode)} and {shown(where)} cannot be trained in integers")
    return F.interpolate(x, sizes[2:], mode="bilinear", align_corners=where == "align_corners")


def _nearest(side: int, wanted: int, where: str, said: Attributes) -> Tensor:
    """The places that are read along an axis."""
    at = torch.arange(wanted, dtype=torch.float64)
    ratio = side / wanted
    if where == "align_corners":
        at = at * ((side - 1) / max(wanted - 1, 1))
    elif where == "asymmetric":
        at = at * ratio
    else:
        at = (at + 0.5) * ratio - 0.5
    rounding = said.get("nearest_mode", b"round_prefer_floor").decode()
    found = {
        "floor": at.floor(), "ceil": at.ceil(), "round_prefer_floor": (at - 0.5).ceil(),
        "round_prefer_ceil": (at + 0.5).floor(),
    }[rounding]  # fmt: skip
    return found.clamp(0, side - 1).long()
