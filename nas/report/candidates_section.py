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
    "COMPLETE": "briefly trained",
    "PRUNED": "rejected before training (over the limits or duplicate)",
    "FAIL": "failed",
    "RUNNING": "unfinished",
    "WAITING": "not started",
}


def candidates_section(metrics: Mapping[str, Any], study: optuna.Study) -> tuple[Markup, ...]:
    """Accuracy against latency of all candidates, and the finalists with both of their latencies."""
    points = pareto_points(study, metrics["winner_trial"])
    return (
        pareto_svg(points, pareto_marks(metrics["rows"]), metrics["asked"].get("latency_ms")),
        legend(),
        element(
            "p",
            counts(metrics["trials"]),
            " The blue line is the Pareto front: the candidates for which no other is both more accurate and faster. "
            "Candidates are shown with their accuracy after brief training, final models after full training.",
        ),
        *_finalists(study),
    )


def counts(trials: Mapping[str, int]) -> str:
    """How many candidates were trained, rejected, and so on, from their Optuna states.

    >>> counts({"COMPLETE": 6, "PRUNED": 1})
    '7 candidates: 6 briefly trained, 1 rejected before training (over the limits or duplicate).'
    """
    listed = ", ".join(f"{trials[state]} {what}" for state, what in _STATES.items() if trials.get(state))
    total = sum(trials.values())
    return f"{total} candidate{'' if total == 1 else 's'}: {listed or 'none'}."


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
        "Finalists, most accurate first, with the latency (ms) used during the search and the latency when "
        "re-measured. Values are upper bounds: the upper end of the 90% interval of a measurement, the 90th "
        "percentile of an estimate."
    )
    return element("p", note), grid(["", "during search", "re-measured", "precision"], rows)
