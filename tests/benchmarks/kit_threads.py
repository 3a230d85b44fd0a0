"""The kit on this machine with other numbers of threads, each taken as another device: errors before and after it.

    python tests/benchmarks/kit_threads.py --minutes 30 [--threads 1,2] [--networks 12] [--kit 20]

It needs a quiet machine: with several threads the time that passes counts. Each line is one number of threads: the
networks of the kit are run (``seconds``), ``host`` is corrected by them, and networks of the search spaces that are not
in the kit are run and compared with the estimates of ``host`` as it ships and as it was corrected. A line that is there
is skipped, so the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from hw_profiles import Device, profile
from hw_profiles.device_kit.kit_networks import kit_names
from hw_profiles.device_kit.kit_results import KitResult, device_of_result
from hw_profiles.device_kit.machine_check import kit_times
from hw_profiles.devices.device_file import shipped_device
from hw_profiles.devices.machine import conditions
from hw_profiles.measurement.latency_measurement import measure_here, reference_ms
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.tensor_formats import PRECISIONS
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import Arch, list_spaces
from tests.benchmarks.lines import extend, latest_by_case
from tests.benchmarks.markdown import commits, table
from tests.benchmarks.predictor import network

NAME = "kit_threads"
_CLOSE = 0.1


def measure(threads: int, networks: int, kit: int) -> dict[str, Any]:
    started = time.monotonic()
    host, nominal = shipped_device("host"), round(reference_ms(threads), 6)
    times = kit_times(kit_names()[:kit], PRECISIONS, threads, nominal)
    result = KitResult(conditions=conditions(threads), runtime=host.runtime, reference_ms=nominal, times=tuple(times))
    corrected = device_of_result(host, result, f"threads-{threads}", measurable=True).device
    seconds = time.monotonic() - started
    others = [network(space, seed)[0] for seed in range(networks) for space in list_spaces()][:networks]
    line: dict[str, Any] = {"threads": threads, "kit": kit, "networks": networks, "seconds": round(seconds, 1)}
    for precision in PRECISIONS:
        measured = [measured_ms(arch, precision, threads, nominal) for arch in others]
        for name, device in (("before", replace(host, threads=threads)), ("after", corrected)):
            line[f"{precision}_{name}"] = _errors(device, precision, others, measured)
    return line


def measured_ms(arch: Arch, precision: str, threads: int, nominal: float) -> float:
    """A network of a space on this machine."""
    workload = arch.workload()
    file = write_onnx(workload, quantization=fixed_quantization(workload) if precision == "int8" else None)
    return measure_here(file, threads, nominal).ms


def _errors(device: Device, precision: str, archs: Sequence[Arch], measured: Sequence[float]) -> dict[str, float]:
    found = [profile(arch, device, precision) for arch in archs]
    off = [abs(each.latency_ms / ms - 1) for each, ms in zip(found, measured, strict=True)]
    held = [each.latency_low_ms <= ms <= each.latency_high_ms for each, ms in zip(found, measured, strict=True)]
    return {
        "mean_error": round(mean(off), 4), "median_error": round(median(off), 4),
        "within_10_percent": round(mean(each <= _CLOSE for each in off), 3), "within_interval": round(mean(held), 3),
    }  # fmt: skip


def kit_threads() -> str:
    """The section of docs/benchmarks.md."""
    lines = [found[-1] for found in latest_by_case(NAME).values()]
    if not lines:
        return ""
    rows = [
        (line["case"], precision, line["networks"], line["seconds"],
         *(f"{line[f'{precision}_{when}']['mean_error']:.1%}" for when in ("before", "after")),
         *(f"{line[f'{precision}_{when}']['within_10_percent']:.0%}" for when in ("before", "after")),
         f"{line[f'{precision}_after']['within_interval']:.0%}")
        for line in lines for precision in PRECISIONS
    ]  # fmt: skip
    head = ("this machine with", "precision", "networks", "seconds of the kit", "error before", "after",
            "within 10 % before", "after", "in the 90 % interval after")  # fmt: skip
    return (
        f"## The kit with other numbers of threads\n\n`python tests/benchmarks/{NAME}.py`: the shipped device `host` as "
        "it is, and corrected by the networks of the kit; the networks that are estimated are samples of the search "
        f"spaces (commit {commits(lines)}).\n\n{table(head, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", help="comma-separated (default: 1 to the number of processors)")
    parser.add_argument("--networks", type=int, default=12, help="that are estimated, in each precision")
    parser.add_argument("--kit", type=int, default=len(kit_names()), help="networks of the kit that are run")
    given = parser.parse_args()
    counts = [int(each) for each in given.threads.split(",")] if given.threads else range(1, (os.cpu_count() or 1) + 1)
    cases = {f"{threads} thread{'s'[: threads > 1]}": threads for threads in counts}
    extend(
        NAME, [(case, 0) for case in cases],
        lambda case, seed: measure(cases[case], given.networks, given.kit), given.minutes,
    )  # fmt: skip


if __name__ == "__main__":
    main()
