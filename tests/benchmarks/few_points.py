"""How well a device is predicted from a few measured networks, beside simple rules fitted to the same ones.

    python tests/benchmarks/few_points.py --tables FOLDER --minutes 10
    python tests/benchmarks/few_points.py --tables FOLDER --timm timm-latency.csv --cache FILE --minutes 30

Each line is one table of published latencies: from 5, 10 and 20 of its networks, drawn 20 times, the mean of
|predicted / measured - 1| over all others. The base is ``host``: another machine, and another runtime; or what the
tables of the other systems say together. The simple
rules are one time for each MAC, and least squares of relative errors on MACs, parameters and activations with a start,
none below zero. ``--timm`` is a table with the columns model, infer_img_size and infer_step_time; what its networks cost
on the base is kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).parents[2]))
from hw_profiles import Device
from hw_profiles.cost_model.features import network_features
from hw_profiles.cost_model.plain_costs import plain_costs
from hw_profiles.cost_model.scaling import CostShares, cost_shares, scale_shares
from hw_profiles.devices.device_file import shipped_device
from hw_profiles.network.workload import Workload
from hw_profiles.runtimes.fusion import fuse
from tests.benchmarks.lines import extend
from tests.benchmarks.published.fits import pooled
from tests.benchmarks.published.tables import Published, cpu_networks

_COUNTS, _DRAWS = (5, 10, 20), 20
_KRAI = ("TFLite|v2.4.1", "ArmNN|v21.02", "TFLite|v2.2.0")
_FEWEST = 30
_TIMM_NETWORKS = 150


@dataclass(frozen=True, slots=True)
class Table:
    """Networks with their times, their shares of the base's costs and of plain ones, and MACs, parameters, activations
    of each.
    """

    shares: CostShares
    plain: CostShares
    milliseconds: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True, slots=True)
class Network:
    """Of one network the shares of the base's costs and of plain ones, and MACs, parameters, activations in millions."""

    shares: CostShares
    plain: CostShares
    sizes: list[float]

    @classmethod
    def of(cls, workload: Workload, precision: str, base: Device) -> Network:
        """What a network costs on the base."""
        formatted = workload.with_precision(precision)
        features = network_features(formatted, fuse(formatted, base.runtime))
        costs = base.costs[precision]
        return cls(
            cost_shares(costs, [features]), cost_shares(plain_costs(costs, precision), [features]),
            sizes_of(workload),
        )  # fmt: skip


def sizes_of(workload: Workload) -> list[float]:
    """MACs, parameters and activations in millions."""
    activations = sum(int(np.prod(workload.shapes[op.name])) for op in workload.ops if op.kind in ("conv", "linear"))
    return [each / 1e6 for each in (workload.macs, workload.weight_count, activations)]


def table_of(networks: Sequence[Network], milliseconds: Sequence[float]) -> Table:
    """The networks of one table."""
    return Table(
        joined([each.shares for each in networks]), joined([each.plain for each in networks]),
        np.array(milliseconds), np.array([each.sizes for each in networks]),
    )  # fmt: skip


def joined(found: Sequence[CostShares]) -> CostShares:
    """All networks in one matrix."""
    components = tuple(dict.fromkeys(component for each in found for component in each.components))
    column = {component: i for i, component in enumerate(components)}
    matrix = np.zeros((len(found), len(components)))
    for row, each in enumerate(found):
        for component, us in zip(each.components, each.microseconds[0], strict=True):
            matrix[row, column[component]] = us
    return CostShares(components, matrix)


def ours(table: Table, chosen: Sequence[int]) -> np.ndarray:
    """As :func:`hw_profiles.calibrate`: the base's structure, or plain sizes where they explain the times better."""
    times = [1000 * ms for ms in table.milliseconds[list(chosen)]]
    found = [(scale_shares(shares.take(chosen), times), shares) for shares in (table.shares, table.plain)]
    scaling, shares = max(found, key=lambda each: each[0].evidence)
    return shares.scaled(scaling) / 1000


def macs_alone(table: Table, chosen: Sequence[int]) -> np.ndarray:
    ratios = np.log(table.milliseconds[list(chosen)] / table.sizes[list(chosen), 0])
    return table.sizes[:, 0] * np.exp(ratios.mean())


def regression(table: Table, chosen: Sequence[int]) -> np.ndarray:
    matrix = np.hstack([np.ones((len(table.sizes), 1)), table.sizes])
    times = table.milliseconds[list(chosen)]
    coefficients, _ = nnls(matrix[list(chosen)] / times[:, None], np.ones(len(times)))
    return np.maximum(matrix @ coefficients, 1e-6)


