"""``nas profile``: the cost of a model on a device, layer by layer."""

from __future__ import annotations

import sys
import textwrap
from argparse import Namespace
from pathlib import Path

from compress.atomic_files import json_text
from hw_profiles.device_kit.first_use import device_here
from nas.commands.output.output_files import check_page
from nas.commands.output.text_table import aligned, cut, printable, short
from nas.commands.profile_facts import (
    Facts,
    doubts,
    energy_text,
    interval,
    kind_of,
    of_runtime,
    parse_input_shape,
    profile_facts,
    reads_text,
    shape_text,
)
from nas.errors import user_input

_HEAD = ("#", "layer", "kind", "output", "MACs", "weight", "RAM", "µs", "%")
_WIDTH = 80
_KIND_WIDTH, _SHAPE_WIDTH, _LABEL_WIDTH = 12, 11, 13


def run_profile(parsed: Namespace) -> None:
    """Print what the command line asks for, and write its page.

    Raises:
        InputError: no such model or device, or options that do not fit them.
    """
    if parsed.html is not None:
        check_page(Path(parsed.html))
    with user_input():
        shape = None if parsed.input_shape is None else parse_input_shape(parsed.input_shape)
        device = device_here(parsed.device)
        facts = profile_facts(
            parsed.model, device, parsed.precision, input_shape=shape, measured=parsed.measure, checked=parsed.check
        )
    print(json_text(facts) if parsed.json else "\n".join([*layer_lines(facts), "", *total_lines(facts)]))
    if parsed.html is not None:
        from compress.atomic_files import write_text
        from nas.commands.profile_page import render_profile

        with user_input():
            write_text(Path(parsed.html), render_profile(facts))
        print(f"page: {printable(parsed.html)}", file=sys.stderr if parsed.json else sys.stdout)


def layer_lines(facts: Facts) -> list[str]:
    """The table of layers, each line at most 80 characters wide, and the meaning of its symbols."""
    rows = [_row(i, layer, facts) for i, layer in enumerate(facts["layers"])]
    call = facts["call"]
    blank = [""] * 5
    rows.append(["", "call overhead", *blank, _microseconds(call["microseconds"]), f"{100 * call['share']:.1f}"])
    weights = facts["flash_bytes"] - facts["runtime_flash_bytes"]
    sums = ["", "", short(facts["macs"]), short(weights), ""]
    rows.append(["", "total, estimated", *sums, _microseconds(1000 * facts["estimated_ms"]), "100"])
    signs = ["sizes in bytes (k = 1000)", "RAM: live activations", "*: peak", "more: --html, --json"]
    if any(layer["fallback_cost"] for layer in facts["layers"]):
        signs.append("~: cost of a similar kernel used, as this one has no measured cost")
    if facts["unknown_ops"]:
        signs.append("?: unknown operation")
    return [*aligned(_HEAD, rows, left=4, fill=1, width=_WIDTH), *textwrap.wrap("; ".join(signs), width=_WIDTH)]


def total_lines(facts: Facts) -> list[str]:
    """The totals, how each was obtained, and what makes them uncertain."""
    runtime, layer = of_runtime(facts["runtime_ram_bytes"], ", including"), printable(facts["peak_layer"])
    peak = f"{facts['peak_ram_bytes']:,} bytes, computed from activation lifetimes{runtime}; peak at {layer}"
    lines = [
        ("model", f"{printable(facts['model'])}, {facts['precision']}, {reads_text(facts)}"),
        ("device", printable(facts["device"])),
        ("latency", f"{interval(facts, 'latency')}, {facts['latency_source']}"),
    ]
    if facts["latency_source"] != "estimated":
        lines.append(("", f"{interval(facts, 'estimated')}, estimated (as are the per-layer times)"))
    if facts["energy_mj"] is not None:
        lines.append(("energy", f"{energy_text(facts)} per inference, {facts['sources']['energy_mj']}"))
    lines += [
        ("peak RAM", f"{peak} (layer {facts['peak_index']})"),
        ("weights", _weights(facts)),
        ("", f"{facts['weight_count']:,} weights after folding batch normalization"),
        ("MACs", f"{facts['macs']:,}{_dead(facts['dead_macs'])}"),
    ]
    if facts["params"] is not None:
        lines.append(("parameters", f"{facts['params']:,} (trainable parameters of the PyTorch module)"))
    if facts["c99"] is not None:
        found = facts["c99"]
        lines.append(
            (
                "fitnas C99",
                f"{interval(found, 'latency')}, estimated from instruction counts; not validated on hardware",
            )
        )
        lines.append(("", f"{found['peak_ram_bytes']:,} bytes of RAM, {found['flash_bytes']:,} of flash"))
    lines += _check_lines(facts)
    lines += [("warning", doubt) for doubt in doubts(facts)]
    return [line for name, text in lines for line in _wrapped(name, text)]


def _wrapped(name: str, text: str) -> list[str]:
    """A fact in lines of at most 80 characters, the further ones below the text of the first.

    >>> _wrapped("MACs", "12")
    ['MACs         12']
    """
    first, further = f"{name:<{_LABEL_WIDTH}}", " " * _LABEL_WIDTH
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=further, break_on_hyphens=False)


def _weights(facts: Facts) -> str:
    runtime = of_runtime(facts["runtime_flash_bytes"], " and")
    return f"{facts['flash_bytes']:,} bytes including quantization scales{runtime}"


def _dead(macs: int) -> str:
    """
    >>> _dead(0), _dead(1200)
    ('', '; 1,200 of them in dead channels, which the runtime skips')
    """
    return f"; {macs:,} of them in dead channels, which the runtime skips" if macs else ""


def _check_lines(facts: Facts) -> list[tuple[str, str]]:
    """What fvcore counts, and by how much our counts differ."""
    if "fvcore" not in facts:
        return []
    return [
        ("fvcore", f"{facts['fvcore'][name]:,} {unit}: {_difference(facts[name], facts['fvcore'][name])}")
        for name, unit in (("macs", "MACs"), ("params", "parameters"))
    ]


def _difference(ours: int, theirs: int) -> str:
    """
    >>> _difference(3, 3), _difference(110, 100)
    ('the same', 'fitnas counts 10.00% more')
    """
    return (
        "the same"
        if ours == theirs
        else f"fitnas counts {abs(100 * (ours / theirs - 1)):.2f}% {'more' if ours > theirs else 'fewer'}"
    )


def _row(index: int, layer: Facts, facts: Facts) -> list[str]:
    peak = "*" if index == facts["peak_index"] else ""
    about = "~" if layer["fallback_cost"] else ""
    return [
        str(index),
        printable(_short_name(layer)),
        cut(kind_of(layer), _KIND_WIDTH),
        cut(shape_text(layer["output_shape"]), _SHAPE_WIDTH),
        short(layer["macs"]),
        short(layer["weight_bytes"]),
        peak + short(layer["live_bytes"]),
        about + _microseconds(layer["microseconds"]),
        f"{100 * layer['share']:.1f}",
    ]


def _microseconds(value: float) -> str:
    """
    >>> [_microseconds(value) for value in (1.789, 182.345, 29804.94)]
    ['1.79', '182.3', '29805']
    """
    return f"{value:.2f}" if value < 99.995 else f"{value:.1f}" if value < 9999.95 else f"{value:.0f}"


def _short_name(layer: Facts) -> str:
    """Without the kind and layout, which have columns of their own, for a kernel without operations."""
    name = str(layer["name"])
    return name if layer["ops"] else name.removeprefix(f"{layer['kind']} ").removesuffix(f"@{layer['layout']}")
