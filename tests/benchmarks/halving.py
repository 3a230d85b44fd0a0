"""Successive halving with several objectives against full trainings: hypervolume of the front, and epochs spent.

    python tests/benchmarks/halving.py --minutes 10

Accuracy and latency of random functions of the choices (``made`` in search_samplers.py). A network trained for a
share f of the epochs has its final accuracy less ``slowness · (f ** -0.5 - 1)`` points, plus normal noise of 0.2 points
that depends on network, f and seed. Costly networks and some at random are slower, so curves cross; the rank
correlation with the final accuracy stands in each line. Every evaluation trains from the beginning, so a candidate that
passes all rungs takes 1/9 + 1/3 + 1 trainings. Both searches begin 100 candidates; ``volume`` and ``trainings`` are
those of them.

Halving may begin as many candidates as a third of the epochs allow: ``volume_for_a_third`` is of those trained to the
end by then, ``begun_for_a_third`` were begun. ``continued_...`` is the same search where an evaluation would go on from
the lower rung's checkpoint, so that all rungs take 1 training; fitnas has no such evaluation, a caller's ``evaluate`` may.

Hypervolumes are of final accuracies without noise, in percent of that of the front of all networks; ``at_a_third`` is
that of the full trainings for as many epochs as a third of the candidates take.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from nas.samplers.registry import sampler_named
from tests.benchmarks.lines import extend
from tests.benchmarks.search_samplers import Table, made, missing_volume

NAME = "halving"
N_TRIALS = 100
THIRD = N_TRIALS / 3
_MOST = 3 * N_TRIALS
RUNGS = {"halving": (1 / 9, 1 / 3, 1.0), "full": (1.0,)}
COST = "raspi4_ms"
_NOISE = 0.2


@functools.lru_cache(maxsize=2)
def slowness(kind: str, seed: int) -> dict[tuple[int, ...], float]:
    """How much later than the others each network learns, in points."""
    table = made(kind, seed)
    costs = np.array([found[COST] for found in table.costs.values()])
    generator = np.random.default_rng([seed, 7])
    values = 3 + 0.2 * (costs - costs.mean()) / costs.std() + generator.normal(scale=0.3, size=len(costs))
    return dict(zip(table.costs, np.clip(values, 0.5, None).tolist(), strict=True))


def partial_accuracy(table: Table, slow: dict[tuple[int, ...], float], seed: int, code: Any, fidelity: float) -> float:
    """In percent, after a share of the epochs."""
    noise = np.random.default_rng([seed, *code, round(1000 * fidelity)]).normal(scale=_NOISE)
    return float(table.accuracy[code] - slow[code] * (fidelity**-0.5 - 1) + noise)


@dataclass(slots=True)
class Spending:
    """What evaluations take, in full trainings: from the beginning each, and as if each went on from a checkpoint."""

    anew: float = 0.0
    continued: float = 0.0
    begun: int = 0
    ends: list[tuple[float, float, int, Any]] = field(default_factory=list)  # the three above after it, and the network
    _reached: dict[Any, float] = field(default_factory=dict)

    def add(self, code: Any, fidelity: float) -> None:
        """One evaluation."""
        self.begun += code not in self._reached
        self.anew += fidelity
        self.continued += fidelity - self._reached.get(code, 0)
        self._reached[code] = fidelity
        if fidelity == 1:
            self.ends.append((self.anew, self.continued, self.begun, code))

    @property
    def over(self) -> bool:
        """Whether nothing that comes now is measured."""
        return self.begun >= N_TRIALS and self.continued >= THIRD


def measure(case: str, seed: int) -> dict[str, Any]:
    """One search."""
    kind, name, way = case.split("/")
    table, slow, spent = made(kind, seed), slowness(kind, seed), Spending()
    at_100 = [0.0]

    def evaluate(code: tuple[int, ...], fidelity: float) -> float:
        spent.add(code, fidelity)
        if spent.begun <= N_TRIALS:
            at_100[0] = spent.anew
        return float(np.clip(partial_accuracy(table, slow, seed, code, fidelity) / 100, 0, 1))

    def volume(codes: list[Any]) -> float:
        return round(100 - missing_volume(table, codes), 2)

    nas.search(
        table.space, evaluate, cost=table.costs.__getitem__, objectives=("accuracy", COST), seed=seed,
        n_trials=_MOST if way == "halving" else N_TRIALS, rungs=RUNGS[way], sampler=sampler_named(name),
        on_trial=lambda study: study.stop() if spent.over else None,
    )  # fmt: skip
    found = {"volume": volume([code for *_, n, code in spent.ends if n <= N_TRIALS]), "trainings": round(at_100[0], 2)}
    if way == "full":
        found["at_a_third"] = volume([code for *_, code in spent.ends[: N_TRIALS // 3]])
    for place, prefix in enumerate(("", "continued_") if way == "halving" else ()):
        ends = [end for end in spent.ends if end[place] <= THIRD]
        found[f"{prefix}volume_for_a_third"] = volume([code for *_, code in ends])
        found[f"{prefix}begun_for_a_third"] = ends[-1][2]
    finals = [table.accuracy[code] for code in slow]
    ranks = {
        f"rank_correlation_{name}": round(
            float(spearmanr([partial_accuracy(table, slow, seed, code, f) for code in slow], finals)[0]), 3
        )
        for name, f in (("ninth", 1 / 9), ("third", 1 / 3))
    }
    return {**found, **ranks}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("fitnas").setLevel(logging.ERROR)  # that a search was stopped
    cases = [
        (f"{kind}/{name}/{way}", seed)
        for name in ("random", "surrogate")
        for seed in range(given.seeds)
        for kind in ("ordered", "categorical")
        for way in RUNGS
    ]
    extend(NAME, cases, measure, given.minutes)


if __name__ == "__main__":
    main()
