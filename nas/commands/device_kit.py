"""``nas devices kit``, ``check`` and ``measure --ssh``: networks whose times say what machine they ran on."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.atomic_files import json_text, write_bytes
from hw_profiles import Device, load_device
from hw_profiles.device_kit.kit_files import SCRIPT, kit_contents, write_kit
from hw_profiles.device_kit.kit_results import CalibratedDevice, device_of_result, parse_result
from hw_profiles.device_kit.machine_check import MachineCheck, check_machine
from hw_profiles.device_kit.remote_machine import RemoteMachine
from hw_profiles.devices.device_file import save_device
from hw_profiles.devices.device_runtimes import with_runtime
from nas.commands.output.device_text import device_facts, device_lines
from nas.commands.output.text_table import aligned, printable, wrapped
from nas.errors import InputError, user_input

_HEAD = ("network", "precision", "measured ms", "estimated ms", "90% interval", "error")


def write_device_kit(parsed: Namespace) -> None:
    """Write the kit into a folder, and say what to do with it.

    Raises:
        InputError: no folder was given, or one that holds something.
    """
    if parsed.out is None:
        raise InputError("--out is required: the folder to write, e.g. --out kit")
    out = Path(parsed.out)
    with user_input():
        files = _written(out, parsed)
    size = sum(file.stat().st_size for file in files)
    if parsed.json:
        print(json_text({"folder": str(out), "files": [str(file.relative_to(out)) for file in files], "bytes": size}))
        return
    print(f"{len(files)} files, {size / 1e6:.1f} MB: {printable(out)}")
    if parsed.board:
        print("its README.md explains how to build and run it on a board")
        base = "--base stm32f746 --runtime c99"
    else:
        print(f"copy the folder to the device and run there: python3 {SCRIPT}   (needs Python and onnxruntime)")
        base = "--base host"
    print(f"then copy result.json back and run here: nas devices calibrate {base} --from result.json --out my.toml")


def _written(out: Path, parsed: Namespace) -> tuple[Path, ...]:
    if not parsed.board:
        return write_kit(out, precisions_of(parsed.precision))
    from compress.c99.board_kit import write_board_kit

    return write_board_kit(out)


def precisions_of(text: str) -> tuple[str, ...]:
    """The precisions of an option such as ``fp32,int8``."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def check_device(parsed: Namespace) -> None:
    """Print whether the times of a device are those of this machine.

    Raises:
        InputError: no such device, or one that is not this machine.
    """
    with user_input():
        device = load_device(parsed.device)
        check = check_machine(device)
    if parsed.json:
        print(json_text(check_facts(check)))
    else:
        print("\n".join(printable(line) for line in check_lines(check, device)))


def check_facts(check: MachineCheck) -> dict[str, Any]:
    """A check as JSON types."""
    shares = {
        each: {
            "share_within_interval": check.share_within(each),
            "share_within_10_percent": check.share_close(each),
            "median_error": check.median_error(each),
        }
        for each in check.precisions
    }
    return {"holds": check.holds, "precisions": shares, "networks": [asdict(each) for each in check.times]}


def check_lines(check: MachineCheck, device: Device) -> list[str]:
    """A check for a terminal."""
    rows = [
        (each.network, each.precision, f"{each.measured_ms:.4g}", f"{each.estimated_ms:.4g}",
         f"{each.low_ms:.4g}..{each.high_ms:.4g}", f"{100 * each.error:+.1f}%")
        for each in check.times
    ]  # fmt: skip
    lines = [*aligned(_HEAD, rows, left=2, fill=0), ""]
    shares = [
        f"{each}: {100 * check.share_close(each):.0f}% of the estimates are within 10%, "
        f"{100 * check.share_within(each):.0f}% of the measurements within the 90% interval; median error "
        f"{100 * check.median_error(each):.1f}%"
        for each in check.precisions
    ]
    lines += [line for share in shares for line in wrapped(share, further="  ")]
    verdict = "match" if check.holds else "do NOT match"
    lines.append(f"the estimates of {device.name} {verdict} this machine")
    if not check.holds:
        lines.append("to create a device file for this machine: nas devices measure --out my.toml")
    return lines


def measure_remote(parsed: Namespace, out: Path, seconds: float) -> None:
    """Run the kit on another machine, and write its device file and, beside it, ``result.json`` as it came.

    Raises:
        InputError: the machine cannot be reached, or its times make no device.
    """
    config = None if parsed.ssh_config is None else Path(parsed.ssh_config)
    with user_input():
        machine = RemoteMachine(destination=parsed.ssh, config=config, python=parsed.remote_python)
        base = with_runtime(parsed.base or "host", "ort")
        contents = kit_contents(precisions_of(parsed.precision))
        data = machine.run_kit(contents, threads=parsed.threads, seconds=seconds)
        result = parse_result(data, f"result.json of {parsed.ssh}")
        kept = out.with_suffix(".result.json")
        write_bytes(kept, data)
        found = device_of_result(base, result, out.stem)
        save_device(out, found.device)
    print_device(found, out, parsed.json, (f"  latencies    {printable(kept)}",))


def print_device(found: CalibratedDevice, out: Path, as_json: bool, more: Sequence[str] = ()) -> None:
    """A device that was made of times, how well they agree, and which were not used."""
    facts = device_facts(found.device)
    if as_json:
        print(json_text({**facts, "file": str(out), "used": found.used, "set_aside": found.set_aside}))
        return
    print("\n".join(device_lines(facts)))
    for precision, error in found.left_out_errors.items():
        print(f"  {precision:<11}  mean leave-one-out error: {100 * error:.1f}%")
    for reason in found.set_aside:
        print(f"  not used     {printable(reason)}")
    for line in more:
        print(line)
    print(f"  file         {printable(out)}\nto use it: nas profile resnet8 --device {shlex.quote(printable(out))}")
