"""Probability tables, rounded on a logarithmic scale so that they take few bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.fnz.codes.byte_reader import Reader, damaged

TOTAL = 1 << 20
MOST_EIGHTHS = 224

Counts = NDArray[np.int64]

_STEPS = 8, 4, 2, 1  # eighths of a bit
_EIGHTHS = np.array([round(2 ** (16 - k / 8)) for k in range(8)], np.int64)
_MOST_PARAMETER = 7
_PARAMETERS = np.arange(_MOST_PARAMETER + 1)
_ONES = ["1" * count for count in range(2 * 255 + 1)]


@dataclass(frozen=True, slots=True)
class Table:
    """``frequencies`` (n,) add up to ``TOTAL``; ``data`` is what :func:`read_table` reads them from."""

    frequencies: Counts
    data: bytes


def fitting_table(counts: Counts) -> Table:
    """The table that takes the fewest bits together with so many symbols of each kind, two kinds at least."""
    exact = -8 * np.log2(np.maximum(counts, 0.5) / counts.sum())
    steps = {step: np.clip(np.rint(exact / step), 0, MOST_EIGHTHS // step).astype(np.int64) for step in _STEPS}
    step, codes = min(steps.items(), key=lambda pair: _bits_with(counts, *pair))
    parameter, row = write_row(codes)
    return Table(frequencies(step * codes), bytes([step << 4 | parameter]) + row)


def read_table(reader: Reader, count: int) -> Counts:
    """The frequencies of ``count`` symbols."""
    head = reader.byte()
    step, parameter = head >> 4, head & 15
    if step not in _STEPS:
        raise damaged(f"the step of a table must be one of {_STEPS}, got {step}")
    return frequencies(step * read_row(reader, count, parameter, MOST_EIGHTHS // step))


def frequencies(eighths: Counts) -> Counts:
    """Integers that add up to ``TOTAL``, from the eighths of a bit that each symbol is meant to take.

    >>> frequencies(np.array([8, 16, 16])) / TOTAL
    array([0.5 , 0.25, 0.25])
    """
    weights = np.maximum(_EIGHTHS[eighths % 8] << 12 >> eighths // 8, 1)
    shares: Counts = weights * (TOTAL - len(weights)) // weights.sum() + 1
    shares[shares.argmax()] += TOTAL - shares.sum()
    return shares


def chance(eighths: int) -> int:
    """The frequency of one of two symbols that is meant to take so many eighths of a bit.

    >>> chance(8) / TOTAL
    0.5
    """
    return min(max(int(_EIGHTHS[eighths % 8]) << 4 >> eighths // 8, 1), TOTAL - 1)


def row_size(values: Counts) -> int:
    """Bytes of :func:`write_row`, without the parameter."""
    return 1 - int(-_rice_bits(_folded(values)).min() // 8)


def write_row(values: Counts) -> tuple[int, bytes]:
    """A parameter, and the bytes that give the numbers back: the first one, and Rice codes of the differences."""
    folded = _folded(values)
    parameter = int(_rice_bits(folded).argmin())
    low = (1 << parameter) - 1
    text = "".join([_ONES[v >> parameter] + f"{v & low:0{parameter + 1}b}" for v in folded.tolist()])
    size = -(-len(text) // 8)
    return parameter, bytes([int(values[0])]) + int(text.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")


def read_row(reader: Reader, count: int, parameter: int, most: int) -> Counts:
    """The inverse of :func:`write_row`; each number must be in 0..``most``."""
    if parameter > _MOST_PARAMETER:
        raise damaged(f"the parameter of a table must be at most {_MOST_PARAMETER}, got {parameter}")
    values, bits = [reader.byte()], _Bits(reader)
    for _ in range(count - 1):
        folded = bits.unary() << parameter | bits.number(parameter)
        values.append(values[-1] + (-(folded + 1 >> 1) if folded & 1 else folded >> 1))
    row = np.array(values, np.int64)
    if row.min() < 0 or row.max() > most:
        raise damaged(f"the numbers of a table must be in 0..{most}, got {row.min()}..{row.max()}")
    return row


def _bits_with(counts: Counts, step: int, codes: Counts) -> float:
    """What symbols and table take."""
    return float(counts @ -np.log2(frequencies(step * codes) / TOTAL)) + 8 * row_size(codes)


def _folded(values: Counts) -> Counts:
    """Differences as numbers that are not negative: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    steps = np.diff(values)
    return np.where(steps < 0, -2 * steps - 1, 2 * steps)


def _rice_bits(folded: Counts) -> Counts:
    """The bits that the numbers take with each parameter."""
    quotients: Counts = (folded >> _PARAMETERS[:, None]).sum(1)
    return quotients + (_PARAMETERS + 1) * len(folded)


class _Bits:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.left = self.waiting = 0

    def unary(self) -> int:
        """Ones before the next zero; what needs more than all bytes of a table is no such number."""
        ones = 0
        while self.number(1):
            ones += 1
            if ones > 2 * MOST_EIGHTHS:
                raise damaged("a number of a table is too large")
        return ones

    def number(self, bits: int) -> int:
        while self.left < bits:
            self.waiting = (self.waiting << 8 | self.reader.byte()) & 0xFFFF
            self.left += 8
        self.left -= bits
        return self.waiting >> self.left & (1 << bits) - 1
