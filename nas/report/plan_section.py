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
    more = f"expected gain: {plan['twice_the_time_points']:.2f} percentage points"
    came = {
        "training": f"{plan['ran_train_seconds']:.0f} s, {plan['ran_epochs']:.0f} epochs "
        f"(planned: {plan['winner_epochs']:.0f})",
        "search": search_words(metrics["search"]),
        "ranking": ranking_words(metrics["search"]),
        "with twice the time": f"{more} (extrapolated from a power law of error against training time)",
        "total": f"{metrics['seconds']:.0f} s (time limit: {plan['seconds']:.0f} s)",
    }
    lines = joined(element("p", f"{line[:1].upper()}{line[1:]}.") for line in plan["lines"])
    return lines + listing({name: value for name, value in came.items() if value})


def ranking_words(found: Facts | None) -> str:
    """How reliable the ranking of the candidates is.

    >>> ranking_words({"agreement_of_halves": 0.814, "repeated_scores": {}})
    "split-half rank correlation of the candidates' validation scores: 0.81"
    """
    if found is None or found["agreement_of_halves"] is None:
        return ""
    agreement, again = found["agreement_of_halves"], found["repeated_scores"]
    often = max(map(len, again.values()), default=0)
    times = {1: "once", 2: "twice"}.get(often, f"{often} times")
    more = f"; the top {len(again)} were re-evaluated {times} with different seeds and image subsets" if often else ""
    return f"split-half rank correlation of the candidates' validation scores: {agreement:.2f}{more}"


def search_words(found: Facts | None) -> str:
    """Whether the search found a better network than the reference networks; empty without those.

    >>> known = {"network": "resnet8", "val_accuracy": 0.8, "val_accuracy_low": 0.75, "val_accuracy_high": 0.85}
    >>> counts = {"known": 1, "searched": 5}
    >>> text = search_words({"known": known, "searched": {**known, "val_accuracy": 0.9, "val_accuracy_low": 0.86},
    ...                      "candidates": counts})
    >>> text[:90]
    'improved on the reference networks: best of 5 candidates proposed by the search: 90.00%; b'
    """
    if found is None:
        return ""
    known, searched = found["known"], found["searched"]
    if searched is None:
        return f"no candidate proposed by the search was trained; best reference network: {known['network']}"
    both = (
        f"best of {found['candidates']['searched']} candidates proposed by the search: "
        f"{percent(searched['val_accuracy'])}; best reference network ({known['network']}): "
        f"{percent(known['val_accuracy'])} (validation accuracy)"
    )
    if searched["val_accuracy_low"] > known["val_accuracy_high"]:
        return f"improved on the reference networks: {both}"
    if known["val_accuracy"] >= searched["val_accuracy"]:
        return f"no improvement over the reference networks: {both}"
    return f"possibly better than the reference networks, but within sampling error: {both}"
