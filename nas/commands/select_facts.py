"""What ``nas select`` found, as JSON types, and what must be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nas.model_selection.zoo_selection import CAVEAT, SelectedModel, Selection

_NAMED = 5  # models without costs that are named; the others are counted


def selection_facts(found: Selection, listed: Sequence[SelectedModel]) -> dict[str, Any]:
    """Everything as JSON types."""
    return {
        "device": found.device.name,
        "precision": found.precision,
        "budget": found.budget.limits(),
        "accuracy": CAVEAT,
        "rows_within": len(found.within),
        "rows_beyond": len(found.beyond),
        "left_out": list(found.left_out),
        "models": [asdict(model) for model in listed],
        "front": [asdict(model) for model in found.front],
    }


def notes(found: Selection, measured: bool) -> list[str]:
    """What the columns mean, and what was considered."""
    limits = ", ".join(f"{name} at most {limit:g}" for name, limit in found.budget.limits().items())
    total = len(found.within) + len(found.beyond)
    lines = [
        f"top-1: {CAVEAT}",
        f"ms: latency, estimated on {found.device.name} in {found.precision}; kept if the chance is 90 %",
        "px: side of the image; RAM: activations; flash: weights with their scales",
        "*: on the Pareto front of top-1 and latency",
        f"budget: {limits or 'no limit'}: kept by {len(found.within)} of {total} published results",
        f"front: {len(found.front)} of them (all with --json or --html)",
    ]
    if measured:
        lines.append("measured ms: of the exported network with random weights, on this machine, 90 % interval")
    if found.left_out:
        more = len(found.left_out) - _NAMED
        named = ", ".join(found.left_out[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"not considered, as their cost is not known: {named}")
    return lines
