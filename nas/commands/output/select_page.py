"""The HTML page of ``nas select``: the Pareto plot, the ranked models, the front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from markupsafe import Markup

from nas.commands.output.text_table import printable, short
from nas.model_selection.zoo_selection import CAVEAT, SelectedModel, Selection
from nas.report.html import grid, note, page, section
from nas.report.svg import element, joined, label, line, picture, ticks, title

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1080, 460, 64, 20, 34, 48
_SHOWN_BEYOND = 4.0  # how many times the limit, or the slowest model within it, the axis reaches
_STEPS = (1, 2, 5)
_HEAD = ["model", "input", "top-1", "latency", "90% interval", "RAM", "flash", "MACs", "parameters"]

Scale = Callable[[float], float]


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

    def x(ms: float) -> float:
        return _LEFT + math.log(ms / left) / math.log(right / left) * (_WIDTH - _LEFT - _RIGHT)

    def y(top1: float) -> float:
        return _HEIGHT - _BOTTOM - (top1 - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    drawing = picture(
        _WIDTH,
        _HEIGHT,
        "published ImageNet accuracy vs. estimated latency of timm models",
        _axes(x, y, (left, right), (low, high)),
        *(_dot(model, x, y, "end") for model in beyond),
        *(_dot(model, x, y, "other") for model in found.within if not model.on_front),
        _steps(found.front, x, y),
        *(_dot(model, x, y, "front") for model in found.front),
        _limit(limit, x),
    )
    return element("div", drawing, class_="picture", tabindex=0)  # the tables below hold its numbers


def _axes(x: Scale, y: Scale, latencies: tuple[float, float], accuracies: tuple[float, float]) -> Markup:
    ground = _HEIGHT - _BOTTOM
    rows = [
        line(_LEFT, y(a), _WIDTH - _RIGHT, y(a), "grid")
        + label(_LEFT - 8, y(a) + 4, f"{100 * a:.4g}%", text_anchor="end")
        for a in ticks(*accuracies)
    ]
    columns = [label(x(ms), ground + 18, f"{ms:g}", text_anchor="middle") for ms in log_ticks(*latencies)]
    base = line(_LEFT, ground, _WIDTH - _RIGHT, ground, "axis")
    below = label((_LEFT + _WIDTH) / 2, _HEIGHT - 8, "estimated latency, ms", text_anchor="middle", class_="quiet")
    return joined([*rows, *columns, base, below, label(8, 14, f"ImageNet top-1: {CAVEAT}", class_="quiet")])


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from ``low`` to ``high``.

    >>> log_ticks(0.3, 12)
    [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [float(f"{step}e{power}") for power in powers for step in _STEPS]
    return [value for value in every if low <= value <= high]


def _steps(front: Sequence[SelectedModel], x: Scale, y: Scale) -> Markup:
    """From each model level to the latency of the next more accurate one, then up to it."""
    points = [(x(model.latency_ms), y(model.published_top1)) for model in sorted(front, key=lambda m: m.latency_ms)]
    corners = [(right, height) for (_, height), (right, _) in pairwise(points)]
    path = [point for pair in zip(points, [*corners, points[-1]], strict=True) for point in pair]
    return element("polyline", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in path), class_="steps")


def _dot(model: SelectedModel, x: Scale, y: Scale, kind: str) -> Markup:
    side = model.input_shape[-1]
    tooltip = title(f"{model.name} at {side} × {side}: {100 * model.published_top1:.2f}%, {model.latency_ms:.4g} ms")
    place: dict[str, object] = {"cx": x(model.latency_ms), "cy": y(model.published_top1)}
    if kind == "front":
        return element("circle", tooltip, **place, r=4.5, class_=kind, role="img", tabindex=0)
    return element("circle", tooltip, **place, r=3.0, class_=kind)


def _limit(limit: float | None, x: Scale) -> Markup:
    if limit is None:
        return Markup()
    named = label(x(limit) - 5, _TOP - 6, f"limit {limit:g} ms", text_anchor="end", class_="red")
    return line(x(limit), _TOP - 16, x(limit), _HEIGHT - _BOTTOM, "limit") + named


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
