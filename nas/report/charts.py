"""Charts of the stages, the architecture and the memory of a run, from the numbers in metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from nas.report.html import figure
from nas.report.svg import element, joined, label, line, picture, ticks, title

Row = Mapping[str, Any]

_WIDTH = 1080
_LABEL_WIDTH, _PANEL_WIDTH, _PANEL_GAP, _STAGES_TOP, _STAGE_HEIGHT = 145, 190, 120, 38, 54
_BLOCK_HEIGHT, _WIDEST, _AXIS = 34, 240, 215
_MEMORY_HEIGHT = 280


@dataclass(frozen=True, slots=True)
class _Panel:
    """One column of the stages: its place, the value of a row that it shows, and the values at its ends."""

    place: int
    name: str
    head: str
    low: float
    high: float
    form: Callable[[float], str]
    interval: tuple[str, str] | None = None

    @property
    def left(self) -> float:
        """Where it begins."""
        return float(_LABEL_WIDTH + self.place * (_PANEL_WIDTH + _PANEL_GAP))

    def x(self, value: float) -> float:
        """The place of a value."""
        return self.left + (value - self.low) / max(self.high - self.low, 1e-12) * _PANEL_WIDTH


def stages_svg(rows: Sequence[Row], limit_ms: float | None) -> Markup:
    """Bytes, latency with its 90% interval and test accuracy with its 95% interval from stage to stage; what was
    reverted is pale, with the reason.
    """
    height = _STAGES_TOP + _STAGE_HEIGHT * len(rows)
    drawn = []
    for panel in _panels(rows, limit_ms):
        drawn.append(label(panel.left, 14, panel.head, class_="quiet"))
        drawn.append(line(panel.left, 26, panel.left, height - 8, "axis"))
        if panel.name == "latency_ms" and limit_ms is not None:
            at = panel.x(limit_ms)
            drawn.append(line(at, 26, at, height - 8, "limit"))
            drawn.append(label(at + 4, 28, f"limit {limit_ms:g}", class_="small red"))
        drawn += [_stage_bar(panel, rows, i) for i in range(len(rows))]
    drawn += [_stage_words(row, _STAGES_TOP + i * _STAGE_HEIGHT) for i, row in enumerate(rows)]
    drawing = picture(_WIDTH, height, "size, latency and accuracy after each step", *drawn)
    return figure(drawing, ["step", *_STAGES_HEAD, ""], [_stage_row(row) for row in rows])


_STAGES_HEAD = ("file size (bytes)", "latency, ms", "90% interval", "test accuracy", "95% interval")


def _stage_row(row: Row) -> list[str]:
    return [
        row["label"],
        f"{row['file_bytes']:,}",
        f"{row['latency_ms']:.4g}",
        f"{row['latency_low_ms']:.4g} to {row['latency_high_ms']:.4g}",
        f"{100 * row['test_accuracy']:.2f}%",
        f"{100 * row['test_accuracy_low']:.2f} to {100 * row['test_accuracy_high']:.2f}%",
        _outcome(row),
    ]


def _panels(rows: Sequence[Row], limit_ms: float | None) -> tuple[_Panel, ...]:
    largest = max(row["file_bytes"] for row in rows)
    slowest = max([limit_ms or 0.0, *(row["latency_high_ms"] for row in rows)])
    worst, best = min(row["test_accuracy_low"] for row in rows), max(row["test_accuracy_high"] for row in rows)
    return (
        _Panel(0, "file_bytes", "file size, bytes", 0, largest, lambda v: f"{v:,.0f}"),
        _Panel(1, "latency_ms", "latency, ms, 90% interval", 0, slowest, lambda v: f"{v:.4g}",
               ("latency_low_ms", "latency_high_ms")),
        _Panel(2, "test_accuracy", "test accuracy, 95% interval", worst, best, lambda v: f"{100 * v:.2f}%",
               ("test_accuracy_low", "test_accuracy_high")),
    )  # fmt: skip


def _stage_bar(panel: _Panel, rows: Sequence[Row], index: int) -> Markup:
    row, y = rows[index], float(_STAGES_TOP + index * _STAGE_HEIGHT)
    value, kind = float(row[panel.name]), _kind(row)
    at = end = panel.x(value)
    tooltip = title(f"{row['label']}: {panel.form(value)}")
    if panel.low > 0:  # an axis that does not begin at 0 has no bars
        drawn = element("rect", tooltip, x=at - 5, y=y + 4, width=10, height=10, rx=5, class_=kind)
    else:
        drawn = element("rect", tooltip, x=panel.left, y=y, width=max(at - panel.left, 1.0), height=18, class_=kind)
    if panel.interval is not None:
        low, high = (panel.x(float(row[name])) for name in panel.interval)
        ends = joined(line(x, y + 4, x, y + 14, "whisker") for x in (low, high))
        drawn = line(low, y + 9, high, y + 9, "whisker") + ends + drawn
        end = max(end, high)
    earlier = next((r for r in reversed(rows[:index]) if not r.get("rejection_reason")), None)
    return drawn + label(end + 6, y + 13, panel.form(value) + _change(panel.name, row, earlier), class_=f"small {kind}")


def _change(name: str, row: Row, earlier: Row | None) -> str:
    """By how much a value differs from the last accepted one: in points for an accuracy, else in percent."""
    if earlier is None or row[name] == earlier[name]:
        return ""
    if name == "test_accuracy":
        return f" ({100 * (row[name] - earlier[name]):+.2f})"
    return f" ({100 * (row[name] / earlier[name] - 1):+.0f}%)"


def _stage_words(row: Row, y: float) -> Markup:
    kind = "small red" if row.get("rejection_reason") else "small green"
    return label(0, y + 14, row["label"], class_="strong") + label(_LABEL_WIDTH, y + 35, _outcome(row), class_=kind)


def _outcome(row: Row) -> str:
    if row.get("rejection_reason"):
        return f"reverted ({row['rejection_reason']})"
    return "final model" if row.get("deployed") else ""


def _kind(row: Row) -> str:
    return "reverted" if row.get("rejection_reason") else "deployed" if row.get("deployed") else "accepted"


def architecture_svg(architecture: Mapping[str, Any]) -> Markup:
    """One box for each block from the input down, as wide as it has output channels."""
    blocks = architecture["blocks"]
    widest = max(block["out_channels"] for block in blocks)
    channels, height, width = architecture["input_shape"]
    heads = ((360, "block"), (800, "output"), (890, "parameters"), (1000, "MACs"))
    drawn = [label(x, 14, text, class_="quiet") for x, text in heads]
    drawn.append(label(_AXIS, 14, "output channels", class_="quiet", text_anchor="middle"))
    drawn.append(_end(f"input {channels} × {height} × {width}", 24))
    drawn += [_block(block, 24 + _BLOCK_HEIGHT * (i + 1), widest) for i, block in enumerate(blocks)]
    bottom = 24 + _BLOCK_HEIGHT * (len(blocks) + 1)
    pooled = "" if blocks[-1]["resolution"] == [1, 1] else "global average pooling, "
    drawn.append(_end(f"{pooled}{architecture['features']} → {architecture['num_classes']} classes", bottom))
    drawing = picture(_WIDTH, bottom + _BLOCK_HEIGHT, "the blocks of the final network", *drawn)
    rows = [
        [
            block["name"],
            describe(block),
            "{} × {}".format(*block["resolution"]),
            f"{block['params']:,}",
            f"{block['macs']:,}",
        ]
        for block in blocks
    ]
    return figure(drawing, ["name", "block", "output", "parameters", "MACs"], rows)


def _end(text: str, y: float) -> Markup:
    box = element("rect", x=_AXIS - 135, y=y, width=270, height=22, rx=11, class_="end")
    return box + label(_AXIS, y + 15, text, text_anchor="middle", class_="small inside")


def _block(block: Row, y: float, widest: int) -> Markup:
    wide = max(26.0, _WIDEST * block["out_channels"] / widest)
    text, (height, width) = describe(block), block["resolution"]
    box = element("rect", title(f"{block['name']}: {text}"), x=_AXIS - wide / 2, y=y, width=wide, height=22, rx=3,
                  class_=f"block {block['kind']}")  # fmt: skip
    shortcut = Markup()
    if block["shortcut"] != "none":
        edge = _AXIS + wide / 2
        path = f"M{edge:.1f},{y + 3} h10 v16 h-10"
        shortcut = element("path", title(f"{block['shortcut']} shortcut"), d=path, class_="shortcut")
    columns = (
        (360.0, text),
        (800.0, f"{height} × {width}"),
        (890.0, f"{block['params']:,}"),
        (1000.0, f"{block['macs']:,}"),
    )
    return joined(
        (
            line(_AXIS, y - _BLOCK_HEIGHT + 22, _AXIS, y, "axis"),
            label(0, y + 15, block["name"], class_="small quiet"),
            box,
            shortcut,
            label(_AXIS, y + 15, block["out_channels"], text_anchor="middle", class_="small inside"),
            *(label(x, y + 15, column, class_="small") for x, column in columns),
        )
    )


def describe(block: Row) -> str:
    """A block in words.

    >>> from blocks import BlockSpec
    >>> describe(BlockSpec(kind="conv", in_channels=3, out_channels=8, stride=2).to_dict())
    'conv 3×3, stride 2, 3 → 8, relu'
    """
    kernel, stride = block["kernel_size"], block["stride"]
    through = [block["in_channels"], *([block["mid_channels"]] if block["mid_channels"] else []), block["out_channels"]]
    parts = [f"{block['kind'].replace('_', ' ')} {kernel}×{kernel}"]
    parts += [f"stride {stride}"] if stride > 1 else []
    parts += [" → ".join(map(str, through))]
    parts += [f"SE {block['se_channels']}"] if block["se_channels"] else []
    parts += [block["activation"].replace("_", "-")] if block["activation"] != "none" else []
    parts += [f"{block['shortcut']} shortcut"] if block["shortcut"] != "none" else []
    return ", ".join(parts)


def memory_svg(memory: Mapping[str, Any], limit_bytes: float | None) -> Markup:
    """Bytes of activations that exist while each kernel runs, with the peak and, if it is near, the limit."""
    kernels, peak = memory["kernels"], int(memory["peak_bytes"])
    near = limit_bytes is not None and limit_bytes < 3 * peak
    top = 1.12 * max(peak, limit_bytes if limit_bytes is not None and near else 0)
    left, above, below = 90, 26, 30
    step = (_WIDTH - left) / len(kernels)

    def y(size: float) -> float:
        return _MEMORY_HEIGHT - below - size / top * (_MEMORY_HEIGHT - above - below)

    drawn = []
    for size in ticks(0.0, top / 1000, 4):
        drawn.append(line(left, y(1000 * size), _WIDTH, y(1000 * size), "grid"))
        drawn.append(label(left - 8, y(1000 * size) + 4, f"{size:g} kB", text_anchor="end"))
    for i, kernel in enumerate(kernels):
        tooltip = title(f"{kernel['name']} ({kernel['kind']}): {kernel['live_bytes']:,} bytes")
        kind = "peak" if i == memory["peak_index"] else "live"
        top_of_bar = y(kernel["live_bytes"])
        place = {"x": left + i * step + 0.5, "y": top_of_bar, "width": max(step - 1, 0.8), "height": y(0) - top_of_bar}
        drawn.append(element("rect", tooltip, **place, class_=kind))
    drawn.append(_peak_words(memory, left + (memory["peak_index"] + 0.5) * step, y(peak) - 6))
    if limit_bytes is not None and near:
        drawn.append(line(left, y(limit_bytes), _WIDTH, y(limit_bytes), "limit"))
        text = f"limit {limit_bytes:,.0f} bytes"
        drawn.append(label(_WIDTH, y(limit_bytes) - 5, text, text_anchor="end", class_="red"))
    elif limit_bytes is not None:
        text = f"the limit ({limit_bytes:,.0f} bytes) is above the plotted range"
        drawn.append(label(_WIDTH, 12, text, text_anchor="end", class_="red"))
    drawn.append(line(left, y(0), _WIDTH, y(0), "axis"))
    run = f"{len(kernels)} kernels in execution order"
    drawn.append(label((left + _WIDTH) / 2, _MEMORY_HEIGHT - 8, run, text_anchor="middle", class_="quiet"))
    drawing = picture(_WIDTH, _MEMORY_HEIGHT, "live activation bytes per kernel", *drawn)
    rows = [[str(i), kernel["name"], kernel["kind"], f"{kernel['live_bytes']:,}"] for i, kernel in enumerate(kernels)]
    return figure(drawing, ["#", "kernel", "kind", "bytes"], rows)


def _peak_words(memory: Mapping[str, Any], x: float, y: float) -> Markup:
    name = memory["kernels"][memory["peak_index"]]["name"]
    anchor = "start" if x < _WIDTH * 0.35 else "end" if x > _WIDTH * 0.65 else "middle"
    return label(x, y, f"peak {memory['peak_bytes']:,} bytes at {name}", text_anchor=anchor, class_="strong")
