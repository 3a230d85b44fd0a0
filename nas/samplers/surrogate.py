"""The surrogate sampler: a Gaussian process of the accuracy chooses the next network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.samplers import acquisition
from nas.samplers.candidates import Candidates
from nas.samplers.encoding import Encoding
from nas.samplers.full_proposal import MOST_COSTS, FullProposalSampler
from nas.samplers.gaussian_process import GaussianProcess, fit
from nas.samplers.observations import Observations, broken_constraints, observations, running
from nas.samplers.space_trial import Proposal
from nas.samplers.trial_attributes import ACCURACY

Array = npt.NDArray[np.float64]
Score = Callable[[Array], Array]

_RANDOM_CANDIDATES, _RANDOM_CONDITIONAL = 400, 150
_PARENTS = 5
_FRONT_PARENTS = 10
_CLIMBERS, _CLIMB_STEPS = 3, 10
_ENUMERATED = 600
_FITTED, _CONDITIONED, _FITTED_TO_COSTS = 80, 200, 60
_RESCORED = 16
# The reference point lies beyond the costliest network so far, or no costlier candidate would ever be tried, and
# above the networks that hardly learn.
_BEYOND, _REFERENCE_QUANTILE = 0.5, 0.1


class SurrogateSampler(FullProposalSampler):
    """Bayesian optimization over choices, ordered and not.

    After ``n_startup_trials`` random candidates a Gaussian process learns the objective. The kernel weighs each choice
    as a category and, where it has an order, by rank, and counts the values that choices of equal values share. Of
    random candidates, neighbors of the best, and those a climb leads to, the one of the largest expected improvement
    is proposed (Mockus 1978; 1807.02811 explains it) that no trial had and that keeps the limits of the problem.
    Candidates that other workers evaluate count with the value that the model expects.

    With a problem only the accuracy is modeled: other objectives are costs that are known before the evaluation, and
    the candidate of the largest expected hypervolume improvement is proposed. Without one, each constraint of the
    trials is modeled too, and several objectives are scalarized with random weights (ParEGO, Knowles 2006).

    >>> import optuna
    >>> study = optuna.create_study(sampler=SurrogateSampler(0))
    >>> study.optimize(lambda trial: (trial.suggest_int("x", 0, 99) - 41) ** 2, n_trials=25)
    >>> abs(study.best_params["x"] - 41) < 4
    True
    """

    def __init__(self, seed: int, n_startup_trials: int = 6) -> None:
        super().__init__(seed, n_startup_trials)

    def propose(
        self, study: Study, trials: Sequence[FrozenTrial], candidates: Candidates, generator: np.random.Generator
    ) -> Proposal | None:
        """The new candidate of the largest expected improvement."""
        objectives = self._problem.objectives if self._problem is not None else (ACCURACY,)
        seen = observations(trials, study.directions, objectives)
        if len(seen.rows) < 2 or not candidates.encoding.dimensions:
            return None
        place = objectives.index(ACCURACY)
        others = [column for column in range(len(study.directions)) if column != place]
        if others and self._problem is None:
            seen = replace(seen, values=_scalarized(seen.values, generator)[:, None])
            others = []
        value = _ValueModel.of(candidates, seen, warped(seen.values[:, place]), running(trials))
        feasible = _feasibility(candidates, trials)
        front = _Front.of(candidates, seen, value, -seen.values[:, others], generator) if others else None
        score = _score(candidates.encoding, value, feasible, front, seen.feasible)
        parents = front.rows[:_FRONT_PARENTS] if front is not None else value.best_rows(seen.feasible)[:_PARENTS]
        ranked = _ranked(candidates, score, candidates.codes[parents], generator)
        if front is None or self._problem is None:
            return next(candidates.proposals(ranked, MOST_COSTS), None)
        names = [objectives[column] for column in others]
        return front.best_of(candidates, candidates.proposals(ranked, MOST_COSTS), names, value)


def warped(values: Array) -> Array:
    """Values of zero mean and unit variance, those below the median drawn towards it by a logarithm.

    Networks that hardly learn lie far below all others; as they are they would hide the differences among the good
    ones.

    >>> warped(np.array([0.1, 0.9, 0.91, 0.92])).argmax()
    np.int64(3)
    """
    center = float(np.median(values))
    unit = max(float(values.max()) - center, 1e-12)
    relative = (values - center) / unit
    bent = np.where(relative < 0, -0.5 * np.log1p(-2 * np.minimum(relative, 0)), relative)
    deviation = float(bent.std())
    result: Array = (bent - bent.mean()) / (deviation if deviation > 1e-12 else 1.0)
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class _ValueModel:
    """The process of the values of some rows, candidates at work included, and its means there."""

    process: GaussianProcess
    encoding: Encoding
    rows: npt.NDArray[np.intp]
    means: Array

    @classmethod
    def of(
        cls, candidates: Candidates, seen: Observations, values: Array, pending: npt.NDArray[np.intp]
    ) -> _ValueModel:
        encoding, rows = candidates.encoding, seen.rows
        features = encoding.features(candidates.codes)
        few = _best_and_latest(values, _FITTED)
        chosen = fit(features[rows[few]], encoding.groups, values[few], encoding.prior_log_weights, seen.noise)
        more = _best_and_latest(values, _CONDITIONED)
        process = GaussianProcess(features[rows[more]], encoding.groups, values[more], chosen)
        means = process.predict(features[rows])[0]
        if len(pending):
            believed = np.concatenate([values[more], process.predict(features[pending])[0]])
            all_features = features[np.concatenate([rows[more], pending])]
            process = GaussianProcess(all_features, encoding.groups, believed, chosen)
        return cls(process=process, encoding=encoding, rows=rows, means=means)

    def best_rows(self, feasible: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Rows of the trials in descending order of their mean, those that keep the constraints first."""
        return self.rows[np.lexsort((-self.means, ~feasible))]

    def predict(self, codes: Array) -> tuple[Array, Array]:
        return self.process.predict(self.encoding.features(codes))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Front:
    """The best trade-offs so far, and models of the logarithm of each cost."""

    rows: npt.NDArray[np.intp]
    front: acquisition.Front
    models: list[Score]

    @classmethod
    def of(
        cls,
        candidates: Candidates,
        seen: Observations,
        value: _ValueModel,
        costs: Array,
        generator: np.random.Generator,
    ) -> _Front:
        beaten = (costs[None] <= costs[:, None]).all(2) & (value.means[None] >= value.means[:, None])
        equal = (costs[None] == costs[:, None]).all(2) & (value.means[None] == value.means[:, None])
        front = np.flatnonzero(~(beaten & ~equal).any(1))
        models = [_cost_model(candidates, seen.rows, column) for column in costs.T]
        return cls(
            rows=generator.permutation(seen.rows[front]),
            front=acquisition.Front(
                values=value.means[front],
                costs=costs[front],
                reference_value=float(np.quantile(value.means, _REFERENCE_QUANTILE)),
                reference_costs=costs.max(0) + _BEYOND * np.ptp(costs, axis=0),
            ),
            models=models,
        )

    def log_improvement(self, mean: Array, variance: Array, costs: Array) -> Array:
        """Of candidates of known costs."""
        points = np.random.default_rng(0)  # the same for all candidates that are compared
        gain = acquisition.expected_hypervolume_improvement(mean, variance, costs, self.front, points)
        # So that candidates without an expected gain are still ranked by their uncertainty.
        result: Array = np.log(gain + 1e-12 * variance)
        return result

    def best_of(
        self, candidates: Candidates, proposals: Iterator[Proposal], names: Sequence[str], value: _ValueModel
    ) -> Proposal | None:
        """The proposal of the largest improvement by its true costs, of the first few."""
        first = list(itertools.islice(proposals, _RESCORED))
        if not first:
            return None
        costs = np.array([[candidates.costs(found)[name] for name in names] for found in first])
        mean, variance = value.predict(candidates.encoding.encode([found.params for found in first]))
        return first[int(np.argmax(self.log_improvement(mean, variance, costs)))]


