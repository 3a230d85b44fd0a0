"""Latency from a few measured networks of a published table: as :func:`hw_profiles.calibrate`, and by simple rules."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean

import numpy as np
from scipy.optimize import nnls

from hw_profiles.calibration import corrected_costs
from hw_profiles.cost_model.features import CostFeatures
from hw_profiles.cost_model.kernel_costs import CostTable, KernelCost
from hw_profiles.network.workload import Workload

DRAWS = 20


@dataclass(frozen=True, kw_only=True)
class MeasuredNetworks:
    """Networks of one table: their features in the runtime of a base with its ``costs``, their times, and their MACs,
    parameters and activations in millions, (networks, 3).
    """

    precision: str
    costs: Mapping[str, KernelCost]
    features: Sequence[Sequence[CostFeatures]]
    milliseconds: np.ndarray
    sizes: np.ndarray

    @cached_property
    def _counted(self) -> tuple[list[CostFeatures], np.ndarray]:
        """Each feature once, and how often each network has it."""
        numbers: dict[CostFeatures, int] = {}
        counts = [
            {numbers.setdefault(each, len(numbers)): many for each, many in Counter(of_network).items()}
            for of_network in self.features
        ]
        matrix = np.zeros((len(counts), len(numbers)))
        for row, of_network in zip(matrix, counts, strict=True):
            row[list(of_network)] = list(of_network.values())
        return list(numbers), matrix

    def estimates(self, costs: Mapping[str, KernelCost]) -> np.ndarray:
        """Milliseconds of all networks under some costs."""
        unique, counts = self._counted
        totals = CostTable(costs).totals([[each] for each in unique])
        return counts @ np.array([microseconds for microseconds, _ in totals]) / 1000

    def draws(self, count: int, seed: int) -> list[tuple[list[int], list[int]]]:
        """So many networks to measure, drawn several times, each with the others."""
        everything = range(len(self.milliseconds))
        chosen = [random.Random(f"{seed} {draw}").sample(everything, count) for draw in range(DRAWS)]
        return [(each, [i for i in everything if i not in set(each)]) for each in chosen]


def sizes_of(workload: Workload) -> list[float]:
    """MACs, parameters and activations in millions."""
    activations = sum(int(np.prod(workload.shapes[op.name])) for op in workload.ops if op.kind in ("conv", "linear"))
    return [each / 1e6 for each in (workload.macs, workload.weight_count, activations)]


def ours(table: MeasuredNetworks, chosen: Sequence[int]) -> np.ndarray:
    found = corrected_costs(
        table.costs, table.precision, [table.features[i] for i in chosen], table.milliseconds[list(chosen)].tolist()
    )
    return table.estimates(found.costs)


def macs_alone(table: MeasuredNetworks, chosen: Sequence[int]) -> np.ndarray:
    ratios = np.log(table.milliseconds[list(chosen)] / table.sizes[list(chosen), 0])
    return table.sizes[:, 0] * np.exp(ratios.mean())


def regression(table: MeasuredNetworks, chosen: Sequence[int]) -> np.ndarray:
    """Least squares of relative errors on MACs, parameters and activations with a start, none below zero."""
    matrix = np.hstack([np.ones((len(table.sizes), 1)), table.sizes])
    times = table.milliseconds[list(chosen)]
    coefficients, _ = nnls(matrix[list(chosen)] / times[:, None], np.ones(len(times)))
    return np.maximum(matrix @ coefficients, 1e-6)


RULES: dict[str, Callable[[MeasuredNetworks, Sequence[int]], np.ndarray]] = {
    "fitnas": ours, "macs_alone": macs_alone, "regression": regression
}  # fmt: skip
TITLES = {"fitnas": "fitnas", "macs_alone": "MACs alone", "regression": "MACs, params, activations"}


Judge = Callable[[np.ndarray, np.ndarray], float]


def over_draws(
    table: MeasuredNetworks, counts: Sequence[int], seed: int, judges: Sequence[Judge]
) -> list[dict[str, dict[int, float]]]:
    """For each judge, by rule and number of measured networks, the mean over draws of what it says of the predictions
    for the other networks and their times.
    """
    found: list[dict[str, dict[int, float]]] = [{name: {} for name in RULES} for _ in judges]
    for count in counts:
        draws = table.draws(count, seed)
        for name, rule in RULES.items():
            pairs = [(rule(table, chosen)[others], table.milliseconds[others]) for chosen, others in draws]
            for by_rule, judge in zip(found, judges, strict=True):
                by_rule[name][count] = round(mean(judge(*pair) for pair in pairs), 4)
    return found


def relative_error(predicted: np.ndarray, measured: np.ndarray) -> float:
    """The mean of |predicted / measured - 1|."""
    return float(np.mean(np.abs(predicted / measured - 1)))
