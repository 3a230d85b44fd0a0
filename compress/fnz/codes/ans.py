"""Asymmetric numeral systems (Duda, arXiv 1311.2540), as the library ``constriction`` computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from compress.fnz.codes.byte_reader import Reader, damaged, varint
from compress.fnz.codes.element_kinds import Symbols

# Symbols that are unpacked to 32 bits at a time.
_PIECE = 1 << 20

AnsModel = Any


def ans_model(frequencies: NDArray[np.int64]) -> AnsModel:
    """What symbols with such frequencies, which add up to a power of two, are coded by."""
    return constriction.stream.model.Categorical(frequencies.astype(np.float64), perfect=False)


def encode_ans(parts: Sequence[tuple[Symbols, AnsModel]]) -> bytes:
    """One stream of several parts, each with the model of its symbols."""
    coder = constriction.stream.stack.AnsCoder()
    for symbols, model in reversed(parts):  # what goes in last comes out first
        for start in reversed(range(0, len(symbols), _PIECE)):
            coder.encode_reverse(symbols[start : start + _PIECE].astype(np.int32), model)
    words: NDArray[np.uint32] = coder.get_compressed().astype("<u4")
    return varint(len(words)) + words.tobytes()


class AnsDecoder:
    """Takes the parts out of a stream, in the order in which they were given."""

    def __init__(self, reader: Reader) -> None:
        count = reader.varint(len(reader.data) // 4)
        words = np.frombuffer(reader.take(4 * count), "<u4").astype(np.uint32)
        if count and not words[-1]:
            raise damaged("a stream ends with a zero")
        self._coder = constriction.stream.stack.AnsCoder(words)

    def take(self, count: int, model: AnsModel) -> Symbols:
        """The next ``count`` symbols."""
        symbols = np.empty(count, np.uint8)
        for start in range(0, count, _PIECE):
            piece = symbols[start : start + _PIECE]
            piece[:] = self._coder.decode(model, len(piece))
        return symbols

    def finish(self) -> None:
        """The stream must be used up."""
        if not self._coder.is_empty():
            raise damaged("a stream is longer than its symbols")
