"""Choices as numbers: positions, one-hot columns, and what choices of equal values have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from nas.samplers.space_trial import holds, position_of, value_at

Array = npt.NDArray[np.float64]

ABSENT = -1.0  # the code of a choice that a candidate does not have
_NOTHING = object()
_MOST_LEVELS = 32
_MOST_ONE_HOT = 12
_STEP = 0.15
# Of all groups together, so that networks of many choices are not all far from each other (2402.02229).
_TOTAL_WEIGHT = 0.4
_MORE_FOR_ORDER = 1.65


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """One choice: its values where they are few, and whether they have an order."""

    name: str
    distribution: BaseDistribution
    levels: tuple[Any, ...]
    ordered: bool

    def code(self, value: Any) -> float:
        """The place among the levels, or the position in 0..1 of a value of many; absent for a value of neither."""
        if not holds(self.distribution, value):
            return ABSENT
        if isinstance(self.distribution, CategoricalDistribution):
            return float(self.distribution.to_internal_repr(value))
        if self.levels:
            return float(np.argmin([abs(level - value) for level in self.levels]))
        return position_of(self.distribution, value)

    def value(self, code: float) -> Any:
        """The value of a code."""
        return self.levels[round(code)] if self.levels else value_at(self.distribution, code)


def dimension(name: str, distribution: BaseDistribution, ordered: Iterable[str] | None) -> Dimension:
    """A choice of a distribution.

    Numbers are ordered; so is a categorical choice named in ``ordered``, or, where that is None, one of more than two
    different numbers: the kernel learns whether the order matters.

    >>> dimension("kernel", CategoricalDistribution((3, 5, 7)), None).ordered
    True
    """
    if isinstance(distribution, CategoricalDistribution):
        levels = tuple(distribution.choices)
        if ordered is None:
            numeric = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
            is_ordered = numeric and len(set(levels)) > 2
        else:
            is_ordered = name in ordered
        return Dimension(name=name, distribution=distribution, levels=levels, ordered=is_ordered)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step, span = distribution.step, distribution.high - distribution.low
    if step is None or span / step >= _MOST_LEVELS:
        return Dimension(name=name, distribution=distribution, levels=(), ordered=True)
    grid = [distribution.low + i * step for i in range(int(span / step + 1e-9) + 1)]
    return Dimension(name=name, distribution=distribution, levels=tuple(grid), ordered=True)


class Encoding:
    """Codes (N, D) of candidates' values, and features (N, F) with ``groups`` (F,) for a Gaussian process.

    A choice has one-hot columns, one more where it may be absent, and where it is ordered a column with its rank in
    0..1. Choices of equal values, as one block's kernel and the next one's, share further columns: how often each value
    occurs in all of them, and their mean rank. ``prior_log_weights`` (G,) is what the process expects of the groups.

    >>> encoding = Encoding({"a": CategoricalDistribution(("x", "y"))})
    >>> encoding.features(encoding.encode([{"a": "y"}])).shape
    (1, 2)
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        ordered: Iterable[str] | None = None,
        may_be_absent: bool = False,
    ) -> None:
        names = None if ordered is None else frozenset(ordered)
        self.dimensions = [dimension(name, found, names) for name, found in distributions.items()]
        few = [column for column, found in enumerate(self.dimensions) if 0 < len(found.levels) <= _MOST_ONE_HOT]
        lowest = -1 if may_be_absent else 0
        pairs = [(column, level) for column in few for level in range(lowest, len(self.dimensions[column].levels))]
        self._hot_columns = np.array([column for column, _ in pairs], dtype=np.intp)
        self._hot_levels = np.array([level for _, level in pairs], dtype=float)
        steps = [(i, level) for i, found in enumerate(self.dimensions) for level in range(len(found.levels))]
        self._step_columns = np.array([column for column, _ in steps], dtype=np.intp)
        self._step_levels = np.array([level for _, level in steps], dtype=float)
        self._ranked = np.array([i for i, found in enumerate(self.dimensions) if found.ordered], dtype=np.intp)
        self._most = np.array([max(len(self.dimensions[i].levels) - 1, 1) for i in self._ranked], dtype=float)
        counts, means = self._shared_columns()
        self._counts, self._means = counts, means
        hot = np.searchsorted(few, self._hot_columns) if few else self._hot_columns
        sizes = [len(few), len(self._ranked), len(counts), means.shape[1]]
        starts = np.cumsum([0, *sizes])
        widths = [matrix.shape[1] for matrix in counts]
        self.groups = np.concatenate(
            [
                hot,
                starts[1] + np.arange(sizes[1]),
                starts[2] + np.repeat(np.arange(sizes[2]), widths),
                starts[3] + np.arange(sizes[3]),
            ]
        ).astype(np.intp)
        weight = np.log(_TOTAL_WEIGHT / max(len(self.dimensions), 1))
        self.prior_log_weights = np.full(starts[4], weight)
        self.prior_log_weights[starts[1] :] += np.log(_MORE_FOR_ORDER)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Array:
        """Codes of values by name."""
        codes = np.full((len(rows), len(self.dimensions)), ABSENT)
        for column, found in enumerate(self.dimensions):
            values = [row.get(found.name, _NOTHING) for row in rows]
            known = {value: ABSENT if value is _NOTHING else found.code(value) for value in set(values)}
            codes[:, column] = [known[value] for value in values]
        return codes

    def decode(self, codes: Array) -> dict[str, Any]:
        """Values by name of one row of codes, without absent ones."""
        pairs = zip(self.dimensions, codes, strict=True)
        return {found.name: found.value(float(code)) for found, code in pairs if code != ABSENT}

    def features(self, codes: Array) -> Array:
        """The features of rows of codes."""
        hot = (codes[:, self._hot_columns] == self._hot_levels).astype(float)
        places = codes[:, self._ranked]
        ranks = np.where(places == ABSENT, 0.5, places / self._most)
        counted = [hot @ matrix for matrix in self._counts]
        return np.concatenate([hot * np.sqrt(0.5), ranks, *counted, ranks @ self._means], 1)

    def random(self, count: int, generator: np.random.Generator) -> Array:
        """Codes of random values."""
        columns = [
            generator.integers(len(found.levels), size=count) if found.levels else generator.random(count)
            for found in self.dimensions
        ]
        return np.array(columns, dtype=float).reshape(len(columns), count).T

    def all_codes(self, most: int) -> Array | None:
        """Codes of every candidate, if there are at most that many."""
        size = 1
        for found in self.dimensions:
            size *= len(found.levels) or most + 1
            if size > most:
                return None
        axes = [np.arange(len(found.levels), dtype=float) for found in self.dimensions]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(size, len(axes))

    def neighbors(self, codes: Array, generator: np.random.Generator) -> Array:
        """Codes of all candidates that differ in one choice; for a choice of many values, a few near and far ones."""
        here = codes[self._step_columns]
        open_steps = (here != self._step_levels) & (here != ABSENT)
        columns, values = self._step_columns[open_steps], self._step_levels[open_steps]
        for column, found in enumerate(self.dimensions):
            if not found.levels and codes[column] != ABSENT:
                near = np.clip(codes[column] + _STEP * generator.normal(size=4), 0, 1)
                values = np.concatenate([values, near, generator.random(2)])
                columns = np.concatenate([columns, np.full(6, column)])
        changed = np.tile(codes, (len(columns), 1))
        changed[np.arange(len(columns)), columns] = values
        return changed

    def _shared_columns(self) -> tuple[list[Array], Array]:
        """What makes shared columns: of the one-hot columns the counts of values, of the ranks their means."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for column, found in enumerate(self.dimensions):
            if 1 < len(found.levels) <= _MOST_ONE_HOT:
                alike.setdefault((found.ordered, *((type(v), v) for v in found.levels)), []).append(column)
        counts, means = [], [np.zeros((len(self._ranked), 0))]
        for columns in alike.values():
            number, size = len(columns), len(self.dimensions[columns[0]].levels)
            if number < 2:
                continue
            member = np.isin(self._hot_columns, columns)[:, None]
            # Divided by 2.5 standard deviations among random candidates, so that the weights of all groups compare.
            spread = 2.5 * np.sqrt((size - 1) / size**2 / number) * np.sqrt(size)
            counts.append(member * (self._hot_levels[:, None] == np.arange(size)) / (number * spread))
            if self.dimensions[columns[0]].ordered:
                spread = 2.5 * np.sqrt((size + 1) / (size - 1) / 12 / number)
                means.append(np.isin(self._ranked, columns)[:, None] / (number * spread))
        return counts, np.concatenate(means, 1)
