"""How well the networks of NAS-Bench-201 are ranked by latency on a device of which ten of them were measured.

    python tests/benchmarks/cell_latencies.py --tables FOLDER --minutes 20

``FOLDER`` holds ``nb201_latency_help.csv``: latencies published with HELP (arXiv:2106.08630). Each line is one device: the
rank correlation (Spearman) of estimates and published latencies over the other networks, and the mean of
|estimate / published - 1|, from ten networks, drawn 20 times. The base is ``host``: another machine, and another runtime.
The simple rules are those of ``few_points.py``, fitted to the same ten.

A cell may have edges that nobody reads, and edges that only read zeros. PyTorch computes all of them. On the Pixel 3 and the
Raspberry Pi 4, where TensorFlow Lite ran the networks, latencies show that what nobody reads is left out, and that
convolutions of zeros are not. Networks whose output does not depend on their input are left out: nothing of them remains
there.
"""

from __future__ import annotations

import argparse
import csv
import sys
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[2]))
from hw_profiles.cost_model.features import network_features
from hw_profiles.devices.device_file import shipped_device
from hw_profiles.runtimes.fusion import fuse
from tests.benchmarks.lines import extend, latest_by_case
from tests.benchmarks.markdown import commits, table
from tests.benchmarks.published.predictors import (
    DRAWS,
    TITLES,
    MeasuredNetworks,
    over_draws,
    relative_error,
    sizes_of,
)
from tests.benchmarks.published.workloads import ALL, READ, depends_on_its_input, nas_bench_201

NAME = "cell_latencies"
_COUNT = 10
_PREFIX = "latency_ms_"
_TFLITE = ("pixel3", "raspi4")
_ACCELERATORS = ("1080ti", "2080ti", "titan", "eyeriss")
_HELP = "0.93 in the mean of its devices, 0.89 on the Raspberry Pi 4"


def group_of(device: str) -> str:
    """CPUs and phones, or GPUs and an accelerator.

    >>> group_of("raspi4"), group_of("titanx_32")
    ('CPU or phone', 'GPU or accelerator')
    """
    return "GPU or accelerator" if device.startswith(_ACCELERATORS) else "CPU or phone"


def rank_correlation(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Spearman's; 0 where all predictions are equal."""
    return float(spearmanr(predicted, measured)[0]) if np.ptp(predicted) > 0 else 0.0


@cache
def _rows(path: Path) -> tuple[dict[str, str], ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(row for row in csv.DictReader(file) if depends_on_its_input(row["arch_code"]))


@cache
def _networks(path: Path, computed: str) -> MeasuredNetworks:
    """Those of the table, without times."""
    base = shipped_device("host")
    workloads = [nas_bench_201(row["arch_code"], computed=computed) for row in _rows(path)]
    return MeasuredNetworks(
        precision="fp32", costs=base.costs["fp32"], milliseconds=np.empty(0),
        features=[network_features(each, fuse(each, base.runtime)) for each in workloads],
        sizes=np.array([sizes_of(each) for each in workloads]),
    )  # fmt: skip


def measure(path: Path, device: str, seed: int) -> dict[str, Any]:
    networks = _networks(path, READ if device in _TFLITE else ALL)
    times = MeasuredNetworks(
        precision=networks.precision, costs=networks.costs, features=networks.features, sizes=networks.sizes,
        milliseconds=np.array([float(row[_PREFIX + device]) for row in _rows(path)]),
    )  # fmt: skip
    ranks, off = over_draws(times, (_COUNT,), seed, [rank_correlation, relative_error])
    return {
        "group": group_of(device), "networks": len(times.milliseconds), "points": _COUNT, "draws": DRAWS,
        "rank_correlation": {rule: found[_COUNT] for rule, found in ranks.items()},
        "mean_error": {rule: found[_COUNT] for rule, found in off.items()},
    }  # fmt: skip


def cell_latencies() -> str:
    """The section of docs/benchmarks.md."""
    lines = [found[-1] for found in latest_by_case(NAME).values()]
    if not lines:
        return ""
    rows: list[tuple[str, ...]] = []
    for group in sorted({line["group"] for line in lines}):
        of_group = sorted((line for line in lines if line["group"] == group), key=lambda line: str(line["case"]))
        rows += [_row(line["case"], [line]) for line in of_group]
        rows.append(_row(f"mean of {len(of_group)}: {group}", of_group))
    head = ("device", *(f"{what}, {title}" for what in ("rank correlation", "error") for title in TITLES.values()))
    return (
        f"## Networks of NAS-Bench-201 from ten measurements\n\n`python tests/benchmarks/{NAME}.py --tables FOLDER`: "
        f"{lines[0]['networks']} networks on each device (latencies published with HELP, arXiv:2106.08630), 20 draws of "
        "ten, from the device `host`. HELP's own rank correlation, with a network that was trained on other devices' latencies, is "
        f"{_HELP} (commit {commits(lines)}).\n\n{table(head, rows)}"
    )


def _row(name: str, lines: list[dict[str, Any]]) -> tuple[str, ...]:
    ranks = [f"{mean(line['rank_correlation'][rule] for line in lines):.2f}" for rule in TITLES]
    off = [f"{mean(line['mean_error'][rule] for line in lines):.0%}" for rule in TITLES]
    return (name, *ranks, *off)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--tables", type=Path, required=True)
    options = parser.parse_args()
    path = options.tables / "nb201_latency_help.csv"
    devices = [name.removeprefix(_PREFIX) for name in _rows(path)[0] if name.startswith(_PREFIX)]
    extend(NAME, [(device, 0) for device in devices], lambda name, seed: measure(path, name, seed), options.minutes)


if __name__ == "__main__":
    main()
