"""Devices as JSON types and as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hw_profiles import Device
from hw_profiles.cost_model.kernel_costs import quantity_names
from hw_profiles.devices.facts import NINETY
from hw_profiles.devices.machine import matches_this_machine
from hw_profiles.latency.estimate import prediction_deviation
from nas.commands.output.text_table import aligned, printable, short, wrapped

_FIELDS = ("name", "description", "runtime", "threads", "channel_multiple", "measurable", "source")
_HEAD = ("device", "core", "MHz", "RAM", "flash", "runtime", "threads", "fp32 ±", "int8 ±", "power")
_CORE_WIDTH = 20
_BELOW = " " * 15  # further lines of a fact, below the text of the first
_UNITS = {"ram_bytes": "B", "flash_bytes": "B", "runtime_ram_bytes": "B", "runtime_flash_bytes": "B",
          "clock_mhz": "MHz", "active_power_mw": "mW", "idle_power_mw": "mW"}  # fmt: skip


def device_facts(device: Device) -> dict[str, Any]:
    """A device as JSON types, without its kernel costs; ``deviation`` is the relative error of its estimates.

    >>> from hw_profiles import load_device
    >>> device_facts(load_device("host"))["precisions"]
    ['fp32', 'int8']
    """
    return {
        **{name: getattr(device, name) for name in _FIELDS},
        "precisions": list(device.costs),
        "calibrated": list(device.calibrated),
        "conditions": dict(device.conditions),
        "measured_on_this_machine": device.measurable and matches_this_machine(device.conditions, device.threads),
        "deviation": {precision: prediction_deviation(device, precision) for precision in device.costs},
        "facts": {name: {**asdict(fact), "assumed": fact.assumed} for name, fact in device.facts.items()},
        "held_out": {precision: asdict(held_out) for precision, held_out in device.held_out.items()},
    }


def kernel_costs(device: Device) -> dict[str, dict[str, dict[str, Any]]]:
    """The cost of each kind of kernel in each precision, and the number of its correction points.

    >>> from hw_profiles import load_device
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


def device_table(devices: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each device: its clock, memory, the interval of its estimates, its power.

    >>> from hw_profiles import load_device
    >>> device_table([device_facts(load_device("stm32f746"))])[1].split()[:2]
    ['stm32f746', '216']
    """
    rows = [_row(facts) for facts in devices]
    signs = (
        "±: 90% interval of the latency estimates, as a percentage or a factor (x2); ~: assumed value; power: while "
        "computing; sources: `nas devices show NAME`"
    )
    return [*aligned(_HEAD, rows, left=2, optional=("core", "threads", "flash")), "", *wrapped(signs)]


def _row(facts: dict[str, Any]) -> list[str]:
    known = facts["facts"]
    core = known["core"]["value"] if "core" in known else facts["conditions"].get("cpu", "")
    return [
        printable(facts["name"]),
        printable(_start(core, _CORE_WIDTH)),
        _amount(known.get("clock_mhz"), ""),
        _amount(known.get("ram_bytes"), "B"),
        _amount(known.get("flash_bytes"), "B"),
        facts["runtime"],
        str(facts["threads"]),
        *(_interval(facts["deviation"].get(precision)) for precision in ("fp32", "int8")),
        _power(known.get("active_power_mw")),
    ]


def _start(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _amount(fact: dict[str, Any] | None, unit: str) -> str:
    if fact is None:
        return ""
    about = "~" if fact["assumed"] else ""
    return f"{about}{short(fact['value'])}{unit}" if unit else f"{about}{fact['value']:g}"


def _power(fact: dict[str, Any] | None) -> str:
    if fact is None:
        return ""
    mw = fact["value"]
    return f"{'~' if fact['assumed'] else ''}{mw / 1000:.3g}W" if mw >= 1000 else _amount(fact, "mW")


def _interval(deviation: float | None) -> str:
    """The end of a 90% interval: a percentage while that is small, otherwise a factor.

    >>> _interval(0.05), _interval(0.42137), _interval(None)
    ('9%', 'x2', '')
    """
    if deviation is None:
        return ""
    factor = math.exp(NINETY * deviation)
    return f"{100 * (factor - 1):.0f}%" if factor < 1.95 else f"x{factor:.2g}"


def device_lines(facts: dict[str, Any]) -> list[str]:
    """The facts of a device for a terminal, each with its source."""
    measured = ", ".join(f"{name} {value}" for name, value in facts["conditions"].items())
    off = ", ".join(f"{100 * deviation:.1f}% ({name})" for name, deviation in facts["deviation"].items())
    lines = [
        f"{facts['name']}: {facts['description']}",
        f"  precisions   {', '.join(facts['precisions'])}",
        f"  source       {facts['source']}",
        f"  measured on  {measured or 'not stated'}",
        f"  this machine {_here(facts)}",
        f"  estimates    standard deviation of the error: {off}",
        *_missed(facts["held_out"]),
        *(_fact_line(name, fact) for name, fact in facts["facts"].items()),
    ]
    return [line for each in lines for line in wrapped(printable(each), further=_BELOW)]


def _missed(held_out: dict[str, Any]) -> list[str]:
    if not held_out:
        return []
    return [
        f"  {precision} error   mean {100 * found['mean_error']:.1f}% on {found['networks']} published networks from "
        f"{found['families']} families, leave-one-family-out (number of MACs alone: "
        f"{100 * found['macs_error']:.1f}%); coverage of the 90% interval: {100 * found['within_interval']:.0f}%"
        for precision, found in held_out.items()
    ]


def _fact_line(name: str, fact: dict[str, Any]) -> str:
    value = fact["value"]
    amount = value if isinstance(value, str) else f"{value:,g}" if isinstance(value, float) else f"{value:,}"
    if not isinstance(value, str) and fact["low"] != fact["high"]:
        amount += f" ({fact['low']:,g} to {fact['high']:,g})"
    note = f"; {fact['note']}" if fact["note"] else ""
    return f"  {name}  {amount} {_UNITS.get(name, '')}".rstrip() + f"{note} [{fact['source']}]"


def _here(facts: dict[str, Any]) -> str:
    if not facts["measurable"]:
        return "is not this device; latency is always estimated"
    if facts["measured_on_this_machine"]:
        return "matches the measurement conditions"
    return "does not match; run `nas devices measure --out FILE.toml` to create a device file for it"
