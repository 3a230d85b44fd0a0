"""What samplers find in tables of networks, by ``nas.search``: regret after 25, 50, 100 and 150 evaluations.

    python tests/benchmarks/search_samplers.py --data nas_bench_201.csv --minutes 30 [--seeds 100] [--only surrogate/]
    python tests/benchmarks/search_samplers.py --tables

The file holds all 15,625 networks of NAS-Bench-201 (2001.00326): ``arch_code`` (six digits, the operation of each
edge), test accuracies of three data sets in percent, and latencies in ms. A case is data set / setting / sampler:

- plain: regret in points of accuracy, against the best network of the table;
- limit, limit_pixel3: under a limit of latency that admits a quarter of the networks, against the best of those;
- noise: ``evaluate`` adds normal noise of 0.3 points (CIFAR-10) or 0.6; regret of the network the search would choose;
- front: accuracy and latency; the hypervolume that is missing, in percent of that of the table's front.

``ordered`` and ``categorical`` are made here, for each seed another: eight choices of three with an order, smooth with
interactions, and six of four without. Each line: one case and seed. Nothing of a sampler is set to one of the tables.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from nas.samplers.problem import Problem, UsesProblem
from nas.samplers.registry import sampler_named
from nas.samplers.surrogate import SurrogateSampler
from tests.benchmarks.comparison_samplers import LocalSearch, RegularizedEvolution
from tests.benchmarks.lines import extend, latest_by_case
from tests.benchmarks.markdown import table

NAME = "search_samplers"
COUNTS = (25, 50, 100, 150)
OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "avgpool")
COLUMNS = {"cifar10": "cifar10_test", "cifar100": "cifar100_test", "imagenet16": "imagenet16_120_test"}
NOISE = {"cifar10": 0.3, "cifar100": 0.6, "imagenet16": 0.6, "ordered": 0.3, "categorical": 0.3}
LIMITS = {"limit": "raspi4_ms", "limit_pixel3": "pixel3_ms"}
SETTINGS = ("plain", "limit", "front", "noise", "limit_pixel3")
FIRST = ("surrogate", "local_search", "evolution", "random")
LATER = ("tpe", "tpe_independent", "nsga2", "nsga3", "cmaes")
_SLOW, _SLOW_SEEDS = "gp", 20


@dataclass(frozen=True, kw_only=True)
class Table:
    """Accuracies in percent and costs of all candidates, each a tuple of places among the values of its choices."""

    values: tuple[Any, ...]
    choices: int
    accuracy: Mapping[tuple[int, ...], float]
    costs: Mapping[tuple[int, ...], Mapping[str, float]]
    as_numbers: bool = False

    def space(self, trial: Any) -> tuple[int, ...]:
        """The candidate of a trial."""
        if self.as_numbers:
            return tuple(trial.suggest_int(f"choice{i}", 0, len(self.values) - 1) for i in range(self.choices))
        names = [trial.suggest_categorical(f"choice{i}", self.values) for i in range(self.choices)]
        return tuple(self.values.index(name) for name in names)


@functools.lru_cache(maxsize=3)
def nas_bench(path: Path, dataset: str) -> Table:
    """A data set of NAS-Bench-201."""
    with path.open() as file:
        rows = {tuple(int(digit) for digit in row["arch_code"]): row for row in csv.DictReader(file)}
    return Table(
        values=OPERATIONS,
        choices=6,
        accuracy={code: float(row[COLUMNS[dataset]]) for code, row in rows.items()},
        costs={code: {name: float(row[name]) for name in LIMITS.values()} for code, row in rows.items()},
    )


@functools.lru_cache(maxsize=2)
def made(kind: str, seed: int) -> Table:
    """A random function of ordered or unordered choices, from 88 to 94 percent, with costs that grow with the ranks."""
    generator = np.random.default_rng([seed, kind == "ordered"])
    choices, levels = (8, 3) if kind == "ordered" else (6, 4)
    codes = np.array(list(itertools.product(range(levels), repeat=choices)))
    ranks = codes / (levels - 1)
    total = np.zeros(len(codes))
    for i in range(choices):
        curve = generator.uniform(0.2, 1) * ranks[:, i] ** generator.uniform(0.3, 1.2)
        total += curve if kind == "ordered" else generator.normal(scale=0.5, size=levels)[codes[:, i]]
    for _ in range(choices):
        a, b = generator.choice(choices, 2, replace=False)
        if kind == "ordered":
            bend = generator.uniform(0.3, 1.6) * (ranks[:, a] - generator.uniform()) ** 2
            total -= bend * (ranks[:, b] - 0.3)
        else:
            total += generator.normal(scale=0.3, size=(levels, levels))[codes[:, a], codes[:, b]]
    total += generator.normal(scale=0.03, size=len(codes))
    accuracy = 88 + 6 * (total - total.min()) / np.ptp(total)
    cost = {name: 1 + (ranks * generator.uniform(0.2, 1, choices)).sum(1) ** 1.5 for name in LIMITS.values()}
    keys = [tuple(int(place) for place in code) for code in codes]
    return Table(
        values=tuple(range(levels)) if kind == "ordered" else tuple("abcdefgh"[:levels]),
        choices=choices,
        accuracy=dict(zip(keys, accuracy.tolist(), strict=True)),
        costs={key: {name: float(cost[name][i]) for name in cost} for i, key in enumerate(keys)},
        as_numbers=kind == "ordered",
    )


def sampler(name: str, seed: int, problem: Problem) -> optuna.samplers.BaseSampler | Callable[[int], Any]:
    """What ``nas.search`` is given: a function of a seed, or for Optuna's own an object."""
    own = {"surrogate": SurrogateSampler, "local_search": LocalSearch, "evolution": RegularizedEvolution}
    if name in own:

        def of_seed(seed: int) -> Any:
            found = own[name](seed)
            return found.with_problem(problem) if isinstance(found, UsesProblem) else found

        return of_seed
    optuna_samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "tpe_independent": lambda: optuna.samplers.TPESampler(seed=seed),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
        "nsga3": lambda: optuna.samplers.NSGAIIISampler(seed=seed, population_size=20),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
    }
    return optuna_samplers[name]() if name in optuna_samplers else sampler_named(name)


