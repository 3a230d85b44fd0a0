"""``nas devices``: list the devices, show one, measure this machine."""

from __future__ import annotations

import logging
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.atomic_files import json_text
from hw_profiles import Device, list_devices, load_device
from hw_profiles.cost_model.features import family
from hw_profiles.cost_model.kernel_costs import quantity_names
from hw_profiles.devices.machine import matches_this_machine
from hw_profiles.latency.estimate import prediction_deviation
from nas.commands.text_table import aligned, printable
from nas.config import quantity
from nas.errors import InputError, user_input

_FACTS = ("name", "description", "runtime", "threads", "channel_multiple", "measurable", "source")
_MOST_THREADS = 1024
_DEFAULT_TIME = "10min"


def run_devices(parsed: Namespace) -> None:
    """List, show or measure, as the command line says.

    Raises:
        InputError: no such device, or an option of ``measure`` that is missing or wrong.
    """
    {None: _list, "show": _show, "measure": _measure}[parsed.what](parsed)


def device_facts(device: Device) -> dict[str, Any]:
    """A device as JSON types, without its kernel costs; ``deviation`` is the relative error of its estimates.

    >>> device_facts(load_device("host"))["precisions"]
    ['fp32', 'int8']
    """
    return {
        **{name: getattr(device, name) for name in _FACTS},
        "precisions": list(device.costs),
        "calibrated": list(device.calibrated),
        "conditions": dict(device.conditions),
        "measured_on_this_machine": device.measurable and matches_this_machine(device.conditions, device.threads),
        "deviation": {precision: prediction_deviation(device, precision) for precision in device.costs},
    }


def device_lines(facts: dict[str, Any]) -> list[str]:
    """The specification of a device for a terminal."""
    measured = ", ".join(f"{name} {value}" for name, value in facts["conditions"].items())
    off = ", ".join(f"{100 * deviation:.1f} % in {name}" for name, deviation in facts["deviation"].items())
    lines = [
        f"{facts['name']}: {facts['description']}",
        f"  precisions   {', '.join(facts['precisions'])}",
        f"  source       {facts['source']}",
        f"  measured on  {measured}",
        f"  this machine {_here(facts)}",
        f"  estimates    have an error of {off} (standard deviation)",
    ]
    return [printable(line) for line in lines]


def _here(facts: dict[str, Any]) -> str:
    if not facts["measurable"]:
        return "is another one: latency is estimated, never measured"
    if facts["measured_on_this_machine"]:
        return "has the conditions of the measurement"
    return "has other conditions: `nas devices measure --out FILE.toml` writes a file for it"


def _list(parsed: Namespace) -> None:
    found = [device_facts(load_device(name)) for name in list_devices()]
    text = "\n\n".join("\n".join(device_lines(facts)) for facts in found)
    print(json_text(found) if parsed.json else text)


def _show(parsed: Namespace) -> None:
    with user_input():
        device = load_device(parsed.device)
    if parsed.json:
        print(json_text({**device_facts(device), "costs": kernel_costs(device)}))
        return
    print("\n".join(device_lines(device_facts(device))))
    for precision, table in kernel_costs(device).items():
        for name in dict.fromkeys(map(family, table)):
            kinds = {kind: row for kind, row in table.items() if family(kind) == name}
            print(f"\n{precision}, {name}: microseconds per start, and per million or megabyte of each other quantity")
            head = ["kind", *quantity_names(name), "points"]
            rows = [
                [printable(kind.partition("/")[2]), *(f"{value:.4g}" for value in row["coefficients"].values()),
                 str(row["points"])]
                for kind, row in kinds.items()
            ]  # fmt: skip
            print("\n".join(aligned(head, rows, left=1)))


def kernel_costs(device: Device) -> dict[str, dict[str, dict[str, Any]]]:
    """The cost of each kind of kernel in each precision, and the number of its correction points.

    >>> kernel_costs(load_device("host"))["fp32"]["call/call"]["points"]
    0
    """
    return {
        precision: {
            kind: {
                "coefficients": dict(zip(quantity_names(kind), cost.coefficients, strict=True)),
                "points": len(cost.points),
            }
            for kind, cost in table.items()
        }
        for precision, table in device.costs.items()
    }


def _measure(parsed: Namespace) -> None:
    from hw_profiles.measurement.device_measurement import measure_device
    from nas.commands.benchmark_networks import space_network

    if parsed.out is None:
        raise InputError("devices measure needs --out, the device file to write, such as --out my.toml")
    if not 1 <= parsed.threads <= _MOST_THREADS:
        raise InputError(f"--threads must be in 1..{_MOST_THREADS}, got {parsed.threads}")
    out = Path(parsed.out)
    if out.is_dir():
        raise InputError(f"--out must be a .toml file, got the folder {str(out)!r}")
    precisions = tuple(dict.fromkeys(name.strip() for name in parsed.precision.split(",")))
    with user_input(), _progress():
        seconds = quantity("time", parsed.time or _DEFAULT_TIME)
        device = measure_device(
            out, seconds=seconds, threads=parsed.threads, precisions=precisions, typical=space_network
        )
    facts = device_facts(device)
    if parsed.json:
        print(json_text({**facts, "file": str(out)}))
        return
    print("\n".join(device_lines(facts)))
    print(f"  file         {printable(out)}\nto use it: nas profile resnet8 --device {shlex.quote(printable(out))}")


@contextmanager
def _progress() -> Iterator[None]:
    """Show the log of a measurement on stderr."""
    log = logging.getLogger("fitnas")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("nas: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
