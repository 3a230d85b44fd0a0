"""The magnitudes of the neighbors of each element of a matrix that are known when it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from compress.fnz.codes.byte_reader import damaged

Integers = NDArray[np.int64]

SCALE = 16  # parts of a mean
TRAITS = 8
LARGEST_TRAIT = SCALE * 256
MOST_PRIOR = 1 << 12
MOST_TURNS = 4096
SHORTEST_TURN = 32  # elements that are decoded at once, so that no file takes long

_ORDERS = {1: (0,), 2: (0, 1), 4: (0, 2, 1, 3), 8: (0, 4, 2, 6, 1, 5, 3, 7)}
STRIDES = tuple(_ORDERS)


@dataclass(frozen=True)
class Scan:
    """The order in which a matrix is coded: row by row, and of each row every ``stride``-th column in one turn, so that
    later turns have neighbors on both sides. ``lag``: how far away another element is that is probably alike, such
    as the same place of the next kernel. ``prior``: the mean magnitude that is expected, in parts of ``SCALE``.

    >>> scan = Scan(rows=2, columns=128, stride=4, lag=9, prior=8)
    >>> scan.columns_of(1)[:3].tolist(), scan.columns_of(2)[:3].tolist()
    ([2, 6, 10], [1, 5, 9])
    """

    rows: int
    columns: int
    stride: int
    lag: int
    prior: int

    def __post_init__(self) -> None:
        if self.rows < 1 or not 1 <= self.lag <= self.columns or self.prior > MOST_PRIOR:
            raise damaged(f"a matrix of {self.rows} x {self.columns} has no lag {self.lag} or prior {self.prior}")
        if self.stride not in _ORDERS or not self.fits(self.rows, self.columns, self.stride):
            raise damaged(f"a matrix of {self.rows} x {self.columns} is not coded with the stride {self.stride}")

    @staticmethod
    def fits(rows: int, columns: int, stride: int) -> bool:
        """Whether there are not too many turns, each of enough elements."""
        return rows * stride <= MOST_TURNS and columns >= SHORTEST_TURN * stride

    def columns_of(self, turn: int) -> Integers:
        """The columns of one turn."""
        return np.arange(_ORDERS[self.stride][turn], self.columns, self.stride)

    def traits(
        self, turn: int, magnitudes: Integers, means: Integers, above: Integers, known_mean: Integers
    ) -> Integers:
        """Eight numbers (8, ..., columns of the turn) about the elements of one turn, in parts of ``SCALE``.

        Of one row or several, (..., columns): ``magnitudes``, of which only those of earlier turns are read; the
        ``means`` of the columns, see :meth:`column_means`; the magnitudes ``above``. ``known_mean`` (..., 1): that of
        the elements of earlier turns, see :meth:`mean_of`. The traits: the column's mean; the row's; what lies beside
        the element, and what lies ``lag`` columns away, where an unknown element has its column's mean; the element
        above; the means of the columns beside it, and of those ``lag`` away; and the product of the first two, relative
        to what is expected.
        """
        columns = self.columns_of(turn)
        estimates = np.where(self._known[turn], SCALE * magnitudes, means)
        column_mean = means[..., columns]
        row_mean = np.broadcast_to(known_mean, column_mean.shape)
        return np.stack([
            column_mean,
            row_mean,
            self._around(estimates, columns, 1),
            self._around(estimates, columns, self.lag),
            SCALE * above[..., columns],
            self._around(means, columns, 1),
            self._around(means, columns, self.lag),
            np.minimum(column_mean * row_mean // max(self.prior, 1), LARGEST_TRAIT),
        ])  # fmt: skip

    def mean_of(self, total: Integers, count: Integers | int) -> Integers:
        """The mean of ``count`` magnitudes and one that is as expected."""
        mean: Integers = (SCALE * total + self.prior) // (count + 1)
        return mean

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        """Which columns (stride, columns) were decoded before each turn."""
        turn_of = np.empty(self.columns, np.int64)
        for turn in range(self.stride):
            turn_of[self.columns_of(turn)] = turn
        return turn_of < np.arange(self.stride)[:, None]

    def _around(self, values: Integers, columns: Integers, distance: int) -> Integers:
        """The mean of the values so far to the left and right; those outside are taken from the edge."""
        left = np.maximum(columns - distance, 0)
        right = np.minimum(columns + distance, self.columns - 1)
        around: Integers = (values[..., left] + values[..., right]) >> 1
        return around
