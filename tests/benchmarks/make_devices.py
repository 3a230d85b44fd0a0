"""Writes the device files that ship, from tables of published facts and latencies.

python tests/benchmarks/make_devices.py --tables FOLDER [--only NAME] [--out hw_profiles/devices]
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from hw_profiles import Device
from hw_profiles.cost_model.features import LAYER_KINDS
from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.devices.device_file import shipped_device, to_toml
from hw_profiles.devices.facts import ASSUMED, FACTS, NINETY, Fact, HeldOut
from tests.benchmarks.published.c99_cycles import c99_facts
from tests.benchmarks.published.devices import SPECS, Spec, Tables
from tests.benchmarks.published.fits import deviation_of, fitted, leave_families_out, mean_error, pooled
from tests.benchmarks.published.tables import Published, rows

_FACTOR_OF_TWO = math.log(2) / NINETY
_NAMES = {"nn_feature": "instructions", "simd": "instructions"}
_OF_THE_RUNTIME = ("dead_channels", "runtime_ram_bytes", "runtime_flash_bytes")
_NO_ADDRESS = "index "  # of a text that no reader can open
_FEW_FAMILIES, _FEW_NETWORKS = 3, 4


def facts_of(spec: Spec, folder: Path) -> dict[str, Fact]:
    """What the table of facts says of a device; what it names no source for is assumed."""
    found: dict[str, Fact] = {}
    with (folder / "devices.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = _NAMES.get(row["property"], row["property"])
            if row["device"] != spec.facts_of or name not in FACTS or name in spec.facts or not row["value"]:
                continue
            path, commit = row["source_path"], row["source_commit"][:10]
            source = " ".join(
                part for part in (row["source"], path if path != row["source"] else "", commit and f"@{commit}") if part
            )
            value = row["value"] if FACTS[name] is str else _numeric(row["value"], FACTS[name])
            if value is not None:
                sourced = row["source_kind"] in ("primary", "secondary") and not source.startswith(_NO_ADDRESS)
                found[name] = Fact(value=value, source=source if sourced and source else ASSUMED)
    found |= {**spec.facts, **c99_facts(spec.name)}
    if spec.measured_with:
        found["measured_with"] = Fact(value=spec.measured_with, source="the published latencies of `source`")
    return {name: found[name] for name in FACTS if name in found}


def _numeric(text: str, kind: type) -> float | int | None:
    try:
        return int(float(text)) if kind is int else float(text)
    except ValueError:
        return None


def matching(measured: Sequence[Published], names: Sequence[str], runtime: str, precision: str) -> list[Published]:
    """The rows of the tables whose names hold one of these."""
    return [row for row in measured if row.runtime == runtime and row.precision == precision
            and any(name in row.table for name in names)]  # fmt: skip


def costs_of(
    spec: Spec, precision: str, tables: Tables, measured: Sequence[Published]
) -> tuple[dict[str, KernelCost], float, HeldOut | None, list[str]]:
    """Costs, spread, how far estimates missed families that were left out, and sources."""
    own = matching(measured, tables.own, spec.runtime, precision)
    of_own = {row.table for row in own}
    alike = [row for row in matching(measured, tables.alike, spec.runtime, precision) if row.table not in of_own]
    base = pooled(alike, precision)
    fit_to = own or alike
    if not fit_to:
        raise SystemExit(f"{spec.name}: no row of {tables} in {precision}")
    scaling = fitted(fit_to, base)
    costs = {kind: _sane(cost) for kind, cost in scaling.apply(base).items()}
    left_out = leave_families_out(fit_to, base)
    families = len({row.family for row in fit_to})
    deviation = max([scaling.deviation, *([deviation_of(left_out)] if left_out else [])])
    if len(own) < _FEW_NETWORKS or families < _FEW_FAMILIES:  # other families may differ more than these do
        deviation = max(deviation, _FACTOR_OF_TWO)
    sources = sorted({row.source for row in fit_to})
    held_out = None
    if own and left_out:
        error, macs_error, within = mean_error(left_out)
        held_out = HeldOut(
            networks=len(left_out), families=families, mean_error=round(error, 4), macs_error=round(macs_error, 4),
            within_interval=round(within, 3), source="; ".join(sources)[:400],
        )  # fmt: skip
    return costs, deviation, held_out, sources


def _sane(cost: KernelCost) -> KernelCost:
    return replace(cost, doubt=min(cost.doubt, 1.0))


def make(spec: Spec, folder: Path, measured: Sequence[Published], made: Mapping[str, Device]) -> Device:
    """A device as its file will say."""
    facts = facts_of(spec, folder)
    costs: dict[str, dict[str, KernelCost]] = {}
    spread: dict[str, float] = {}
    held_out: dict[str, HeldOut] = {}
    sources: list[str] = []
    if spec.borrows:
        base = made[spec.borrows]
        ratio = _clock(base.facts) / _clock(facts) * spec.slower
        costs["int8"] = {kind: _times(cost, ratio) for kind, cost in base.costs["int8"].items()}
        spread["int8"] = max(_FACTOR_OF_TWO * (1.0 if spec.slower == 1.0 else 1.6), base.spread["int8"])
        other = (
            "" if spec.slower == 1.0 else f", taken to be {1 / spec.slower:g} times as fast at the same clock (assumed)"
        )
        sources = [
            f"no published latency; the costs of {base.name} by clock{other}; {base.source.partition('; fp32:')[0]}"
        ]
        facts |= {name: base.facts[name] for name in _OF_THE_RUNTIME if name in base.facts}
        if "measured_with" in base.facts:
            facts["measured_with"] = Fact(
                value=f"{base.facts['measured_with'].value} on {base.name}",
                source="the published latencies of `source`",
            )
    for precision, tables in spec.tables.items():
        costs[precision], spread[precision], found, named = costs_of(spec, precision, tables, measured)
        sources += [each for each in named if each not in sources]
        if found is not None:
            held_out[precision] = found
    if spec.float_factor and "fp32" not in costs:
        costs["fp32"] = {kind: _times(cost, spec.float_factor) for kind, cost in costs["int8"].items()}
        spread["fp32"] = max(2 * _FACTOR_OF_TWO, spread["int8"])
        sources.append(f"fp32: {spec.float_factor:g} times int8, assumed")
    return Device(
        name=spec.name, description=spec.description, runtime=spec.runtime, threads=spec.threads,
        channel_multiple=8 if spec.runtime != "c99" else 4, measurable=False, source="; ".join(sources),
        conditions={"cpu": str(facts["core"].value) if "core" in facts else spec.description}, costs=costs,
        spread={precision: round(value, 4) for precision, value in spread.items()}, facts=facts, held_out=held_out,
    )  # fmt: skip


def x86(host: Device) -> Device:
    """Any x86-64 with VNNI: the machine that the shipped measurements were made on, at least a factor of two either
    way.
    """
    return replace(
        host, name="x86-64-vnni", description="x86-64 with AVX-512 VNNI, ONNX Runtime, one thread", measurable=False,
        source=f"costs of the device host ({host.description}), of another machine: {host.source}", reference_ms=None,
        spread={precision: round(max(_FACTOR_OF_TWO, spread), 4) for precision, spread in host.spread.items()},
        facts={
            "core": Fact(value="x86-64 with AVX-512 VNNI", source=ASSUMED),
            "instructions": Fact(value="AVX-512, VNNI (int8 dot product)", source=ASSUMED),
            "measured_with": Fact(value="ONNX Runtime 1.32, one thread", source="nas devices measure"),
            "active_power_mw": Fact(value=15000.0, source=ASSUMED, note="one busy core and its share of the chip"),
        },
        conditions={name: value for name, value in host.conditions.items() if name != "date"},
    )  # fmt: skip


def _clock(facts: Mapping[str, Fact]) -> float:
    value = facts["clock_mhz"].value
    assert not isinstance(value, str)
    return float(value)


def _times(cost: KernelCost, factor: float) -> KernelCost:
    return replace(cost, coefficients=tuple(each * factor for each in cost.coefficients))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--only")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "hw_profiles" / "devices")
    options = parser.parse_args()
    measured = rows(options.tables)
    made: dict[str, Device] = {}
    for spec in SPECS:
        if options.only in (None, spec.name) or spec.name in {each.borrows for each in SPECS}:
            device = made[spec.name] = make(spec, options.tables, measured, made)
            (options.out / f"{spec.name}.toml").write_text(to_toml(device))
            missed = {
                p: (h.networks, h.families, h.mean_error, h.macs_error, h.within_interval)
                for p, h in device.held_out.items()
            }
            print(spec.name, device.spread, missed, len(LAYER_KINDS))
    if options.only in (None, "x86-64-vnni"):
        text = to_toml(x86(shipped_device("host"))).partition("\n[costs.")[0]
        head, newline, rest = text.partition("\n\n")
        (options.out / "x86-64-vnni.toml").write_text(f'{head}\ncosts = "host"{newline}{rest}')


if __name__ == "__main__":
    main()
