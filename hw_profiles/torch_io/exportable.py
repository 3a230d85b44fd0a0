"""Calls that torch's exporter cannot write, or writes wrongly, in other calls that say the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class ExportableCalls(TorchFunctionMode):
    """While it holds, adaptive pools whose windows are of several sizes are computed row by row and column by column,
    and ``padding="same"`` is said in numbers.

    >>> with ExportableCalls():
    ...     pooled = F.adaptive_avg_pool2d(torch.arange(16.0).reshape(1, 1, 4, 4), 3)
    >>> torch.equal(pooled, F.adaptive_avg_pool2d(torch.arange(16.0).reshape(1, 1, 4, 4), 3))
    True
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        other = _OTHERS.get(getattr(func, "__name__", ""))
        made = None if other is None else other(func, args, kwargs)
        return func(*args, **kwargs) if made is None else made


def _pooled(reduce: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor | None]:
    def run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
        given = {**dict(zip(("input", "output_size", "return_indices"), args, strict=False)), **kwargs}
        x, wanted = given["input"], given["output_size"]
        axes = 2 if func.__name__.endswith("2d") else 1
        sizes = [wanted] * axes if isinstance(wanted, int) else list(wanted)
        sides = [int(side) for side in x.shape[-axes:]]
        sizes = [side if size is None else int(size) for size, side in zip(sizes, sides, strict=True)]
        if given.get("return_indices") or not any(side % size for side, size in zip(sides, sizes, strict=True)):
            return None
        for axis, size, side in zip(range(-axes, 0), sizes, sides, strict=True):
            starts = [i * side // size for i in range(size)]
            lengths = [-(-(i + 1) * side // size) - start for i, start in enumerate(starts)]
            parts = [x.narrow(axis, *part) for part in zip(starts, lengths, strict=True)]
            x = torch.cat([reduce(part, axis) for part in parts], axis)
        found: Tensor = x
        return found

    return run


def _in_numbers(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given.get("padding") != "same":
        return None
    kernel = [int(side) for side in given["weight"].shape[2:]]
    dilation = given.get("dilation", 1)
    dilations = [dilation] * len(kernel) if isinstance(dilation, int) else list(dilation)
    around = [each * (side - 1) for each, side in zip(dilations, kernel, strict=True)]
    if any(total % 2 for total in around):
        pads = [side for total in reversed(around) for side in (total // 2, total - total // 2)]
        given["input"] = F.pad(given["input"], pads)
        around = [0] * len(around)
    given["padding"] = [total // 2 for total in around]
    found: Tensor = func(**given)
    return found


_OTHERS: Mapping[str, Callable[..., Tensor | None]] = {
    **{f"adaptive_avg_pool{n}d": _pooled(lambda x, axis: x.mean(axis, keepdim=True)) for n in (1, 2)},
    **{f"adaptive_max_pool{n}d": _pooled(lambda x, axis: x.amax(axis, keepdim=True)) for n in (1, 2)},
    **{f"conv{n}d": _in_numbers for n in (1, 2, 3)},
}
