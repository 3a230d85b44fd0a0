"""TensorFormat: how the numbers of a tensor are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import check_one_of

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFormat:
    """Bits and meaning of one tensor's elements.

    ``per_channel``: one scale for each output channel instead of one for the tensor; ``group``: one for so many
    neighbors, 0 where there are no groups. ``codebook``: number of shared
    values, 0 where each element is stored itself. ``density``: share of elements that are not zero and stored.

    >>> TensorFormat(bits=4).bytes(3)
    2
    """

    bits: int = 32
    floating: bool = False
    signed: bool = True
    per_channel: bool = False
    group: int = 0
    codebook: int = 0
    density: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise InputError(f"TensorFormat.bits must be between 1 and 64, got {self.bits}")
        if not 0 < self.density <= 1:
            raise InputError(f"TensorFormat.density must be in (0, 1], got {self.density}")

    def bytes(self, count: int) -> int:
        """Bytes of ``count`` stored elements, without scales or index tables."""
        return math.ceil(count * self.bits * self.density / 8)

    def scale_bytes(self, channels: int, count: int) -> int:
        """Bytes of the scales of ``count`` elements in ``channels``: float32 for each channel, bfloat16 for each group.

        >>> TensorFormat(bits=4, group=32).scale_bytes(8, 512)
        32
        """
        return 4 * channels * self.per_channel + (2 * math.ceil(count / self.group) if self.group else 0)


FLOAT32 = TensorFormat(bits=32, floating=True)
INT8_WEIGHT = TensorFormat(bits=8, per_channel=True)
INT32_BIAS = TensorFormat(bits=32, per_channel=True)
UINT8 = TensorFormat(bits=8, signed=False)


def check_precision(precision: str) -> str:
    """``precision`` itself, or an InputError that lists what is valid."""
    check_one_of("precision", precision, PRECISIONS)
    return precision