def _score(
    encoding: Encoding,
    value: _ValueModel,
    feasible: list[Score],
    front: _Front | None,
    keeps: npt.NDArray[np.bool_],
) -> Score:
    """What candidates promise, in logarithms: improvement times the probability that the constraints hold."""

    def score(codes: Array) -> Array:
        total: Array = np.zeros(len(codes))
        for probability in feasible:
            total = total + probability(codes)
        if not keeps.any():  # first of all one that keeps the constraints
            return total
        mean, variance = value.predict(codes)
        if front is None:
            return total + acquisition.log_expected_improvement(mean, variance, float(value.means[keeps].max()))
        costs = np.stack([model(codes) for model in front.models], 1)
        return total + front.log_improvement(mean, variance, costs)

    return score


def _ranked(candidates: Candidates, score: Score, parents: Array, generator: np.random.Generator) -> Array:
    """Codes of new candidates, the most promising first."""
    encoding = candidates.encoding
    pool = None if candidates.conditional else encoding.all_codes(_ENUMERATED)
    if pool is not None:
        pool = candidates.unseen(pool)
        return pool[np.argsort(-score(pool), kind="stable")] if len(pool) else pool
    count = _RANDOM_CONDITIONAL if candidates.conditional else _RANDOM_CANDIDATES
    drawn = [encoding.random(count, generator), *(encoding.neighbors(parent, generator) for parent in parents)]
    pool = candidates.unseen(candidates.resolve(np.concatenate(drawn)))
    if not len(pool):
        return pool
    scores = score(pool)
    climbed = []
    for start in np.argsort(-scores, kind="stable")[:_CLIMBERS]:
        climbed += _climb(candidates, score, pool[start], float(scores[start]), generator)
    if climbed:
        pool = np.concatenate([pool, *(codes for codes, _ in climbed)])
        scores = np.concatenate([scores, *(found for _, found in climbed)])
    return pool[np.argsort(-scores, kind="stable")]


