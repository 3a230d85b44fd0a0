"""SVG and HTML elements. Text is escaped wherever it enters: what is markup already has the type ``Markup``."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup, escape


def element(name: str, *content: object, **attributes: object) -> Markup:
    """An element around text and markup. ``class_`` is ``class``, ``text_anchor`` is ``text-anchor``; numbers keep one
    decimal.

    >>> element("text", "a < b", x=1.25, text_anchor="end")
    Markup('<text x="1.2" text-anchor="end">a &lt; b</text>')
    """
    shown = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{shown}>{joined(content)}</{name}>")  # each piece is escaped


def joined(parts: Iterable[object]) -> Markup:
    """Text and markup one after the other.

    >>> joined(["a < b", Markup("<br>")])
    Markup('a &lt; b<br>')
    """
    return Markup("").join(map(escape, parts))


def label(x: float, y: float, text: object, **attributes: object) -> Markup:
    """Text in a picture."""
    return element("text", text, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A line with the color of its class ``kind``."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def title(text: object) -> Markup:
    """What is shown over the element that it is in."""
    return element("title", text)


def picture(width: float, height: float, name: str, *content: object) -> Markup:
    """A whole SVG, which scrolls where the window is too narrow to read it; ``name`` is for those who cannot see it."""
    least = f"min-width:{0.8 * width:.0f}px"
    return element("svg", *content, viewBox=f"0 0 {width:g} {height:g}", style=least, role="group", aria_label=name)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``.

    >>> ticks(0.0, 0.17)
    [0.0, 0.05, 0.1, 0.15]
    """
    rough = max(high - low, 1e-12) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _value(value: object) -> Markup:
    return escape(f"{value:.1f}" if isinstance(value, float) else value)
