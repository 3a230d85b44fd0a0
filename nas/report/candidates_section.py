"""The section of the report on the candidates of the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from markupsafe import Markup

from nas.engine.winner_selection import FINALISTS
from nas.report.html import grid
from nas.report.pareto_plot import legend, pareto_marks, pareto_points, pareto_svg
from nas.report.svg import element
from nas.samplers.trial_attributes import COST

_STATES = {
    "COMPLETE": "trained briefly",
    "PRUNED": "rejected without training (over the budget, or a repeat)",
    "FAIL": "failed",
    "RUNNING": "not finished",
    "WAITING": "not started",
}


def candidates_section(metrics: Mapping[str, Any], study: optuna.Study) -> tuple[Markup, ...]:
    """Accuracy over latency of all candidates, and the finalists with both of their latencies."""
    points = pareto_points(study, metrics["winner_trial"])
    return (
        pareto_svg(points, pareto_marks(metrics["rows"]), metrics["asked"].get("latency_ms")),
        legend(),
        element(
            "p",
            counts(metrics["trials"]),
            " The blue line is the Pareto front: the candidates that no other one beats in both accuracy and latency.",
        ),
        *_finalists(study),
    )


def counts(trials: Mapping[str, int]) -> str:
    """How many candidates were trained, rejected, and so on, from their Optuna states.

    >>> counts({"COMPLETE": 6, "PRUNED": 1})
    '7 candidates: 6 trained briefly, 1 rejected without training (over the budget, or a repeat).'
    """
    said = ", ".join(f"{trials[state]} {what}" for state, what in _STATES.items() if trials.get(state))
    return f"{sum(trials.values())} candidates: {said or 'none'}."


def _finalists(study: optuna.Study) -> tuple[Markup, ...]:
    """The latencies of the finalists in the search, and when they were checked again."""
    trials = study.get_trials(deepcopy=False)
    rows = [
        [
            f"trial {number}",
            f"{trials[int(number)].user_attrs[COST]['latency_ms']:.4f}",
            f"{again['latency_ms']:.4f}",
            "int8" if again["bits"] == 8 else "float32",
        ]
        for number, again in study.user_attrs.get(FINALISTS, {}).items()
    ]
    if not rows:
        return ()
    note = (
        "The finalists, the most accurate first: the latency in milliseconds that the search compared with the limit, "
        "and the latency when the finalist was checked again. For a measurement it is the upper end of the 90 % "
        "interval, for an estimate the value that it stays below with a probability of 90 %."
    )
    return element("p", note), grid(["", "in the search", "checked again", "precision"], rows)
