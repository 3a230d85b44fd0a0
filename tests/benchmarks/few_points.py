"""How well a device is predicted from a few measured networks, beside simple rules fitted to the same ones.

    python tests/benchmarks/few_points.py --tables FOLDER --minutes 20
    python tests/benchmarks/few_points.py --tables FOLDER --timm timm-latency.csv --minutes 20

Each line is one table of published latencies: from 5, 10 and 20 of its networks, drawn 20 times, the mean of
|predicted / measured - 1| over all others. The base is ``host``: another machine, and another runtime; or what the
tables of the other systems say together. The simple
rules are one time for each MAC, and least squares of relative errors on MACs, parameters and activations with a start,
none below zero. ``--timm`` is a table with the columns model, infer_img_size and infer_step_time, of models whose
workloads come with the package.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from hw_profiles import Device
from hw_profiles.cost_model.features import network_features
from hw_profiles.devices.device_file import shipped_device
from hw_profiles.model_zoo.stored_workloads import stored_networks
from hw_profiles.network.workload import Workload
from hw_profiles.runtimes.fusion import fuse
from tests.benchmarks.lines import extend
from tests.benchmarks.published.fits import pooled
from tests.benchmarks.published.predictors import DRAWS, MeasuredNetworks, over_draws, relative_error, sizes_of
from tests.benchmarks.published.tables import Published, cpu_networks

_COUNTS = (5, 10, 20)
_KRAI = ("TFLite|v2.4.1", "ArmNN|v21.02", "TFLite|v2.2.0")
_FEWEST = 30
_TIMM_NETWORKS = 300
_TIMM = "timm, i7-12700H, PyTorch compiled, fp32 from host"


def on_base(
    workloads: Sequence[Workload], milliseconds: Sequence[float], precision: str, base: Device
) -> MeasuredNetworks:
    """Networks in the runtime of a base."""
    formatted = [workload.with_precision(precision) for workload in workloads]
    return MeasuredNetworks(
        precision=precision, costs=base.costs[precision], milliseconds=np.array(milliseconds),
        features=[network_features(each, fuse(each, base.runtime)) for each in formatted],
        sizes=np.array([sizes_of(workload) for workload in workloads]),
    )  # fmt: skip


def errors(table: MeasuredNetworks, seed: int) -> dict[str, Any]:
    """The mean error of each rule from each number of measured networks."""
    [found] = over_draws(table, _COUNTS, seed, [relative_error])
    return {"networks": len(table.milliseconds), "draws": DRAWS, **found}


def published_tables(folder: Path, host: Device) -> dict[str, Callable[[], MeasuredNetworks]]:
    """Krai's and dividiti's systems, each precision for itself, from each of two bases: ``host``, and what the tables of
    the other systems say together.
    """
    by_table: dict[str, list[Published]] = {}
    for row in cpu_networks(folder):
        if any(name in row.table for name in _KRAI) and row.workload is not None:
            by_table.setdefault(row.table, []).append(row)

    def from_host(rows: Sequence[Published]) -> MeasuredNetworks:
        workloads = [row.workload for row in rows if row.workload is not None]
        return on_base(workloads, [row.ms for row in rows], rows[0].precision, host)

    def from_others(rows: Sequence[Published]) -> MeasuredNetworks:
        precision, system = rows[0].precision, rows[0].table.partition("|")[0]
        others = [row for found in by_table.values() for row in found
                  if row.precision == precision and row.table.partition("|")[0] != system]  # fmt: skip
        return MeasuredNetworks(
            precision=precision, costs=pooled(others, precision), features=[row.features for row in rows],
            milliseconds=np.array([row.ms for row in rows]),
            sizes=np.array([sizes_of(row.workload) for row in rows if row.workload is not None]),
        )  # fmt: skip

    cases: dict[str, Callable[[], MeasuredNetworks]] = {}
    for name, rows in by_table.items():
        if len(rows) >= _FEWEST:
            cases[f"{name} from host"] = partial(from_host, rows)
            cases[f"{name} from others"] = partial(from_others, rows)
    return cases


def timm_table(path: Path, base: Device) -> MeasuredNetworks:
    """Some of timm's models, drawn by a seed."""
    with path.open(encoding="utf-8") as file:
        times = {(row["model"].partition(".")[0], int(row["infer_img_size"])): float(row["infer_step_time"])
                 for row in csv.DictReader(file)}  # fmt: skip
    networks = [each for each in stored_networks() if (each.architecture, each.image_size) in times]
    print(f"{len(networks)} of {len(times)} networks of the table come with the package at that size")
    random.Random(0).shuffle(networks)
    used = networks[:_TIMM_NETWORKS]
    milliseconds = [times[each.architecture, each.image_size] for each in used]
    return on_base([each.workload for each in used], milliseconds, "fp32", base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--timm", type=Path)
    parser.add_argument("--only", default="", help="part of the names of tables")
    options = parser.parse_args()
    base = shipped_device("host")
    tables = {name: make for name, make in published_tables(options.tables, base).items() if options.only in name}
    if options.timm is not None:
        tables = {_TIMM: lambda: timm_table(options.timm, base)}
    extend(
        "few_points", [(name, 0) for name in tables], lambda name, seed: errors(tables[name](), seed), options.minutes
    )


if __name__ == "__main__":
    main()
