"""The plot of accuracy against latency with the Pareto front: first the numbers, then the SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from markupsafe import Markup

from compress.stages.acceptance import latency_upper_bound
from nas.engine.pareto import pareto_front
from nas.engine.search import ranked_trials
from nas.report.accuracy_plot import AccuracyPlot
from nas.report.html import figure
from nas.report.svg import element, title
from nas.samplers.trial_attributes import COST

_WIDTH, _HEIGHT = 760, 380
_SHAPES = {  # around the origin
    "winner": "M0,-9 L2.6,-2.9 9,-2.9 4,1.5 5.6,8 0,4.2 -5.6,8 -4,1.5 -9,-2.9 -2.6,-2.9 Z",
    "deployed": "M-9,-9 H9 V9 H-9 Z",
    "baseline": "M0,-8 L8,0 0,8 -8,0 Z",
}

MARKS = {"winner": "selected network", "deployed": "final model", "baseline": "baseline"}
_FORMS = {8: ", int8", 32: ", float32"}  # by the bits of a candidate's cost
_PRECISIONS = {"fp32": "float32"}


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluated candidate; ``chosen``: it became the winner."""

    latency_ms: float
    accuracy: float
    on_front: bool
    label: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A network that was trained to its end: ``kind`` is winner, deployed or baseline."""

    latency_ms: float
    accuracy: float
    kind: str
    label: str


def pareto_points(study: optuna.Study, winner_trial: int | None = None) -> list[Point]:
    """Latency in milliseconds, as it was compared with the limit, and accuracy in 0..1 of every evaluated candidate."""
    front = {trial.number for trial in pareto_front(study)}
    place = study.user_attrs["objectives"].index("accuracy")
    return [
        Point(
            t.user_attrs[COST]["latency_ms"],
            t.values[place],
            t.number in front,
            f"trial {t.number}{_FORMS.get(t.user_attrs[COST].get('bits'), '')}",
            t.number == winner_trial,
        )
        for t in ranked_trials(study)
    ]


def pareto_marks(rows: Sequence[Mapping[str, Any]]) -> list[Mark]:
    """The winner, the deployed file and the baseline among the rows of metrics.json, by their validation accuracy; by
    their test accuracy where they were trained on the validation images.

    >>> row = {"label": "selected network", "role": "winner", "val_accuracy": 0.9}
    >>> row |= {"latency_ms": 1.0, "latency_high_ms": 1.2, "latency_source": "estimated"}
    >>> [m.kind for m in pareto_marks([row])]
    ['winner']
    """
    marks = []
    for row in rows:
        kind = row["role"] if row["role"] in ("winner", "baseline") else "deployed" if row.get("deployed") else None
        if kind is not None:
            shown = "test_accuracy" if row.get("val_seen") else "val_accuracy"
            marks.append(Mark(latency_upper_bound(row), row[shown], kind, _mark_label(row, MARKS[kind])))
    return marks


def _mark_label(row: Mapping[str, Any], kind: str) -> str:
    """What a row is, its name and precision, each said once.

    >>> _mark_label({"label": "int8", "precision": "int8"}, "final model")
    'final model: int8'
    >>> _mark_label({"label": "selected network", "precision": "fp32"}, "selected network")
    'selected network: float32'
    """
    precision = row.get("precision", "")
    parts = dict.fromkeys((row["label"], _PRECISIONS.get(precision, precision)))
    return f"{kind}: {', '.join(part for part in parts if part and part != kind)}"


def pareto_svg(points: Sequence[Point], marks: Sequence[Mark], limit_ms: float | None) -> Markup:
    """Candidates as dots, the front as a stepped line, the limit dashed, and the marks."""
    if not points:
        return element("p", "No candidate was evaluated.")
    accuracies = [p.accuracy for p in points] + [m.accuracy for m in marks]
    right = 1.06 * max([limit_ms or 0.0, *(p.latency_ms for p in points), *(m.latency_ms for m in marks)])
    low, high = max(0.0, min(accuracies) - 0.03), min(1.0, max(accuracies) + 0.03)

    plot = AccuracyPlot(width=_WIDTH, height=_HEIGHT, latencies=(0.0, right), accuracies=(low, high))
    drawing = plot.picture(
        "validation accuracy and latency of the candidates",
        "latency (90% upper bound), ms",
        "validation accuracy",
        _front(points, plot),
        plot.limit(limit_ms),
        *(_dot(point, plot) for point in points),
        *(_mark(mark, plot) for mark in marks),
    )
    shown = sorted((p for p in points if p.on_front or p.chosen), key=lambda p: p.latency_ms)
    rows = [[p.label, f"{p.latency_ms:.4f}", f"{p.accuracy:.2%}", "selected" if p.chosen else "front"] for p in shown]
    rows += [[m.label, f"{m.latency_ms:.4f}", f"{m.accuracy:.2%}", "fully trained"] for m in marks]
    return figure(
        drawing, ["network", "latency, ms", "validation accuracy", ""], rows, ": Pareto front and final models"
    )


def _front(points: Sequence[Point], plot: AccuracyPlot) -> Markup:
    front = sorted((p for p in points if p.on_front), key=lambda p: p.latency_ms)
    steps = " ".join(
        f"{plot.x(p.latency_ms):.1f},{plot.y(each.accuracy):.1f}"
        for q, p in zip([front[0], *front], front, strict=False)
        for each in (q, p)
    )
    return element("polyline", points=steps, class_="steps")


def _dot(point: Point, plot: AccuracyPlot) -> Markup:
    kind = "chosen" if point.chosen else "front" if point.on_front else "other"
    note = ", selected" if point.chosen else ", on the Pareto front" if point.on_front else ""
    tooltip = title(f"{point.label}: {point.accuracy:.2%} after brief training, {point.latency_ms:.4f} ms{note}")
    place: dict[str, object] = {"cx": plot.x(point.latency_ms), "cy": plot.y(point.accuracy)}
    if kind == "other":
        return element("circle", tooltip, **place, r=3.5, class_=kind)
    return element("circle", tooltip, **place, r=5.0, class_=kind, role="img", tabindex=0)


def _mark(mark: Mark, plot: AccuracyPlot) -> Markup:
    tooltip = title(f"{mark.label}: {mark.accuracy:.2%} fully trained, {mark.latency_ms:.4f} ms")
    place = f"translate({plot.x(mark.latency_ms):.1f} {plot.y(mark.accuracy):.1f})"
    return element("path", tooltip, d=_SHAPES[mark.kind], transform=place, class_=f"mark {mark.kind}", role="img",
                   tabindex=0)  # fmt: skip


def legend() -> Markup:
    """The legend of the plot."""
    # The dots are drawn as rounded squares, so that circles in the page are candidates and nothing else.
    dots = {"candidate": "other", "candidate on the Pareto front": "front", "selected candidate": "chosen"}
    signs = [(element("rect", x=-5, y=-5, width=10, height=10, rx=5, class_=kind), name) for name, kind in dots.items()]
    signs += [
        (element("path", d=_SHAPES[kind], class_=f"mark {kind}"), f"{MARKS[kind]}, fully trained") for kind in _SHAPES
    ]
    shown = [
        element("span", element("svg", sign, viewBox="-10 -10 20 20", class_="sign", aria_hidden="true"), name)
        for sign, name in signs
    ]
    return element("p", *shown, class_="legend")
