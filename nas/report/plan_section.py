"""The section of the report on the plan of a run: how the time was divided, and whether the search paid off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from nas.report.html import listing, percent
from nas.report.svg import element, joined

Facts = Mapping[str, Any]


def plan_section(metrics: Facts) -> Markup:
    """The three lines of the plan, and what was done."""
    plan = metrics["plan"]
    more = f"{plan['twice_the_time_points']:.2f} percentage points more accuracy expected"
    came = {
        "training": f"{plan['ran_train_seconds']:.0f} s, {plan['ran_epochs']:.1f} epochs "
        f"({plan['winner_epochs']:.1f} were planned)",
        "search": search_words(metrics["search"]),
        "candidates": ranking_words(metrics["search"]),
        "twice the time": f"{more}, if the error keeps falling as a power of the training time",
        "whole run": f"{metrics['seconds']:.0f} s of {plan['seconds']:.0f} s",
    }
    lines = joined(element("p", f"{line[:1].upper()}{line[1:]}.") for line in plan["lines"])
    return lines + listing({name: value for name, value in came.items() if value})


def ranking_words(found: Facts | None) -> str:
    """How reliable the ranking of the candidates is.

    >>> ranking_words({"agreement_of_halves": 0.814, "repeated_scores": {}})
    'their ranks on two halves of the validation images have a correlation of 0.81'
    """
    if found is None or found["agreement_of_halves"] is None:
        return ""
    agreement, again = found["agreement_of_halves"], found["repeated_scores"]
    often = max(map(len, again.values()), default=0)
    more = f"; the {len(again)} best were scored {often} more times, with other seeds and images" if often else ""
    return f"their ranks on two halves of the validation images have a correlation of {agreement:.2f}{more}"


def search_words(found: Facts | None) -> str:
    """Whether the search found a better network than the known ones; empty if there were none.

    >>> known = {"network": "resnet8", "val_accuracy": 0.8, "val_accuracy_low": 0.75, "val_accuracy_high": 0.85}
    >>> counts = {"known": 1, "searched": 5}
    >>> search_words({"known": known, "searched": {**known, "val_accuracy": 0.9, "val_accuracy_low": 0.86},
    ...               "candidates": counts})
    'better than the known networks: validation accuracy 90.00 % for the best of 5 searched ones, 80.00 % for resnet8'
    """
    if found is None:
        return ""
    known, searched = found["known"], found["searched"]
    if searched is None:
        return f"none; the best of {found['candidates']['known']} known networks is {known['network']}"
    both = (
        f"validation accuracy {percent(searched['val_accuracy'])} for the best of {found['candidates']['searched']} "
        f"searched ones, {percent(known['val_accuracy'])} for {known['network']}"
    )
    if searched["val_accuracy_low"] > known["val_accuracy_high"]:
        return f"better than the known networks: {both}"
    if known["val_accuracy"] >= searched["val_accuracy"]:
        return f"not better than the known networks: {both}"
    return f"possibly better than the known networks, within the error of so few images: {both}"
