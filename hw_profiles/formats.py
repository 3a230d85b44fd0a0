"""How the numbers of a tensor are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFormat:
    """Bits and meaning of one tensor's elements.

    ``per_channel``: one scale for each output channel instead of one for the tensor. ``codebook``: number of shared
    values, 0 where each element is stored itself. ``density``: share of elements that are not zero and stored.

    >>> TensorFormat(bits=4).bytes(3)
    2
    """

    bits: int = 32
    floating: bool = False
    signed: bool = True
    per_channel: bool = False
    codebook: int = 0
    density: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise ValueError(f"TensorFormat.bits must be in 1..64, got {self.bits}")
        if not 0 < self.density <= 1:
            raise ValueError(f"TensorFormat.density must be in (0, 1], got {self.density}")

    def bytes(self, count: int) -> int:
        """Bytes of ``count`` stored elements, without scales or index tables."""
        return math.ceil(count * self.bits * self.density / 8)


FLOAT32 = TensorFormat(bits=32, floating=True)
INT8_WEIGHT = TensorFormat(bits=8, per_channel=True)
INT32_BIAS = TensorFormat(bits=32, per_channel=True)
UINT8 = TensorFormat(bits=8, signed=False)


def check_precision(precision: str) -> str:
    """``precision`` itself, or a ValueError that says what is valid."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return precision
