"""The HTML page of ``nas profile``: totals, memory, time by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from nas.commands.output.text_table import cut, printable, short
from nas.commands.profile_facts import bits_of, doubts, interval, kind_of, of_runtime, reads_text, shape_text
from nas.report.charts import memory_svg
from nas.report.html import figure, grid, listing, note, page, part, section
from nas.report.svg import element, joined, label, line, picture, ticks, title

Facts = Mapping[str, Any]

_WIDTH, _HEIGHT, _LEFT, _ABOVE, _BELOW = 1080, 280, 90, 26, 30
_ROOM = 1.12  # above the longest bar, for its name
_SLOWEST = 12
_NAME_WIDTH = 60
_HEAD = [
    "layer",
    "#",
    "kind",
    "layout",
    "bits",
    "input",
    "output",
    "MACs",
    "weights",
    "memory traffic",
    "live activations",
    "µs",
    "share",
]


def render_profile(facts: Facts) -> str:
    """The HTML page of :func:`nas.commands.profile_facts.profile_facts`; it needs no other file and no network.

    >>> from hw_profiles import load_device
    >>> from nas.commands.profile import profile_facts
    >>> "stages.2.0.conv2" in render_profile(profile_facts("resnet8", load_device("host")))
    True
    """
    model, device = printable(facts["model"]), printable(facts["device"])
    head = joined(
        (
            element("h1", f"{model} on {device}"),
            note(f"{facts['precision']}, {reads_text(facts)}"),
            part("warnings", doubts(facts)),
            _tiles(facts),
        )
    )
    return page(
        f"fitnas: {model} on {device}",
        head,
        section("memory", "Activation memory during inference", memory_svg(memory_of(facts), None), note(
            "Live activation memory while each layer runs. Weights are not included. Hover over a "
            "bar to see the layer.")),
        section("time", "Time by layer", latency_svg(facts), note(
            "Share of the estimated latency per layer, in execution order. Pale bars: layers without a measured cost "
            "(cost of a similar kernel used)."),
            element("h3", "Slowest layers"), slowest(facts)),
        section("layers", "All layers", _table(facts), note(
            "All sizes in bytes. Weights: including quantization scales; memory traffic: activations read and written; "
            "live activations: in memory while the layer runs. ~: cost of a similar kernel used.")),
        section("sources", "Where the numbers come from", _sources(facts)),
    )  # fmt: skip


def memory_of(facts: Facts) -> dict[str, Any]:
    """What :func:`nas.report.charts.memory_svg` draws."""
    kernels = [
        {"name": _name(layer), "kind": kind_of(layer), "live_bytes": layer["live_bytes"]} for layer in facts["layers"]
    ]
    peak = facts["peak_index"]
    return {"kernels": kernels, "peak_bytes": kernels[peak]["live_bytes"], "peak_index": peak}


def latency_svg(facts: Facts) -> Markup:
    """The share of each layer in the estimate as a bar, in the order in which they run; the slowest is named."""
    layers = facts["layers"]
    shares = [float(layer["share"]) for layer in layers]
    longest = max(shares)
    step, scale = (_WIDTH - _LEFT) / len(layers), (_HEIGHT - _ABOVE - _BELOW) / (_ROOM * longest)
    ground = float(_HEIGHT - _BELOW)
    drawn = []
    for percent in ticks(0.0, 100 * _ROOM * longest, 4):
        y = ground - percent / 100 * scale
        drawn += [line(_LEFT, y, _WIDTH, y, "grid"), label(_LEFT - 8, y + 4, f"{percent:g}%", text_anchor="end")]
    for i, (layer, share) in enumerate(zip(layers, shares, strict=True)):
        tooltip = title(f"{_name(layer)} ({kind_of(layer)}): {_time(layer)}, {100 * share:.1f}%")
        place = {"x": _LEFT + i * step + 0.5, "y": ground - share * scale}
        size = {"width": max(step - 1, 0.8), "height": share * scale}
        drawn.append(element("rect", tooltip, **place, **size, class_="other" if layer["fallback_cost"] else "live"))
    at = shares.index(longest)
    x, named = _LEFT + (at + 0.5) * step, f"{100 * longest:.1f}% in {_name(layers[at])}"
    anchor = "start" if x < _WIDTH * 0.35 else "end" if x > _WIDTH * 0.65 else "middle"
    drawn.append(label(x, ground - longest * scale - 6, named, text_anchor=anchor, class_="strong"))
    drawn.append(line(_LEFT, ground, _WIDTH, ground, "axis"))
    run = f"{len(layers)} layers in order of execution"
    drawn.append(label((_LEFT + _WIDTH) / 2, _HEIGHT - 8, run, text_anchor="middle", class_="quiet"))
    drawing = picture(_WIDTH, _HEIGHT, "share of each layer in the estimated latency", *drawn)
    rows = [[str(i), _name(layer), _time(layer), f"{100 * layer['share']:.1f}%"] for i, layer in enumerate(layers)]
    return figure(drawing, ["#", "layer", "time", "share"], rows)


def slowest(facts: Facts) -> Markup:
    """The layers that take most of the time, as bars beside their names."""
    ranked = sorted(enumerate(facts["layers"]), key=lambda pair: -pair[1]["share"])[:_SLOWEST]
    longest = ranked[0][1]["share"]
    rows = [
        {
            "cells": [_name(layer), str(index), _time(layer), f"{100 * layer['share']:.1f}%"],
            "width": 100 * layer["share"] / longest,
        }
        for index, layer in ranked
    ]
    return part("slowest", rows)


def _tiles(facts: Facts) -> Markup:
    low, high = facts["latency_low_ms"], facts["latency_high_ms"]
    weights = facts["flash_bytes"] - facts["runtime_flash_bytes"]
    tiles = [
        (f"{facts['latency_ms']:.3g} ms", f"{facts['latency_source']} latency, 90% interval {low:.3g}–{high:.3g} ms"),
        (f"{short(facts['peak_ram_bytes'], ' ')}B", f"peak activation memory, at layer {facts['peak_index']}"),
        (f"{short(weights, ' ')}B", "weights including quantization scales"),
        (short(facts["weight_count"], " "), "weight count (batch normalization folded)"),
        (short(facts["macs"], " "), "MACs"),
        (f"{len(facts['layers'])}", "layers"),
    ]
    return part("tiles", tiles)


def _table(facts: Facts) -> Markup:
    rows = [_row(i, layer) for i, layer in enumerate(facts["layers"])]
    call = facts["call"]
    rows.append(["per-call overhead", "", *[""] * 9, f"{call['microseconds']:.2f}", f"{100 * call['share']:.1f}%"])
    sums = [f"{facts['macs']:,}", f"{facts['flash_bytes'] - facts['runtime_flash_bytes']:,}", "", ""]
    rows.append(["total, estimated", "", *[""] * 5, *sums, f"{1000 * facts['estimated_ms']:.2f}", "100.0%"])
    kinds = [""] * (len(rows) - 1) + ["deployed"]
    return grid(_HEAD, rows, "wide", kinds)


def _row(index: int, layer: Facts) -> list[str]:
    return [
        _name(layer),
        str(index),
        kind_of(layer),
        layer["layout"],
        bits_of(layer),
        shape_text(layer["input_shape"]),
        shape_text(layer["output_shape"]),
        f"{layer['macs']:,}",
        f"{layer['weight_bytes']:,}",
        f"{layer['activation_bytes']:,}",
        f"{layer['live_bytes']:,}",
        f"{'~' if layer['fallback_cost'] else ''}{layer['microseconds']:.2f}",
        f"{100 * layer['share']:.1f}%",
    ]


def _sources(facts: Facts) -> Markup:
    pairs: dict[str, object] = {"latency": f"{interval(facts, 'latency')}, {facts['latency_source']}"}
    if facts["latency_source"] != "estimated":
        pairs["latency, estimated"] = interval(facts, "estimated")
    pairs["times of layers"] = "estimated from the device file"
    pairs["peak RAM"] = (
        f"{facts['peak_ram_bytes']:,} bytes, computed from activation lifetimes"
        f"{of_runtime(facts['runtime_ram_bytes'], ', including')}; peak at "
        f"{cut(printable(facts['peak_layer']), _NAME_WIDTH)} (layer {facts['peak_index']})"
    )
    runtime = of_runtime(facts["runtime_flash_bytes"], " and")
    pairs["weights"] = f"{facts['flash_bytes']:,} bytes including quantization scales{runtime}"
    pairs["weight count"] = f"{facts['weight_count']:,} (batch normalization folded)"
    pairs["MACs"] = f"{facts['macs']:,} (convolution, linear and matmul operations)"
    if facts["params"] is not None:
        pairs["parameters"] = f"{facts['params']:,} (trainable parameters of the PyTorch module)"
    return listing(pairs)


def _name(layer: Facts) -> str:
    return cut(printable(layer["name"]), _NAME_WIDTH)


def _time(layer: Facts) -> str:
    return f"{'~' if layer['fallback_cost'] else ''}{layer['microseconds']:.2f} µs"
