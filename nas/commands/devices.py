"""``nas devices``: list the devices, show one, check or measure this machine, calibrate one with measured latencies."""

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path

from compress.atomic_files import json_text
from hw_profiles import list_devices, load_device
from hw_profiles.cost_model.features import family
from hw_profiles.cost_model.kernel_costs import quantity_names
from hw_profiles.device_kit.kit_results import device_of_result, read_result
from hw_profiles.devices.device_file import save_device
from hw_profiles.devices.device_runtimes import with_runtime
from nas.commands.device_kit import check_device, measure_remote, precisions_of, print_device, write_device_kit
from nas.commands.latency_table import calibrated, read_latencies
from nas.commands.output.device_text import device_facts, device_lines, device_table, kernel_costs
from nas.commands.output.text_table import aligned, printable, wrapped
from nas.commands.profile_facts import parse_shape
from nas.config import quantity
from nas.errors import InputError, user_input

_MOST_THREADS = 1024
_DEFAULT_TIME = "10min"
_BASE, _NO_BASE = "host", "none"


def run_devices(parsed: Namespace) -> None:
    """List, show, measure or calibrate, as the command line says.

    Raises:
        InputError: no such device, or an option that is missing or wrong.
    """
    verbs = {
        None: _list, "show": _show, "check": check_device, "measure": _measure, "kit": write_device_kit,
        "calibrate": _calibrate,
    }  # fmt: skip
    verbs[parsed.what](parsed)


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
            print(
                "",
                *wrapped(
                    f"{precision}, {name}: fitted cost coefficients in µs (start: per kernel launch; m...: per "
                    "million; ..._mb: per megabyte)"
                ),
                sep="\n",
            )
            head = ["kind", *quantity_names(name), "points"]
            rows = [
                [printable(kind.partition("/")[2]), *(_coefficient(value) for value in row["coefficients"].values()),
                 str(row["points"])]
                for kind, row in kinds.items()
            ]  # fmt: skip
            print("\n".join(aligned(head, rows, left=1, fill=0, optional=("points",))))


def _coefficient(value: float) -> str:
    """
    >>> [_coefficient(value) for value in (0.07849, 62.63, 1026.4)]
    ['0.078', '62.6', '1026']
    """
    return f"{value:.3f}" if value < 1 else f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def _measure(parsed: Namespace) -> None:
    out = _out(parsed)
    if not 1 <= parsed.threads <= _MOST_THREADS:
        raise InputError(f"--threads must be between 1 and {_MOST_THREADS}, got {parsed.threads}")
    with user_input():
        seconds = quantity("time", parsed.time or _DEFAULT_TIME)
    if parsed.ssh is not None:
        measure_remote(parsed, out, seconds)
        return
    if parsed.ssh_config is not None:
        raise InputError("--ssh-config requires --ssh: without it, this machine is measured")
    from hw_profiles.measurement.device_measurement import measure_device
    from nas.commands.benchmark_networks import space_network

    with user_input():
        prior = None if parsed.base == _NO_BASE else with_runtime(parsed.base or _BASE, "ort")
        device = measure_device(
            out, seconds=seconds, threads=parsed.threads, precisions=precisions_of(parsed.precision),
            typical=space_network, prior=prior,
        )  # fmt: skip
    facts = device_facts(device)
    if parsed.json:
        print(json_text({**facts, "file": str(out)}))
        return
    print("\n".join(device_lines(facts)))
    print(f"  file         {printable(out)}\nto use it: nas profile resnet8 --device {shlex.quote(printable(out))}")


def _out(parsed: Namespace) -> Path:
    if parsed.out is None:
        raise InputError("--out is required: the device file to write, e.g. --out my.toml")
    out = Path(parsed.out)
    if out.is_dir():
        raise InputError(f"--out must be a .toml file, got the folder {str(out)!r}")
    if out.suffix != ".toml":
        raise InputError(f"--out must be a .toml file, got {str(out)!r}")
    return out


def _calibrate(parsed: Namespace) -> None:
    out = _out(parsed)
    if parsed.base is None or parsed.table is None:
        raise InputError(
            "--base and --from are required: the device to start from, and a table of latencies or result.json"
        )
    if parsed.table.casefold().endswith(".json"):
        _calibrate_by_kit(parsed, out)
        return
    with user_input():
        shape = None if parsed.input_shape is None else parse_shape(parsed.input_shape)
        base = with_runtime(parsed.base, parsed.runtime)
        found = calibrated(base, read_latencies(Path(parsed.table)), shape, parsed.name or out.stem)
        save_device(out, found.device)
    print_device(found, out, parsed.json)


def _calibrate_by_kit(parsed: Namespace, out: Path) -> None:
    with user_input():
        result = read_result(Path(parsed.table))
        if parsed.runtime not in (None, result.runtime):
            raise InputError(f"--runtime must be that of {parsed.table}, {result.runtime}, got {parsed.runtime!r}")
        found = device_of_result(with_runtime(parsed.base, result.runtime), result, parsed.name or out.stem)
        save_device(out, found.device)
    print_device(found, out, parsed.json)