RULES: dict[str, Callable[[Table, Sequence[int]], np.ndarray]] = {
    "fitnas": ours, "macs_alone": macs_alone, "regression": regression
}  # fmt: skip


def errors(table: Table, seed: int) -> dict[str, Any]:
    """The mean error of each rule from each number of measured networks."""
    result: dict[str, Any] = {"networks": len(table.milliseconds), "draws": _DRAWS}
    for name, rule in RULES.items():
        result[name] = {}
        for count in _COUNTS:
            means = []
            for draw in range(_DRAWS):
                chosen = random.Random(f"{seed} {draw}").sample(range(len(table.milliseconds)), count)
                others = [i for i in range(len(table.milliseconds)) if i not in set(chosen)]
                predicted = rule(table, chosen)[others]
                means.append(float(np.mean(np.abs(predicted / table.milliseconds[others] - 1))))
            result[name][count] = round(float(np.mean(means)), 4)
    return result


def published_tables(folder: Path, host: Device) -> dict[str, Callable[[], Table]]:
    """Krai's and dividiti's systems, each precision for itself, from each of two bases: ``host``, and what the tables of
    the other systems say together.
    """
    by_table: dict[str, list[Published]] = {}
    for row in cpu_networks(folder):
        if any(name in row.table for name in _KRAI) and row.workload is not None:
            by_table.setdefault(row.table, []).append(row)

    def from_host(rows: Sequence[Published]) -> Table:
        return table_of([Network.of(row.workload, row.precision, host) for row in rows], [row.ms for row in rows])

    def from_others(rows: Sequence[Published]) -> Table:
        precision, system = rows[0].precision, rows[0].table.partition("|")[0]
        others = [row for found in by_table.values() for row in found
                  if row.precision == precision and row.table.partition("|")[0] != system]  # fmt: skip
        costs = pooled(others, precision)
        networks = [
            Network(cost_shares(costs, [row.features]), cost_shares(plain_costs(costs, precision), [row.features]),
                    sizes_of(row.workload)) for row in rows
        ]  # fmt: skip
        return table_of(networks, [row.ms for row in rows])

    cases: dict[str, Callable[[], Table]] = {}
    for name, rows in by_table.items():
        if len(rows) >= _FEWEST:
            cases[f"{name} from host"] = partial(from_host, rows)
            cases[f"{name} from others"] = partial(from_others, rows)
    return cases


def timm_table(path: Path, cache: Path, base: Device) -> Table:
    """Some of timm's models, drawn by a seed; each is traced once."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    known = [json.loads(line) for line in cache.read_text().splitlines()] if cache.is_file() else []
    done = {line["model"] for line in known}
    for row in rows[:_TIMM_NETWORKS]:
        if row["model"] not in done:
            line = _traced(row, base)
            known.append(line)
            with cache.open("a") as file:
                file.write(json.dumps(line) + "\n")
    times = {row["model"]: float(row["infer_step_time"]) for row in rows}
    used = [line for line in known if "sizes" in line]
    print(f"{len(known) - len(used)} of {len(known)} models could not be traced")
    found = [Network(_shares(line["shares"]), _shares(line["plain"]), line["sizes"]) for line in used]
    return table_of(found, [times[line["model"]] for line in used])


def _shares(kept: dict[str, float]) -> CostShares:
    components = tuple((kind, int(i)) for kind, _, i in (key.rpartition("|") for key in kept))
    return CostShares(components, np.array([list(kept.values())]))


def _kept(shares: CostShares) -> dict[str, float]:
    pairs = zip(shares.components, shares.microseconds[0].tolist(), strict=True)
    return {f"{kind}|{i}": float(f"{us:.6g}") for (kind, i), us in pairs if us}


def _traced(row: dict[str, str], base: Device) -> dict[str, Any]:
    from hw_profiles.torch_io.timm_models import trace_timm

    side = int(row["infer_img_size"])
    try:
        workload = trace_timm(f"timm:{row['model']}", (3, side, side))
        found = Network.of(workload, "fp32", base)
    except Exception as error:
        print(row["model"], str(error)[:80])
        return {"model": row["model"], "error": str(error)[:200]}
    return {"model": row["model"], "shares": _kept(found.shares), "plain": _kept(found.plain), "sizes": found.sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--timm", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("timm_shares.jsonl"))
    options = parser.parse_args()
    base = shipped_device("host")
    tables = published_tables(options.tables, base)
    if options.timm is not None:
        tables = {
            "timm, i7-12700H, PyTorch compiled, fp32 from host": lambda: timm_table(options.timm, options.cache, base)
        }
    extend(
        "few_points", [(name, 0) for name in tables], lambda name, seed: errors(tables[name](), seed), options.minutes
    )


if __name__ == "__main__":
    main()
