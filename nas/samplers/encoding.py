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
        self._may_be_absent = may_be_absent
        self._alike = self._shared()
        features, groups, ranks = self._columns(np.zeros((1, len(self.dimensions))))
        self.groups = np.repeat(np.arange(len(groups)), groups)
        weight = np.log(_TOTAL_WEIGHT / max(len(self.dimensions), 1))
        self.prior_log_weights = weight + np.log(_MORE_FOR_ORDER) * np.array(ranks, dtype=float)
        assert features.shape[1] == len(self.groups)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Array:
        """Codes of values by name."""
        codes = np.full((len(rows), len(self.dimensions)), ABSENT)
        for column, found in enumerate(self.dimensions):
            known: dict[Any, float] = {}
            for row, params in enumerate(rows):
                if found.name in params:
                    value = params[found.name]
                    key = (type(value), value)
                    if key not in known:
                        known[key] = found.code(value)
                    codes[row, column] = known[key]
        return codes

    def decode(self, codes: Array) -> dict[str, Any]:
        """Values by name of one row of codes, without absent ones."""
        pairs = zip(self.dimensions, codes, strict=True)
        return {found.name: found.value(float(code)) for found, code in pairs if code != ABSENT}

    def features(self, codes: Array) -> Array:
        """The features of rows of codes."""
        return self._columns(codes)[0]

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

    def neighbours(self, codes: Array, generator: np.random.Generator) -> Array:
        """Codes of all candidates that differ in one choice; for a choice of many values, a few near and far ones."""
        rows = [codes[None, :][:0]]
        for column, found in enumerate(self.dimensions):
            code = codes[column]
            if code == ABSENT:
                continue
            if found.levels:
                values = np.delete(np.arange(len(found.levels), dtype=float), round(code))
            else:
                near = np.clip(code + _STEP * generator.normal(size=4), 0, 1)
                values = np.concatenate([near, generator.random(2)])
            changed = np.repeat(codes[None, :], len(values), axis=0)
            changed[:, column] = values
            rows.append(changed)
        return np.concatenate(rows)

    def _shared(self) -> list[list[int]]:
        """Columns of the choices that have equal values."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for column, found in enumerate(self.dimensions):
            if found.levels and len(found.levels) <= _MOST_ONE_HOT:
                alike.setdefault((found.ordered, *((type(v), v) for v in found.levels)), []).append(column)
        return [columns for columns in alike.values() if len(columns) > 1]

    def _columns(self, codes: Array) -> tuple[Array, list[int], list[bool]]:
        """Features, the width of each group, and whether it is one of ranks or shared columns."""
        blocks, ranked = [], []
        for column, found in enumerate(self.dimensions):
            if found.levels and len(found.levels) <= _MOST_ONE_HOT:
                levels = range(-1 if self._may_be_absent else 0, len(found.levels))
                blocks.append((codes[:, column, None] == np.array(levels)) * np.sqrt(0.5))
                ranked.append(False)
            if found.ordered:
                blocks.append(self._rank(codes, column)[:, None])
                ranked.append(True)
        for columns in self._alike:
            number, size = len(columns), len(self.dimensions[columns[0]].levels)
            counts = np.stack([(codes[:, columns] == level).mean(1) for level in range(size)], 1)
            spread = np.sqrt((size - 1) / size**2 / number) if size > 1 else 1.0
            blocks.append(counts / (2.5 * spread * np.sqrt(size)))
            ranked.append(True)
            if self.dimensions[columns[0]].ordered:
                mean = np.mean([self._rank(codes, column) for column in columns], axis=0)
                blocks.append(mean[:, None] / (2.5 * np.sqrt((size + 1) / (size - 1) / 12 / number)))
                ranked.append(True)
        width = [block.shape[1] for block in blocks]
        return np.concatenate([np.zeros((len(codes), 0)), *blocks], 1), width, ranked

    def _rank(self, codes: Array, column: int) -> Array:
        most = max(len(self.dimensions[column].levels) - 1, 1)
        rank: Array = np.where(codes[:, column] == ABSENT, 0.5, codes[:, column] / most)
        return rank
