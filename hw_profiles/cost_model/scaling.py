"""Corrects the costs of kernels by measured times of a few networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hw_profiles.cost_model.features import QUANTITIES, CostFeatures, family
from hw_profiles.cost_model.kernel_costs import CostTable, KernelCost

_COMMON = 4.0  # standard deviation of the logarithm of the factor that all costs share
_CALL = 1.5  # likewise of that of the call: threads that wake up cost from microseconds to milliseconds
_BY_QUANTITY, _BY_KIND, _OWN = (0.05, 0.4, 1.5), (0.05, 0.3, 0.9), (0.02, 0.3)  # of factors around it
_NOISES = (0.02, 0.05, 0.12, 0.25)  # of one measured network
# Of each of these four, what is likely, and the standard deviation of its logarithm. Where the base is a machine, kinds
# of kernels seldom differ from what their sizes say: with wider ones 20 measurements of noisy tables were overfitted.
_OF_A_MACHINE = (0.4, 0.05, 0.3, 0.05), (1.5, 0.6, 1.0, 1.0)
_OF_A_GUESS = (0.4, 0.15, 0.15, 0.05), (1.5, 1.5, 1.5, 1.5)
_STEPS = 25
_LONGEST_STEP = 1.0
_FEWEST_TO_DOUBT = 6  # measurements, of which one may be off
_ROBUST_STEPS = 2
_UNLIKELY = 5.0  # less evidence than the best
_MOST_FACTOR = 6.0  # logarithm

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """Factors of costs, and how sure they are.

    ``factors`` holds the factor of each (kind, quantity); ``doubts`` of kinds that no network showed the standard
    deviation of theirs. ``left_out`` holds log(predicted / measured) of each network by the others alone, ``deviation``
    their root mean square, or what the prediction of such a network may be off; ``evidence`` is the logarithm of how
    likely these costs make the measurements, to compare with that of others.
    """

    factors: Mapping[tuple[str, int], float]
    left_out: tuple[float, ...]
    deviation: float
    doubts: Mapping[str, float]
    evidence: float

    def apply(self, costs: Mapping[str, KernelCost]) -> dict[str, KernelCost]:
        """The costs times their factors, with the doubt about kinds that no network showed."""
        return {
            kind: replace(
                cost,
                coefficients=tuple(
                    coefficient * self.factors[kind, i] for i, coefficient in enumerate(cost.coefficients)
                ),
                doubt=self.doubts.get(kind, 0.0),
            )
            for kind, cost in costs.items()
        }


@dataclass(frozen=True, slots=True)
class CostShares:
    """Microseconds of each network by (kind, quantity) under the costs that are corrected: (networks, components)."""

    components: tuple[tuple[str, int], ...]
    microseconds: Array

    def take(self, chosen: Sequence[int]) -> CostShares:
        """Those of some of the networks."""
        return CostShares(self.components, self.microseconds[list(chosen)])

    def scaled(self, scaling: Scaling) -> Array:
        """Microseconds of each network under the corrected costs."""
        factors = np.array([scaling.factors.get(component, 1.0) for component in self.components])
        total: Array = self.microseconds @ factors
        return total


def cost_shares(costs: Mapping[str, KernelCost], networks: Sequence[Sequence[CostFeatures]]) -> CostShares:
    """Microseconds of networks by (kind, quantity); a kind without a cost of its own counts as a whole, as quantity -1.

    >>> costs = {"call/call": KernelCost(coefficients=(2.0, 1.0, 0.0, 0.0, 0.0))}
    >>> found = cost_shares(costs, [[CostFeatures("call/call", (), (1.0, 5.0, 0.0, 0.0, 0.0))]])
    >>> [(i, float(us)) for (_, i), us in zip(found.components, found.microseconds[0], strict=True) if us]
    [(0, 2.0), (1, 5.0)]
    """
    table = CostTable(costs)
    named = [(kind, i) for kind, cost in costs.items() for i in range(len(cost.coefficients))]
    columns = {component: column for column, component in enumerate(named)}
    entries: list[tuple[int, int, float]] = []
    for row, all_features in enumerate(networks):
        totals = table.totals([[features] for features in all_features])
        for features, (corrected, _) in zip(all_features, totals, strict=True):
            linear = _linear(costs, features)
            amount = sum(linear)
            if not amount:
                column = columns.setdefault((features.kind, -1), len(columns))
                entries.append((row, column, corrected))
                continue
            entries += [
                (row, columns[features.kind, i], part * corrected / amount) for i, part in enumerate(linear) if part
            ]
    matrix = np.zeros((len(networks), len(columns)))
    for row, column, part in entries:
        matrix[row, column] += part
    return CostShares(tuple(columns), matrix)


def _linear(costs: Mapping[str, KernelCost], features: CostFeatures) -> list[float]:
    """Of a kernel without a cost of its own nothing: it is scaled as a whole."""
    if features.kind not in costs:
        return []
    coefficients = costs[features.kind].coefficients
    return [each * amount for each, amount in zip(coefficients, features.quantities, strict=True)]


def scale(
    costs: Mapping[str, KernelCost],
    networks: Sequence[Sequence[CostFeatures]],
    microseconds: Sequence[float],
    *,
    guessed: bool = False,
) -> Scaling:
    """The factors of costs that measured networks ask for.

    Each network takes the sum of what its kernels cost, each quantity of each kind times a factor of its own, and is
    measured with a relative error. The logarithms of factors are normal around a common one, those of one quantity and
    those of one kind more alike than others; the common one is free. The widths of both are those under which the
    measurements are most likely (Laplace's approximation; MacKay 1992), so that a machine of the same structure keeps
    it, and one of another kind may change it as far as its measurements say.

    >>> costs = {"call/call": KernelCost(coefficients=(1.0, 1.0, 0.0, 0.0, 0.0))}
    >>> networks = [[CostFeatures("call/call", (), (1.0, n, 0.0, 0.0, 0.0))] for n in (10.0, 20.0, 30.0)]
    >>> found = scale(costs, networks, [22.0, 42.0, 62.0])
    >>> [round(found.apply(costs)["call/call"].coefficients[i], 1) for i in (0, 1)]
    [2.0, 2.0]
    """
    return scale_shares(cost_shares(costs, networks), microseconds, guessed=guessed)


def scale_shares(shares: CostShares, microseconds: Sequence[float], *, guessed: bool = False) -> Scaling:
    """As :func:`scale`, of networks whose shares are known.

    >>> shares = CostShares((("call/call", 0),), np.array([[1.0], [2.0]]))
    >>> round(scale_shares(shares, [3.0, 6.0]).factors["call/call", 0], 2)
    3.0
    """
    logs = np.log(np.asarray(microseconds, float))
    alike = _Alike.of(shares.components)
    widths: list[tuple[float, ...]] = [
        (*structure, noise) for structure in product(_BY_QUANTITY, _BY_KIND, _OWN) for noise in _NOISES
    ]
    priors = {each: _prior_of_widths(each, guessed) for each in widths}
    scaling, priors = _averaged(shares, logs, alike, np.ones(len(logs)), priors)
    if len(logs) < _FEWEST_TO_DOUBT:
        return scaling
    for _ in range(_ROBUST_STEPS):
        errors = np.array(scaling.left_out)
        typical = max(1.4826 * float(np.median(np.abs(errors))), _NOISES[0])
        trust = 1 / (1 + (errors / (3 * typical)) ** 2)
        scaling, _ = _averaged(shares, logs, alike, trust, priors)
    return scaling


def _averaged(
    shares: CostShares, logs: Array, alike: _Alike, trust: Array, priors: Mapping[tuple[float, ...], float]
) -> tuple[Scaling, dict[tuple[float, ...], float]]:
    """The average over widths of factors and noise with their priors, and those of them that are likely at all; a
    network that is trusted less is measured with more noise.
    """
    theta = np.full(len(shares.components), float(np.mean(logs - np.log(shares.microseconds.sum(axis=1)))))
    found: list[_Posterior] = []
    for each, prior in priors.items():
        start = found[-1].theta if found else theta  # which is nearer than none
        found.append(
            _posterior(shares, logs, alike.covariance(each[:-1]), each[-1] ** 2 / trust, prior=prior, theta=start)
        )
    likely = max(each.evidence for each in found) - _UNLIKELY
    kept = {each for each, posterior in zip(priors, found, strict=True) if posterior.evidence > likely}
    return _average(shares, found), {each: prior for each, prior in priors.items() if each in kept}


def _prior_of_widths(widths: tuple[float, ...], guessed: bool) -> float:
    """The logarithm of how likely widths of factors, by quantity, by kind and of their own, and a noise are."""
    typical, doubt = _OF_A_GUESS if guessed else _OF_A_MACHINE
    distances = [math.log(width / usual) / each for width, usual, each in zip(widths, typical, doubt, strict=True)]
    return -0.5 * sum(distance**2 for distance in distances)


@dataclass(frozen=True, slots=True)
class _Alike:
    """Which components are of one quantity, of one kind, and of the call: (components, components) of 0 and 1."""

    quantity: Array
    kind: Array
    call: Array

    @classmethod
    def of(cls, components: Sequence[tuple[str, int]]) -> _Alike:
        """The matrices of some components."""
        quantities = np.array([quantity_group(*component) for component in components])
        kinds = np.array([kind for kind, _ in components])
        call = np.array([family(kind) == "call" for kind, _ in components], float)
        return cls(
            (quantities[:, None] == quantities[None, :]).astype(float),
            (kinds[:, None] == kinds[None, :]).astype(float),
            np.outer(call, call),
        )

    def covariance(self, widths: tuple[float, ...]) -> Array:
        """Of the logarithms of factors, before anything was measured."""
        by_quantity, by_kind, own = widths
        found: Array = _COMMON**2 + _CALL**2 * self.call + by_quantity**2 * self.quantity + by_kind**2 * self.kind
        return found + own**2 * np.eye(len(found))


def prior_covariance(components: Sequence[tuple[str, int]], widths: tuple[float, ...]) -> Array:
    """The covariance of the logarithms of the factors of some components before anything was measured, where
    ``widths`` are the standard deviations by quantity, by kind and of their own.

    >>> found = prior_covariance([("layer/conv", 1), ("layer/pool", 1)], (0.1, 0.2, 0.3))
    >>> bool(found[0, 0] > found[0, 1])
    True
    """
    return _Alike.of(components).covariance(widths)


def quantity_group(kind: str, i: int) -> str:
    """What a cost grows with: starts, nodes, MACs, weights or values; ``i`` is the place of the quantity in its kind.

    >>> quantity_group("layer/conv", 1), quantity_group("layer/conv", 2)
    ('macs', 'values')
    """
    name = QUANTITIES[family(kind)][i] if i >= 0 else "all"
    for group in ("start", "macs", "nodes", "weight"):
        if group in name:
            return group
    return "macs" if name in ("mpasses", "mtaps") else "values"


@dataclass(frozen=True, slots=True)
class _Posterior:
    theta: Array
    left_out: Array  # log(predicted / measured) of each measurement by the others
    variances: Array  # of theta
    expected: float  # deviation of a prediction for a network like the measured ones
    evidence: float


def _posterior(
    shares: CostShares, logs: Array, covariance: Array, noise: Array, *, prior: float, theta: Array
) -> _Posterior:
    """The most likely factors by damped Gauss-Newton steps from ``theta``, in the space of measurements, which are few;
    ``prior`` is the logarithm of how likely these widths are.
    """
    shown = np.flatnonzero(shares.microseconds.any(axis=0))  # the others follow from these
    microseconds, among_shown, log_factors = (
        shares.microseconds[:, shown],
        covariance[np.ix_(shown, shown)],
        theta[shown],
    )
    for _ in range(_STEPS):
        parts = microseconds * np.exp(log_factors)
        sums = parts.sum(axis=1)
        jacobian = parts / sums[:, None]
        residuals = logs - np.log(sums) + jacobian @ log_factors
        gain = among_shown @ jacobian.T
        inverse = np.linalg.inv(jacobian @ gain + np.diag(noise))
        step = gain @ (inverse @ residuals) - log_factors
        largest = float(np.abs(step).max())
        log_factors = log_factors + step * min(1.0, _LONGEST_STEP / max(largest, 1e-12))
        if largest < 1e-3:
            break
    _, determinant = np.linalg.slogdet(inverse)
    weights = inverse @ residuals
    typical = jacobian.mean(axis=0)
    variance = float(typical @ among_shown @ typical) - float(typical @ gain @ inverse @ (gain.T @ typical))
    gain = covariance[:, shown] @ jacobian.T
    theta = gain @ weights
    theta[shown] = log_factors
    return _Posterior(
        theta=theta,
        left_out=-weights / np.diag(inverse),
        variances=np.diag(covariance) - np.einsum("ij,ij->i", gain @ inverse, gain),
        expected=math.sqrt(float(noise.min()) + max(0.0, variance)),
        evidence=prior + 0.5 * float(determinant - residuals @ weights),
    )


def _average(shares: CostShares, found: Sequence[_Posterior]) -> Scaling:
    """All widths, each as likely as it makes the measurements."""
    evidence = np.array([each.evidence for each in found])
    trust = np.exp(evidence - evidence.max())
    trust /= trust.sum()
    theta = trust @ np.array([each.theta for each in found])
    left_out = trust @ np.array([each.left_out for each in found])
    expected = math.sqrt(float(trust @ np.array([each.expected**2 for each in found])))
    if len(left_out) > 1:
        expected = max(expected, float(np.sqrt(np.mean(left_out**2))))
    factors = zip(
        shares.components, np.clip(theta - theta.mean(), -_MOST_FACTOR, _MOST_FACTOR) + theta.mean(), strict=True
    )
    return Scaling(
        factors={component: math.exp(value) for component, value in factors},
        left_out=tuple(left_out.tolist()),
        deviation=expected,
        evidence=float(evidence.max() + math.log(np.exp(evidence - evidence.max()).sum())),
        doubts=_doubts(shares, trust @ np.array([each.variances for each in found])),
    )


def _doubts(shares: CostShares, variances: Array) -> dict[str, float]:
    """Of kinds that are in no network: how far their factors may be off the rest."""
    seen = {kind for (kind, _), total in zip(shares.components, shares.microseconds.sum(axis=0), strict=True) if total}
    doubts: dict[str, float] = {}
    for (kind, _), variance in zip(shares.components, variances.tolist(), strict=True):
        if kind not in seen:
            doubts[kind] = max(doubts.get(kind, 0.0), math.sqrt(max(variance, 0.0)))
    return doubts
