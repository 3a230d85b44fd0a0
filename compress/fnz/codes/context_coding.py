"""Codes a matrix of small numbers by tables that depend on the elements around each one.

As in DeepCABAC (Wiedemann et al., arXiv 1905.08318), neighbors say how large an element probably is. Here they choose
one of a few tables, which are fitted to the matrix and stored before it, so that many elements are coded at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from compress.fnz.codes.ans import AnsDecoder, AnsModel, ans_model, encode_ans
from compress.fnz.codes.byte_reader import Reader, damaged, varint
from compress.fnz.codes.element_kinds import Symbols
from compress.fnz.codes.neighbors import LARGEST_TRAIT, MOST_PRIOR, SCALE, STRIDES, TRAITS, Integers, Scan
from compress.fnz.codes.probability_tables import TOTAL, Counts, Table, fitting_table, read_table

MOST_LEVELS = 16

_TRANSPOSED = 0x80
_LARGEST = 1 << 22
_WEIGHT_ONE, _MOST_WEIGHT = 64, 255
_MOST_SUM = TRAITS * _MOST_WEIGHT * LARGEST_TRAIT
_CELLS = 48  # which are joined to levels
_SAMPLE, _NNLS_STEPS = 20_000, 200
_LONGEST_LAG = 2048
_HEAD_BITS = 8 * 32  # what is stored beside tables and stream, roughly


@dataclass(frozen=True, slots=True)
class _Levels:
    """The level of an element: how many ``limits`` the sum of its traits, each by its weight, reaches."""

    weights: Integers
    limits: Integers

    def of(self, traits: NDArray[np.integer]) -> Integers:
        """(...,) from (8, ...)."""
        return np.searchsorted(self.limits, self.sums(traits), side="right")

    def sums(self, traits: NDArray[np.integer]) -> Integers:
        """The sums, (...,)."""
        found = np.zeros(traits.shape[1:], np.int64)
        for weight, trait in zip(self.weights.tolist(), traits, strict=True):
            if weight:
                found += weight * trait
        return found


@dataclass(frozen=True, slots=True)
class _Fit:
    """How a matrix can be coded; ``of_turns``: the levels (rows, columns of the turn) of each turn."""

    matrix: Symbols
    transposed: bool
    scan: Scan
    levels: _Levels
    of_turns: list[Integers]
    tables: list[Table]
    bits: float


def encode_contexts(symbols: Symbols, rows: int, cycle: int, most: int) -> bytes | None:
    """A matrix with so many rows, or None where that would take ``most`` bytes or more.

    The magnitude of a symbol is its distance from the most frequent one, on a circle of ``cycle`` symbols: 16 for
    numbers of 4 bits, 256 for others.
    """
    if not 1 < rows < len(symbols) <= _LARGEST:
        return None
    counts = np.bincount(symbols)
    low, center = int(np.flatnonzero(counts)[0]), int(counts.argmax())
    if len(counts) - low < 2:
        return None
    matrix = symbols.reshape(rows, -1)
    fits = [
        fit
        for transposed in (False, True)
        if (fit := _fitted(np.ascontiguousarray(matrix.T) if transposed else matrix, transposed, center, cycle, low))
    ]
    if not fits or (best := min(fits, key=lambda fit: fit.bits)).bits >= 8 * most:
        return None
    scan = best.scan
    return b"".join((
        bytes([best.transposed * _TRANSPOSED | scan.stride]),
        *map(varint, (scan.rows, scan.lag, scan.prior)),
        bytes([*best.levels.weights.tolist(), low, len(counts) - 1, center, cycle - 1, len(best.tables)]),
        *map(varint, np.diff(best.levels.limits, prepend=0).tolist()),
        *(table.data for table in best.tables),
        encode_ans(_runs(best, low)),
    ))  # fmt: skip


def decode_contexts(reader: Reader, count: int) -> Symbols:
    """The inverse of :func:`encode_contexts`, for ``count`` symbols."""
    reader.labels.append("contexts")
    flags, rows = reader.byte(), reader.varint(count)
    if not rows or count % rows or count > _LARGEST:
        raise damaged(f"{count} elements are no matrix of {rows} rows")
    columns = count // rows
    scan = Scan(
        rows=rows, columns=columns, stride=flags & ~_TRANSPOSED, lag=reader.varint(columns),
        prior=reader.varint(MOST_PRIOR),
    )  # fmt: skip
    weights = np.frombuffer(reader.take(TRAITS), np.uint8).astype(np.int64)
    low, high, center, cycle, level_count = reader.take(5)
    if low >= high or not 1 <= level_count <= MOST_LEVELS:
        raise damaged(f"a matrix of the symbols {low}..{high} is not coded by {level_count} tables")
    steps = [reader.varint(_MOST_SUM) for _ in range(level_count - 1)]
    models = [ans_model(read_table(reader, high - low + 1)) for _ in range(level_count)]
    magnitudes = _magnitudes(np.arange(low, high + 1), center, cycle + 1)
    levels = _Levels(weights, np.cumsum(steps, dtype=np.int64))
    matrix = _decoded(scan, levels, AnsDecoder(reader), models, magnitudes) + np.uint8(low)
    return (matrix.T if flags & _TRANSPOSED else matrix).reshape(-1)


def _decoded(
    scan: Scan, levels: _Levels, decoder: AnsDecoder, models: Sequence[AnsModel], magnitude_of: Integers
) -> Symbols:
    """The symbols (rows, columns), each less the lowest one."""
    matrix = np.empty((scan.rows, scan.columns), np.uint8)
    above, totals = np.zeros(scan.columns, np.int64), np.zeros(scan.columns, np.int64)
    for row, symbols in enumerate(matrix):
        means, current = scan.mean_of(totals, row), np.zeros(scan.columns, np.int64)
        total, known = np.zeros(1, np.int64), 0
        for turn in range(scan.stride):
            columns = scan.columns_of(turn)
            traits = scan.traits(turn, current, means, above, scan.mean_of(total, known))
            symbols[columns] = _taken(decoder, models, levels.of(traits))
            current[columns] = magnitude_of[symbols[columns]]
            total += current[columns].sum()
            known += len(columns)
        totals += current
        above = current
    decoder.finish()
    return matrix


def _taken(decoder: AnsDecoder, models: Sequence[AnsModel], levels: Integers) -> Symbols:
    """The symbols of one turn: those of the lowest level first."""
    symbols = np.empty(len(levels), np.uint8)
    for level, count in enumerate(np.bincount(levels).tolist()):
        if count:
            symbols[levels == level] = decoder.take(count, models[level])
    return symbols


def _magnitudes(symbols: NDArray[np.integer], center: int, cycle: int) -> Integers:
    distance = (symbols.astype(np.int64) - center) % cycle
    return np.minimum(distance, cycle - distance)


def _fitted(matrix: Symbols, transposed: bool, center: int, cycle: int, low: int) -> _Fit | None:
    rows, columns = matrix.shape
    strides = [stride for stride in STRIDES if Scan.fits(rows, columns, stride)]
    if not strides:
        return None
    magnitudes = _magnitudes(matrix, center, cycle)
    prior = min(round(SCALE * float(magnitudes.mean())), MOST_PRIOR)
    scan = Scan(rows=rows, columns=columns, stride=strides[-1], lag=_lag(magnitudes), prior=prior)
    traits = _traits(scan, magnitudes)
    turns = [scan.columns_of(turn) for turn in range(scan.stride)]
    wanted = np.concatenate([magnitudes[:, each].reshape(-1) for each in turns])
    flat = np.concatenate([each.reshape(TRAITS, -1) for each in traits], axis=1)
    weights = _fitting_weights(flat, wanted, prior)
    sums = _Levels(weights, np.empty(0, np.int64)).sums(flat)
    symbols = np.concatenate([matrix[:, each].reshape(-1) for each in turns]) - np.uint8(low)
    limits, counts = _fitting_limits(sums, symbols)
    tables = [fitting_table(each) for each in counts]
    bits = sum(
        float(each @ -np.log2(table.frequencies / TOTAL)) + 8 * len(table.data)
        for each, table in zip(counts, tables, strict=True)
    )
    levels = _Levels(weights, limits)
    return _Fit(matrix, transposed, scan, levels, [levels.of(each) for each in traits], tables, bits + _HEAD_BITS)


def _traits(scan: Scan, magnitudes: Integers) -> list[NDArray[np.int32]]:
    """Of each turn, (8, rows, columns of the turn)."""
    before = np.arange(scan.rows)[:, None]
    means = scan.mean_of(np.cumsum(magnitudes, axis=0) - magnitudes, before)
    above = np.concatenate([np.zeros_like(magnitudes[:1]), magnitudes[:-1]])
    total, known, found = np.zeros((scan.rows, 1), np.int64), 0, []
    for turn in range(scan.stride):
        found.append(scan.traits(turn, magnitudes, means, above, scan.mean_of(total, known)).astype(np.int32))
        columns = scan.columns_of(turn)
        total = total + magnitudes[:, columns].sum(1, keepdims=True)
        known += len(columns)
    return found


def _lag(magnitudes: Integers) -> int:
    """The distance of more than one column at which the magnitudes of a row resemble each other most."""
    columns = magnitudes.shape[1]
    most = min(_LONGEST_LAG, columns // 2)
    if most < 2:
        return 1
    spectrum = np.fft.rfft(magnitudes - magnitudes.mean(), 2 * columns)
    resemblance = np.fft.irfft((np.abs(spectrum) ** 2).sum(0))[2 : most + 1]
    return 2 + int((resemblance / (columns - np.arange(2, most + 1))).argmax())


def _fitting_weights(traits: NDArray[np.int32], wanted: Integers, prior: int) -> Integers:
    """Least squares of the magnitudes (N,) by the traits (8, N), relative to what is expected."""
    step = -(-len(wanted) // _SAMPLE)
    given, target = traits[:, ::step].T.astype(np.float64), SCALE * wanted[::step].astype(np.float64)
    expected = np.full(len(target), prior + 1.0)
    for _ in range(2):
        trust = 1 / np.sqrt(expected)
        weights = nnls(given * trust[:, None], target * trust, maxiter=_NNLS_STEPS)[0]
        expected = given @ weights + prior / 4 + 1
    whole: Integers = np.minimum(np.rint(_WEIGHT_ONE * weights), _MOST_WEIGHT).astype(np.int64)
    return whole


def _fitting_limits(sums: Integers, symbols: Symbols) -> tuple[Integers, list[Counts]]:
    """The limits between levels, and how often each symbol occurs in each level: narrow cells, of which neighbors are
    joined as long as that saves bits."""
    kinds = int(symbols.max()) + 1
    ordered = np.sort(sums)
    share = np.cumsum(ordered + ordered.mean() + 1)
    cuts = np.searchsorted(share, share[-1] * np.arange(1, _CELLS) / _CELLS)
    limits = np.unique(ordered[cuts])
    limits = limits[limits > ordered[0]]
    cells = np.searchsorted(limits, sums, side="right")
    size = len(limits) + 1
    counts = np.bincount(cells * kinds + symbols, minlength=size * kinds).reshape(size, kinds)
    joined = _joined([*counts])
    return limits[np.cumsum([len(each) for each in joined])[:-1] - 1], [counts[each].sum(0) for each in joined]


def _joined(counts: Sequence[Counts]) -> list[list[int]]:
    """The numbers of the cells of each level."""
    counts, groups = list(counts), [[i] for i in range(len(counts))]
    bits = [_estimated_bits(each) for each in counts]

    def loss(i: int) -> float:
        return _estimated_bits(counts[i] + counts[i + 1]) - bits[i] - bits[i + 1]

    losses = [loss(i) for i in range(len(counts) - 1)]
    while losses:
        best = int(np.argmin(losses))
        if losses[best] > 0 and len(counts) <= MOST_LEVELS:
            break
        counts[best : best + 2] = [counts[best] + counts[best + 1]]
        groups[best : best + 2] = [groups[best] + groups[best + 1]]
        bits[best : best + 2] = [_estimated_bits(counts[best])]
        del losses[best]
        for i in {best - 1, best} & {*range(len(losses))}:
            losses[i] = loss(i)
    return groups


def _estimated_bits(counts: Counts) -> float:
    """What so many symbols take, and their table: a few bits for each kind that occurs."""
    present = counts[counts > 0]
    return float(present @ -np.log2(present / present.sum())) + 24 + 2.5 * len(present) + 0.5 * len(counts)


def _runs(fit: _Fit, low: int) -> list[tuple[Symbols, AnsModel]]:
    """The symbols in the order in which they are decoded, with the model of each level."""
    scan, keys, symbols = fit.scan, [], []
    for turn, levels in enumerate(fit.of_turns):
        rows = np.arange(scan.rows)[:, None]
        keys.append(((rows * scan.stride + turn) * MOST_LEVELS + levels).reshape(-1))
        symbols.append(fit.matrix[:, scan.columns_of(turn)].reshape(-1))
    key = np.concatenate(keys)
    order = np.argsort(key, kind="stable")
    ordered, key = np.concatenate(symbols)[order] - np.uint8(low), key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    models = [ans_model(table.frequencies) for table in fit.tables]
    levels_of_runs = key[starts] % MOST_LEVELS
    return [
        (run, models[level]) for run, level in zip(np.split(ordered, starts[1:]), levels_of_runs.tolist(), strict=True)
    ]
