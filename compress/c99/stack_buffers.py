"""Sizes of the buffers that kernels keep on the stack, declared in the generated header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.c99.kernel_calls import direct, row_lengths
from compress.c99.layers import Convolution, ProgramLayer


@dataclass(frozen=True, kw_only=True, slots=True)
class Buffers:
    """The largest that any layer needs: ``patch`` numbers under one window, ``copied`` of those that are not read in
    place, 16-bit pairs of the ``lines`` under a depthwise window and of its ``taps``.

    >>> Buffers(patch=27, copied=27, lines=51, taps=12).largest_bytes
    252
    """

    patch: int
    copied: int
    lines: int
    taps: int

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest buffers that live together, on a Cortex-M."""
        return max(4 * self.patch + 2 * self.copied, 4 * (self.lines + self.taps))


def buffers(layers: Sequence[ProgramLayer]) -> Buffers:
    """What the layers need; at least one number each, since C has no empty arrays.

    >>> buffers(())
    Buffers(patch=1, copied=1, lines=1, taps=1)
    """
    lengths = row_lengths(layers)
    found = [(layer, layer.steps[0], length) for layer, length in zip(layers, lengths, strict=True)]
    copied = [length for layer, step, length in found if isinstance(step, Convolution) and _copies(step, layer)]
    depthwise = [_lines(s, layer) for layer, s, _ in found if isinstance(s, Convolution) and s.depthwise]
    return Buffers(
        patch=max(lengths, default=0) or 1,
        copied=max(copied, default=1),
        lines=max((lines for lines, _ in depthwise), default=1),
        taps=max((taps for _, taps in depthwise), default=1),
    )


def _copies(step: Convolution, layer: ProgramLayer) -> bool:
    one_pixel = step.window.kernel_size == (1, 1) and not any(step.window.padding[:2])
    return not (step.depthwise or one_pixel or direct(step, layer.inputs[0].shape))


def _lines(step: Convolution, layer: ProgramLayer) -> tuple[int, int]:
    """Pairs of 16-bit numbers in the lines and in the taps, as ``kernel_lines`` in the C code has them."""
    window = step.window
    rows, columns = (
        (size - 1) * dilation + 1 for size, dilation in zip(window.kernel_size, window.dilation, strict=True)
    )
    rows, words = max(rows, window.padding[0] + 1), (columns + 1) // 2
    outputs = layer.output.shape[1] + layer.output.shape[1] % 2
    length = (outputs - 1) * window.stride[1] + 2 * words
    return rows * ((length + 1) // 2), 2 * rows * words
