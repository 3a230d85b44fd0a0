"""The numbers of a plot, then the plot as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import optuna

from nas.engine import COST, ranked_trials
from nas.pareto import pareto_front

_WIDTH, _HEIGHT, _MARGIN = 640, 300, 48


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluated candidate."""

    latency_ms: float
    accuracy: float
    on_front: bool
    label: str


def pareto_points(study: optuna.Study) -> list[Point]:
    """Latency and accuracy of every evaluated candidate."""
    front = {trial.number for trial in pareto_front(study)}
    place = study.user_attrs["objectives"].index("accuracy")
    return [
        Point(t.user_attrs[COST]["latency_ms"], t.values[place], t.number in front, f"trial {t.number}")
        for t in ranked_trials(study)
    ]


def pareto_svg(points: Sequence[Point], limit_ms: float | None) -> str:
    """Accuracy over latency: dots, the front as a stepped line, the limit as a dashed one."""
    if not points:
        return "<p>No candidate was evaluated.</p>"
    right = max([p.latency_ms for p in points] + ([limit_ms] if limit_ms else [])) * 1.05
    low, high = min(p.accuracy for p in points), max(p.accuracy for p in points)
    low, high = max(0.0, low - 0.05), min(1.0, high + 0.05)

    def x(ms: float) -> float:
        return _MARGIN + ms / right * (_WIDTH - 2 * _MARGIN)

    def y(accuracy: float) -> float:
        return _HEIGHT - _MARGIN - (accuracy - low) / max(high - low, 1e-9) * (_HEIGHT - 2 * _MARGIN)

    front = sorted((p for p in points if p.on_front), key=lambda p: p.latency_ms)
    steps = " ".join(
        f"{x(p.latency_ms):.1f},{y(q.accuracy):.1f} {x(p.latency_ms):.1f},{y(p.accuracy):.1f}"
        for q, p in zip([front[0], *front], front, strict=False)
    )
    dots = "".join(
        f'<circle cx="{x(p.latency_ms):.1f}" cy="{y(p.accuracy):.1f}" r="{5 if p.on_front else 3}" '
        f'class="{"front" if p.on_front else "other"}">'
        f"<title>{escape(p.label)}: {p.accuracy:.2%}, {p.latency_ms:.4f} ms</title></circle>"
        for p in points
    )
    limit = ""
    if limit_ms:
        at = f"{x(limit_ms):.1f}"
        limit = (
            f'<line x1="{at}" x2="{at}" y1="{_MARGIN}" y2="{_HEIGHT - _MARGIN}" class="limit"/>'
            f'<text x="{at}" dx="-4" y="{_MARGIN - 8}" text-anchor="end">limit {limit_ms:g} ms</text>'
        )
    axes = (
        f'<line x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{_HEIGHT - _MARGIN}" y2="{_HEIGHT - _MARGIN}" class="axis"/>'
        f'<line x1="{_MARGIN}" x2="{_MARGIN}" y1="{_MARGIN}" y2="{_HEIGHT - _MARGIN}" class="axis"/>'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 10}" text-anchor="middle">latency, ms</text>'
        f'<text x="{_MARGIN - 6}" y="{y(high):.1f}" text-anchor="end">{high:.0%}</text>'
        f'<text x="{_MARGIN - 6}" y="{y(low):.1f}" text-anchor="end">{low:.0%}</text>'
        f'<text x="{_MARGIN}" y="{_HEIGHT - _MARGIN + 16}" text-anchor="middle">0</text>'
        f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - _MARGIN + 16}" text-anchor="middle">{right:.3g}</text>'
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="accuracy over latency of the candidates">'
        f'{axes}<polyline points="{steps}" class="steps"/>{limit}{dots}</svg>'
    )
