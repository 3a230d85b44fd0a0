"""The HTML page of ``nas select``: the Pareto plot, the ranked models, the front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from nas.commands.output.text_table import printable, short
from nas.model_selection.zoo_selection import CAVEAT, SelectedModel, Selection
from nas.report.accuracy_plot import AccuracyPlot
from nas.report.html import grid, note, page, section
from nas.report.svg import element, title

_WIDTH, _HEIGHT = 1080, 460
_SHOWN_BEYOND = 4.0  # how many times the limit, or the slowest model within it, the axis reaches
_HEAD = ["model", "input", "top-1", "latency", "90% interval", "RAM", "flash", "MACs", "parameters"]


def render_selection(found: Selection, listed: Sequence[SelectedModel], notes: Sequence[str]) -> str:
    """The page of a selection, with the ``notes`` on what its numbers are: it needs no other file and no network.

    >>> from hw_profiles import Budget, load_device
    >>> from nas.model_selection.zoo_selection import selection
    >>> found = selection(load_device("host"), Budget(flash_bytes=2e6), "int8")
    >>> found.ranked[0].name in render_selection(found, found.ranked[:3], ["estimated"])
    True
    """
    measured = any(model.measured for model in listed)
    device = printable(found.device.name)
    return page(
        f"fitnas: models for {device}",
        element("h1", f"Pretrained models for {device}")
        + note(f"{printable(found.device.description)}, {found.precision}, batch size 1"),
        section("plot", "Published accuracy vs. latency", zoo_svg(found), note(
            "Each dot is a pretrained timm model. Blue: on the Pareto front within the limits; pale: within the "
            "limits; hollow: over the limits, or less than 90% likely to meet it. Hover over a dot for its name.")),
        section("models", f"Top {len(listed)} models within the limits", _table(listed, measured)),
        section("front", "Pareto front of accuracy and latency", _table(found.front, False)),
        section("notes", "Notes", element("ul", *(element("li", printable(text)) for text in notes))),
    )  # fmt: skip


def zoo_svg(found: Selection) -> Markup:
    """All models as dots: published top-1 against estimated latency on a logarithmic scale, the limit dashed."""
    limit = found.budget.latency_ms
    reach = _SHOWN_BEYOND * max([limit or 0.0, *(model.latency_ms for model in found.within)])
    beyond = [model for model in found.beyond if model.latency_ms <= reach]
    shown = [*beyond, *found.within]
    left = min(model.latency_ms for model in shown) / 1.2
    right = 1.1 * max([limit or 0.0, *(model.latency_ms for model in shown)])
    low = min(model.published_top1 for model in shown) - 0.01
    high = max(model.published_top1 for model in shown) + 0.01

    plot = AccuracyPlot(width=_WIDTH, height=_HEIGHT, latencies=(left, right), accuracies=(low, high))
    drawing = plot.picture(
        "published ImageNet accuracy vs. estimated latency of timm models",
        "estimated latency, ms",
        f"ImageNet top-1: {CAVEAT}",
        *(_dot(model, plot, "end") for model in beyond),
        *(_dot(model, plot, "other") for model in found.within if not model.on_front),
        _steps(found.front, plot),
        *(_dot(model, plot, "front") for model in found.front),
        plot.limit(limit),
    )
    return element("div", drawing, class_="picture", tabindex=0)  # the tables below hold its numbers


def _steps(front: Sequence[SelectedModel], plot: AccuracyPlot) -> Markup:
    """From each model level to the latency of the next more accurate one, then up to it."""
    ordered = sorted(front, key=lambda model: model.latency_ms)
    points = [(plot.x(model.latency_ms), plot.y(model.published_top1)) for model in ordered]
    corners = [(right, height) for (_, height), (right, _) in pairwise(points)]
    path = [point for pair in zip(points, [*corners, points[-1]], strict=True) for point in pair]
    return element("polyline", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in path), class_="steps")


def _dot(model: SelectedModel, plot: AccuracyPlot, kind: str) -> Markup:
    side = model.input_shape[-1]
    tooltip = title(f"{model.name} at {side} × {side}: {100 * model.published_top1:.2f}%, {model.latency_ms:.4g} ms")
    place: dict[str, object] = {"cx": plot.x(model.latency_ms), "cy": plot.y(model.published_top1)}
    if kind == "front":
        return element("circle", tooltip, **place, r=4.5, class_=kind, role="img", tabindex=0)
    return element("circle", tooltip, **place, r=3.0, class_=kind)


def _table(models: Sequence[SelectedModel], measured: bool) -> Markup:
    energy = any(model.energy_mj is not None for model in models)
    head = [*_HEAD, *(["energy"] if energy else []), *(["measured"] if measured else [])]
    kinds = ["deployed" if model.on_front else "" for model in models]
    return grid(head, [_row(model, energy, measured) for model in models], "wide", kinds)


def _row(model: SelectedModel, energy: bool, measured: bool) -> list[str]:
    cells = [
        model.name,
        "×".join(map(str, model.input_shape)),
        f"{100 * model.published_top1:.3f}%",
        f"{model.latency_ms:.4g} ms",
        f"{model.latency_low_ms:.4g} to {model.latency_high_ms:.4g}",
        f"{short(model.peak_ram_bytes, ' ')}B",
        f"{short(model.flash_bytes, ' ')}B",
        short(model.macs, " "),
        "–" if model.params is None else short(model.params, " "),
    ]
    if energy:
        cells.append("–" if model.energy_mj is None else f"{model.energy_mj:.3g} mJ")
    if measured:
        cells.append("–" if model.measured is None else f"{model.measured.ms:.4g} ms")
    return cells
