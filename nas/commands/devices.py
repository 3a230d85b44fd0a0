"""``nas devices``: list the devices, show one, measure this machine, calibrate one with a table of latencies."""

from __future__ import annotations

import logging
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.atomic_files import json_text, write_text
from hw_profiles import list_devices, load_device
from hw_profiles.cost_model.features import family
from hw_profiles.cost_model.kernel_costs import quantity_names
from hw_profiles.devices.device_file import to_toml
from nas.commands.latency_table import calibrated, read_latencies
from nas.commands.output.device_text import device_facts, device_lines, device_table, kernel_costs
from nas.commands.output.text_table import aligned, printable
from nas.commands.profile_facts import parse_shape
from nas.config import quantity
from nas.errors import InputError, user_input

_MOST_THREADS = 1024
_DEFAULT_TIME = "10min"


def run_devices(parsed: Namespace) -> None:
    """List, show, measure or calibrate, as the command line says.

    Raises:
        InputError: no such device, or an option that is missing or wrong.
    """
    {None: _list, "show": _show, "measure": _measure, "calibrate": _calibrate}[parsed.what](parsed)


def _list(parsed: Namespace) -> None:
    found = [device_facts(load_device(name)) for name in list_devices()]
    print(json_text(found) if parsed.json else "\n".join(device_table(found)))


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


def _measure(parsed: Namespace) -> None:
    from hw_profiles.measurement.device_measurement import measure_device
    from nas.commands.benchmark_networks import space_network

    out = _out(parsed)
    if not 1 <= parsed.threads <= _MOST_THREADS:
        raise InputError(f"--threads must be in 1..{_MOST_THREADS}, got {parsed.threads}")
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


def _out(parsed: Namespace) -> Path:
    if parsed.out is None:
        raise InputError(f"devices {parsed.what} needs --out, the device file to write, such as --out my.toml")
    out = Path(parsed.out)
    if out.is_dir():
        raise InputError(f"--out must be a .toml file, got the folder {str(out)!r}")
    return out


def _calibrate(parsed: Namespace) -> None:
    out = _out(parsed)
    if parsed.base is None or parsed.table is None:
        raise InputError("devices calibrate needs --base, the device to start from, and --from, a table of latencies")
    with user_input():
        shape = None if parsed.input_shape is None else parse_shape(parsed.input_shape)
        base = load_device(parsed.base)
        found = calibrated(base, read_latencies(Path(parsed.table)), shape, parsed.name or out.stem)
        write_text(out, to_toml(found.device))
    facts = device_facts(found.device)
    if parsed.json:
        print(json_text({**facts, "file": str(out), "used": found.used, "set_aside": found.set_aside}))
        return
    print("\n".join(device_lines(facts)))
    for precision, error in found.left_out_errors.items():
        print(f"  {precision:<11}  mean error of each network estimated from the others: {100 * error:.1f} %")
    for said in found.set_aside:
        print(f"  set aside    {printable(said)}")
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
