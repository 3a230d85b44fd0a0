"""The section of the report on the candidates of the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from nas.engine.winner_selection import FINALISTS
from nas.report.html import grid
from nas.report.pareto_plot import legend, pareto_marks, pareto_points, pareto_svg
from nas.report.svg import words
from nas.samplers.trial_attributes import COST


def candidates_section(metrics: Mapping[str, Any], study: optuna.Study) -> tuple[str, ...]:
    """Accuracy over latency of all candidates, and the finalists with both of their latencies."""
    trials = ", ".join(f"{count} {state}" for state, count in sorted(metrics["trials"].items()))
    points = pareto_points(study, metrics["winner_trial"])
    return (
        pareto_svg(points, pareto_marks(metrics["rows"]), metrics["asked"].get("latency_ms")),
        legend(),
        f"<p>Trials: {words(trials)}. COMPLETE were trained, shortly; PRUNED broke the budget or repeated another, and "
        "cost no training. The blue line joins those that no other one beats in both accuracy and latency.</p>",
        *_finalists(study),
    )


def _finalists(study: optuna.Study) -> tuple[str, ...]:
    """What the search held against the limit, beside what it was when the best were looked at again."""
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
        "The finalists, the most accurate first: the latency in milliseconds that the search held against the limit, "
        "and that of the finalist looked at again. Of a measurement it is the upper end of the 90 % interval, of an "
        "estimate what is kept with a chance of 90 %."
    )
    return f"<p>{note}</p>", grid(["", "in the search", "again", "form"], rows)
