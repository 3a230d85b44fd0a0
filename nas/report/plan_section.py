"""The plan of a run in its report: what its time was enough for, and whether the search paid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.report.html import listing, percent
from nas.report.svg import words

Facts = Mapping[str, Any]


def plan_section(metrics: Facts) -> str:
    """The three lines of the plan, and what came of it."""
    plan = metrics["plan"]
    more = f"{plan['twice_the_time_points']:.2f} points of accuracy more"
    came = {
        "trained": f"{plan['ran_train_seconds']:.0f} s, {plan['ran_epochs']:.1f} epochs "
        f"({plan['winner_epochs']:.1f} were expected)",
        "search": search_words(metrics["search"]),
        "ranking": ranking_words(metrics["search"]),
        "twice the time": f"is expected to bring {more}, if the error goes on falling as a power of the time",
        "whole run": f"{metrics['seconds']:.0f} s of {plan['seconds']:.0f} s",
    }
    lines = "".join(f"<p>{words(line)}</p>" for line in plan["lines"])
    return lines + listing({name: value for name, value in came.items() if value})


def ranking_words(found: Facts | None) -> str:
    """How far the order of the candidates can be trusted.

    >>> ranking_words({"agreement_of_halves": 0.814, "repeated_scores": {}})
    'the rank correlation of the candidates on two halves of the validation images is 0.81'
    """
    if found is None or found["agreement_of_halves"] is None:
        return ""
    agreement, again = found["agreement_of_halves"], found["repeated_scores"]
    often = max(map(len, again.values()), default=0)
    more = f"; the {len(again)} best were scored {often} times more, with other seeds and images" if often else ""
    return f"the rank correlation of the candidates on two halves of the validation images is {agreement:.2f}{more}"


def search_words(found: Facts | None) -> str:
    """Whether a search found more than the known networks, or nothing where there were none.

    >>> known = {"network": "resnet8", "val_accuracy": 0.8, "val_accuracy_low": 0.75, "val_accuracy_high": 0.85}
    >>> counts = {"known": 1, "searched": 5}
    >>> search_words({"known": known, "searched": {**known, "val_accuracy": 0.9, "val_accuracy_low": 0.86},
    ...               "candidates": counts})
    'it paid: 90.00 % of the validation images with the best of 5 networks that were searched, 80.00 % with resnet8'
    """
    if found is None:
        return ""
    known, searched = found["known"], found["searched"]
    if searched is None:
        return f"none; {known['network']} is the best of {found['candidates']['known']} known networks"
    both = (
        f"{percent(searched['val_accuracy'])} of the validation images with the best of "
        f"{found['candidates']['searched']} networks that were searched, {percent(known['val_accuracy'])} with "
        f"{known['network']}"
    )
    if searched["val_accuracy_low"] > known["val_accuracy_high"]:
        return f"it paid: {both}"
    if known["val_accuracy"] >= searched["val_accuracy"]:
        return f"it did not pay: {both}"
    return f"it may have paid, within the error of so few images: {both}"
