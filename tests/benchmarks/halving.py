"""Successive halving with several objectives against full trainings: hypervolume of the front, and epochs spent.

    python tests/benchmarks/halving.py --minutes 10

Accuracy and latency of random functions of the choices (``made`` in search_samplers.py). A network trained for a
share f of the epochs has its final accuracy less ``slowness · (f ** -0.5 - 1)`` points, plus normal noise of 0.2 points
that depends on network, f and seed. Costly networks and some at random are slower, so curves cross; the rank
correlation with the final accuracy stands in each line. Every evaluation trains from the beginning, so a candidate that
passes all rungs takes 1/9 + 1/3 + 1 trainings. Both searches begin 100 candidates.

Hypervolumes are of final accuracies without noise, in percent of that of the front of all networks; ``at_a_third`` is
that of the full trainings for as many epochs as a third of the candidates take.
"""

from __future__ import annotations

import argparse
import functools
import sys
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


def measure(case: str, seed: int) -> dict[str, Any]:
    """One search."""
    kind, name, way = case.split("/")
    table, slow = made(kind, seed), slowness(kind, seed)
    spent = [0.0]

    def evaluate(code: tuple[int, ...], fidelity: float) -> float:
        spent[0] += fidelity
        return float(np.clip(partial_accuracy(table, slow, seed, code, fidelity) / 100, 0, 1))

    study = nas.search(
        table.space, evaluate, cost=table.costs.__getitem__, objectives=("accuracy", COST), n_trials=N_TRIALS,
        seed=seed, rungs=RUNGS[way], sampler=sampler_named(name),
    )  # fmt: skip
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]
    codes = [table.space(optuna.trial.FixedTrial(trial.params)) for trial in complete]
    found = {"volume": round(100 - missing_volume(table, codes), 2), "trainings": round(spent[0], 2)}
    if way == "full":
        found["at_a_third"] = round(100 - missing_volume(table, codes[: N_TRIALS // 3]), 2)
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
