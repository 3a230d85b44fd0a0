"""``nas select``: the pretrained models of timm that meet a budget on a device."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.atomic_files import json_text
from hw_profiles.device_kit.first_use import device_here
from nas.commands.output.output_files import check_page
from nas.commands.output.text_table import aligned, printable, short, wrapped
from nas.config import budget_of
from nas.engine.infeasibility import cost_label, cost_text
from nas.errors import InputError, user_input
from nas.model_selection.measured_models import check_measurable, with_measurements
from nas.model_selection.zoo_selection import CAVEAT, SelectedModel, Selection, selection

_HEAD = ("#", "model", "px", "top-1 %", "ms", "90% interval", "RAM", "flash")
# In a narrow terminal these columns are left out, in this order; names are never cut, as they are there to be copied.
_OPTIONAL = ("90% interval", "RAM", "px", "flash")
_NAMED = 5  # models without costs that are named; the others are counted


def run_select(parsed: Namespace) -> None:
    """Print what the command line asks for, and write its page.

    Raises:
        InputError: no such device or precision, or a limit on what the device cannot say.
        NothingFitsError: no model meets the budget.
    """
    if parsed.html is not None:
        check_page(Path(parsed.html))
    for option, fewest in (("top", 1), ("measure", 0)):
        if getattr(parsed, option) < fewest:
            raise InputError(f"--{option} must be at least {fewest}, got {getattr(parsed, option)}")
    with user_input():
        device = device_here(parsed.device)
        budget = budget_of(latency=parsed.latency, ram=parsed.ram, flash=parsed.flash, energy=parsed.energy)
        if parsed.measure:
            check_measurable(device)
        found = selection(device, budget, parsed.precision)
        listed = with_measurements(found.ranked[: parsed.top], parsed.measure, device)
    print(json_text(selection_facts(found, listed)) if parsed.json else "\n".join(selection_lines(found, listed)))
    if parsed.html is not None:
        from compress.atomic_files import write_text
        from nas.commands.output.select_page import render_selection

        with user_input():
            write_text(
                Path(parsed.html),
                render_selection(found, listed, notes(found, any(model.measured for model in listed), on_a_page=True)),
            )
        print(f"page: {printable(parsed.html)}", file=sys.stderr if parsed.json else sys.stdout)


def selection_facts(found: Selection, listed: Sequence[SelectedModel]) -> dict[str, Any]:
    """Everything as JSON types."""
    return {
        "device": found.device.name,
        "precision": found.precision,
        "budget": found.budget.limits(),
        "accuracy": CAVEAT,
        "rows_within": len(found.within),
        "rows_beyond": len(found.beyond),
        "rows_too_large": len(found.too_large),
        "left_out": list(found.left_out),
        "models": [asdict(model) for model in listed],
        "front": [asdict(model) for model in found.front],
    }


def selection_lines(found: Selection, listed: Sequence[SelectedModel]) -> list[str]:
    """The table, with names as timm takes them, and what its columns mean."""
    energy, measured = _has_energy(listed), any(model.measured for model in listed)
    head = [*_HEAD, *(["mJ"] if energy else []), *(["measured ms"] if measured else [])]
    rows = [_row(place, model, energy, measured) for place, model in enumerate(listed, 1)]
    table = aligned(head, rows, left=2, optional=_OPTIONAL)
    return [printable(line) for line in (*table, *(line for note in notes(found, measured) for line in wrapped(note)))]


def notes(found: Selection, measured: bool, *, on_a_page: bool = False) -> list[str]:
    """What the columns of the table, or of the tables on the page, mean, and what was considered."""
    ms, px, front, all_of_it = "ms", "px", "*", " (see all with --json or --html)"
    if on_a_page:
        ms, px, front, all_of_it = "latency", "input", "bold rows", ""
    limits = ", ".join(
        f"{cost_label(name)} at most {cost_text(name, limit, 6)}" for name, limit in found.budget.limits().items()
    )
    total = len(found.within) + len(found.beyond) + len(found.too_large)
    lines = [
        f"top-1: {CAVEAT}",
        f"{ms}: estimated latency on {found.device.name} ({found.precision}); within the limit with 90% probability",
        f"{px}: input size; RAM: peak activation memory; flash: weight size; both include the runtime where known",
        f"{front}: on the Pareto front of top-1 accuracy and latency",
        f"limits: {limits or 'none'}; met by {len(found.within):,} of {total:,} published results",
        f"Pareto front: {len(found.front)} models{all_of_it}",
    ]
    if found.too_large:
        lines.append(f"weights and activations of {len(found.too_large)} of the others exceed the device's RAM")
    if measured:
        lines.append(
            f"measured{'' if on_a_page else ' ms'}: latency of the exported model (random weights) on this machine, "
            "with 90% interval"
        )
    if found.left_out:
        more = len(found.left_out) - _NAMED
        named = ", ".join(found.left_out[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"skipped (cost unknown): {named}")
    return lines


def _has_energy(listed: Sequence[SelectedModel]) -> bool:
    return any(model.energy_mj is not None for model in listed)


def _row(place: int, model: SelectedModel, energy: bool, measured: bool) -> list[str]:
    cells = [
        f"{place}{'*' if model.on_front else ''}",
        model.name,
        str(model.input_shape[-1]),
        f"{100 * model.published_top1:.3f}",
        f"{model.latency_ms:.4g}",
        f"{model.latency_low_ms:.4g}..{model.latency_high_ms:.4g}",
        f"{short(model.peak_ram_bytes)}B",
        f"{short(model.flash_bytes)}B",
    ]
    if energy:
        cells.append("-" if model.energy_mj is None else f"{model.energy_mj:.3g}")
    if measured:
        cells.append("-" if model.measured is None else _interval(model))
    return cells


def _interval(model: SelectedModel) -> str:
    assert model.measured is not None
    return f"{model.measured.ms:.4g} ({model.measured.low_ms:.4g}..{model.measured.high_ms:.4g})"