def _climb(
    candidates: Candidates, score: Score, codes: Array, height: float, generator: np.random.Generator
) -> list[tuple[Array, Array]]:
    """The neighbors, with scores, met on the way from a candidate to a local maximum."""
    met = []
    for _ in range(_CLIMB_STEPS):
        around = candidates.unseen(candidates.resolve(candidates.encoding.neighbors(codes, generator)))
        if not len(around):
            break
        scores = score(around)
        met.append((around, scores))
        best = int(np.argmax(scores))
        if scores[best] <= height:
            break
        codes, height = around[best], float(scores[best])
    return met


def _feasibility(candidates: Candidates, trials: Sequence[FrozenTrial]) -> list[Score]:
    """For each constraint that was broken, the log probability that it holds."""
    scores: list[Score] = []
    for rows, values in broken_constraints(trials).values():
        bent = np.arcsinh(values / max(float(np.median(np.abs(values))), 1e-12))
        deviation = float(bent.std()) or 1.0
        process = _process(candidates, rows, bent / deviation, _nearest_and_latest(bent))

        def probability(codes: Array, process: GaussianProcess = process) -> Array:
            mean, variance = process.predict(candidates.encoding.features(codes))
            return acquisition.log_probability_below(mean, variance + process.noise, 0.0)

        scores.append(probability)
    return scores


def _cost_model(candidates: Candidates, rows: npt.NDArray[np.intp], costs: Array) -> Score:
    """What a cost is expected to be."""
    positive = bool((costs > 0).all())
    values = np.log(costs) if positive else costs
    center, deviation = float(values.mean()), float(values.std()) or 1.0
    latest = np.arange(len(values))[-_FITTED_TO_COSTS:]
    process = _process(candidates, rows, (values - center) / deviation, latest)

    def predict(codes: Array) -> Array:
        mean = process.predict(candidates.encoding.features(codes))[0] * deviation + center
        result: Array = np.exp(mean) if positive else mean
        return result

    return predict


def _process(
    candidates: Candidates, rows: npt.NDArray[np.intp], values: Array, kept: npt.NDArray[np.intp]
) -> GaussianProcess:
    encoding = candidates.encoding
    features = encoding.features(candidates.codes[rows[kept]])
    chosen = fit(features, encoding.groups, values[kept], encoding.prior_log_weights)
    return GaussianProcess(features, encoding.groups, values[kept], chosen)


def _best_and_latest(values: Array, most: int) -> npt.NDArray[np.intp]:
    """At most that many places: half of them of the largest values, the others the last ones."""
    return _first_and_latest(np.argsort(-values, kind="stable"), most)


def _nearest_and_latest(values: Array) -> npt.NDArray[np.intp]:
    """Places of values near zero, and the last ones."""
    return _first_and_latest(np.argsort(np.abs(values), kind="stable"), _FITTED_TO_COSTS)


def _first_and_latest(order: npt.NDArray[np.intp], most: int) -> npt.NDArray[np.intp]:
    if len(order) <= most:
        return np.arange(len(order))
    first = order[: most // 2]
    rest = np.setdiff1d(np.arange(len(order)), first)
    return np.sort(np.concatenate([first, rest[-(most - len(first)) :]]))


def _scalarized(values: Array, generator: np.random.Generator) -> Array:
    """One value to maximize: the augmented Tchebycheff function with random weights."""
    span = np.ptp(values, axis=0)
    unit = (values - values.max(0)) / np.where(span > 0, span, 1)
    weighted = unit * generator.dirichlet(np.ones(values.shape[1]))
    result: Array = weighted.min(1) + 0.05 * weighted.sum(1)
    return result
