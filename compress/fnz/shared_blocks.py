"""Chooses the tensors that are coded together: short ones, for which a table of their own would cost more than it
saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.fnz.codes.element_kinds import KINDS, Words
from compress.fnz.tensor_blocks import encode_block

_SHORT = 4096  # words; longer tensors stay alone
_REPEATED = 4  # a shorter one may if its words occur so many times on average
_OVERHEAD = 2  # bytes that a block more takes in the directory


@dataclass(frozen=True, slots=True)
class Tensor:
    """The words of one tensor; ``kind``: a place in ``KINDS``."""

    words: Words
    kind: int
    rows: int


@dataclass(frozen=True, slots=True)
class Block:
    """Tensors that follow each other in one coded piece; ``members`` are their numbers."""

    members: tuple[int, ...]
    data: bytes


def encode_tensors(tensors: Sequence[Tensor]) -> list[Block]:
    """The blocks of all tensors, each tensor in one of them."""
    alone = {i: _alone(i, t) for i, t in enumerate(tensors) if len(t.words) >= _SHORT}
    for kind in sorted({tensor.kind for tensor in tensors}):
        short = [i for i, t in enumerate(tensors) if t.kind == kind and i not in alone]
        blocks = _pooled(tensors, short) if short else []
        alone |= {block.members[0]: block for block in blocks}
    return list(alone.values())


def _pooled(tensors: Sequence[Tensor], short: list[int]) -> list[Block]:
    """One block of those for which that is smaller than one of their own."""
    alone = {i: _alone(i, tensors[i]) for i in short if len(short) == 1 or _repeats(tensors[i].words)}
    if len(short) == 1:
        return list(alone.values())
    pool = _together(tensors, short)
    each = len(pool.data) / sum(len(tensors[i].words) for i in short)
    better = [i for i, b in alone.items() if len(b.data) + _OVERHEAD < each * len(tensors[i].words)]
    rest = [i for i in short if i not in better]
    return [alone[i] for i in better] + ([_together(tensors, rest)] if rest else [])


def _repeats(words: Words) -> bool:
    return len(np.unique(words)) * _REPEATED <= len(words)


def _alone(number: int, tensor: Tensor) -> Block:
    return Block((number,), encode_block(tensor.words, KINDS[tensor.kind], tensor.rows))


def _together(tensors: Sequence[Tensor], numbers: list[int]) -> Block:
    words = np.concatenate([tensors[i].words for i in numbers])
    return Block(tuple(numbers), encode_block(words, KINDS[tensors[numbers[0]].kind]))
