"""SVG and HTML elements; all text is escaped."""

from __future__ import annotations

import math
from html import escape


def element(name: str, *content: str, **attributes: object) -> str:
    """An element around pieces that are markup already. ``class_`` is ``class``, ``text_anchor`` is ``text-anchor``;
    numbers keep one decimal.

    >>> element("text", words("a < b"), x=1.25, text_anchor="end")
    '<text x="1.2" text-anchor="end">a &lt; b</text>'
    """
    shown = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    return f"<{name}{shown}>{''.join(content)}</{name}>"


def words(text: object) -> str:
    """Text of a user as markup."""
    return escape(str(text))


def label(x: float, y: float, text: object, **attributes: object) -> str:
    """Text in a picture."""
    return element("text", words(text), x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A line whose colour its class ``kind`` says."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def title(text: object) -> str:
    """What is shown over the element that it stands in."""
    return element("title", words(text))


def picture(width: float, height: float, name: str, *content: str) -> str:
    """A whole SVG that scrolls where the window is too narrow to read it; ``name`` is for those who cannot see it."""
    drawn = element("svg", *content, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=name)
    return element("div", drawn, class_="picture")


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


def _value(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))