def result(path: Path | None, case: str, seed: int) -> dict[str, Any]:
    """One search."""
    dataset, setting, name = case.split("/")
    if dataset in COLUMNS:
        assert path is not None
        table = nas_bench(path, dataset)
    else:
        table = made(dataset, seed)
    limited = LIMITS.get(setting)
    limits = {}
    if limited is not None:
        limits = {limited: float(np.quantile([costs[limited] for costs in table.costs.values()], 0.25))}
    objectives = ("accuracy", "raspi4_ms") if setting == "front" else ("accuracy",)
    problem = Problem(space=table.space, cost=table.costs.__getitem__, limits=limits, objectives=objectives)
    noisy = functools.partial(_evaluate, table, NOISE[dataset] if setting == "noise" else 0.0, seed)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = nas.search(
            table.space,
            lambda candidate, fidelity: noisy(candidate),
            cost=problem.cost,
            budget=limits,
            objectives=objectives,
            n_trials=COUNTS[-1],
            seed=seed,
            sampler=sampler(name, seed, problem),
        )
    seconds = time.perf_counter() - began
    found = [
        table.space(optuna.trial.FixedTrial(trial.params))
        for trial in study.get_trials(deepcopy=False)
        if trial.state == optuna.trial.TrialState.COMPLETE
    ]
    measure = missing_volume if setting == "front" else functools.partial(_regret, limits, noisy)
    return {"found": [round(measure(table, found[:count]), 3) for count in COUNTS], "seconds": round(seconds, 1)}


def _evaluate(table: Table, deviation: float, seed: int, candidate: tuple[int, ...]) -> float:
    noise = np.random.default_rng([seed, *candidate]).normal(scale=deviation) if deviation else 0.0
    return float(np.clip((table.accuracy[candidate] + noise) / 100, 0, 1))


def _regret(limits: Mapping[str, float], noisy: Callable[[Any], float], table: Table, found: list[Any]) -> float:
    """Points that the best network exceeds the one that the search would choose by."""
    allowed = [
        accuracy
        for code, accuracy in table.accuracy.items()
        if all(table.costs[code][name] <= limit for name, limit in limits.items())
    ]
    return max(allowed) - table.accuracy[max(found, key=noisy)]


def missing_volume(table: Table, found: list[Any]) -> float:
    """Percent of the hypervolume of the table's front that a search did not reach.

    The reference point is the largest latency and the accuracy that nine of ten networks exceed.
    """
    floor = float(np.quantile(list(table.accuracy.values()), 0.1))
    ceiling = max(costs["raspi4_ms"] for costs in table.costs.values())

    def volume(codes: Any) -> float:
        total, height = 0.0, floor
        # From the left, each network lifts the floor for all that cost more.
        for cost, accuracy in sorted((table.costs[code]["raspi4_ms"], table.accuracy[code]) for code in codes):
            total += max(accuracy - height, 0) * (ceiling - cost)
            height = max(height, accuracy)
        return total

    return 100 * (1 - volume(found) / volume(table.accuracy))


def cases(seeds: int, only: str, with_file: bool) -> Iterator[tuple[str, int]]:
    """All cases in blocks of ten seeds, the most informative first."""
    datasets = (*(COLUMNS if with_file else ()), "ordered", "categorical")
    for names in (FIRST + LATER, (_SLOW,)):
        for start in range(0, seeds if names != (_SLOW,) else min(seeds, _SLOW_SEEDS), 10):
            for setting, dataset, name in itertools.product(SETTINGS, datasets, names):
                case = f"{dataset}/{setting}/{name}"
                if only in case and (name != "cmaes" or (dataset == "ordered" and setting != "front")):
                    if setting == "front" and name in {"local_search", "evolution"}:
                        continue  # of one objective
                    yield from ((case, seed) for seed in range(start, min(start + 10, seeds)))


def tables() -> str:
    """Mean and standard error of each case, the latest line of each seed."""
    grouped, rows = latest_by_case(NAME), []
    for case in sorted(grouped):
        found = np.array([line["found"] for line in grouped[case]])
        error = found.std(0) / np.sqrt(len(found))
        cells = [f"{mean:.2f} ± {e:.2f}" for mean, e in zip(found.mean(0), error, strict=True)]
        rows.append((case, len(found), *cells, f"{np.mean([line['seconds'] for line in grouped[case]]):.1f}"))
    return table(("case", "seeds", *map(str, COUNTS), "s"), rows)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="nas_bench_201.csv; without it only the tables made here")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--only", default="", help="part of the name of a case")
    parser.add_argument("--tables", action="store_true", help="print the results and run nothing")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if arguments.tables:
        print(tables())
        return
    chosen = cases(arguments.seeds, arguments.only, arguments.data is not None)
    extend(NAME, chosen, functools.partial(result, arguments.data), arguments.minutes)


if __name__ == "__main__":
    main()
