"""The axes that all plots of accuracy against latency have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from nas.report.svg import joined, label, line, picture, ticks

_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 20, 34, 48
_STEPS = (1, 2, 5)


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyPlot:
    """Places in a plot of so many pixels: ``latencies`` and ``accuracies`` are the values at the ends of its axes. The
    axis of the latencies is logarithmic where it does not begin at 0.

    >>> plot = AccuracyPlot(width=760, height=380, latencies=(0.0, 2.0), accuracies=(0.5, 1.0))
    >>> plot.x(1.0), plot.y(1.0)
    (403.0, 34.0)
    """

    width: float
    height: float
    latencies: tuple[float, float]
    accuracies: tuple[float, float]

    def x(self, ms: float) -> float:
        """The place of a latency."""
        low, high = self.latencies
        share = math.log(ms / low) / math.log(high / low) if low > 0 else ms / high
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, accuracy: float) -> float:
        """The place of an accuracy."""
        low, high = self.accuracies
        share = (accuracy - low) / max(high - low, 1e-9)
        return self._ground - share * (self.height - _TOP - _BOTTOM)

    def picture(self, name: str, below: str, above: str, *content: object) -> Markup:
        """The whole drawing, with what the axes are called."""
        return picture(self.width, self.height, name, self._axes(below, above), *content)

    def limit(self, ms: float | None) -> Markup:
        """A limit on the latency, if there is one."""
        if ms is None:
            return Markup()
        named = label(self.x(ms) - 5, _TOP - 6, f"limit {ms:g} ms", text_anchor="end", class_="red")
        return line(self.x(ms), _TOP - 16, self.x(ms), self._ground, "limit") + named

    @property
    def _ground(self) -> float:
        return self.height - _BOTTOM

    def _axes(self, below: str, above: str) -> Markup:
        rows = [
            line(_LEFT, self.y(a), self.width - _RIGHT, self.y(a), "grid")
            + label(_LEFT - 8, self.y(a) + 4, f"{100 * a:.4g}%", text_anchor="end")
            for a in ticks(*self.accuracies)
        ]
        shown = log_ticks(*self.latencies) if self.latencies[0] > 0 else ticks(*self.latencies)
        columns = [label(self.x(ms), self._ground + 18, f"{ms:g}", text_anchor="middle") for ms in shown]
        base = line(_LEFT, self._ground, self.width - _RIGHT, self._ground, "axis")
        under = label((_LEFT + self.width) / 2, self.height - 8, below, text_anchor="middle", class_="quiet")
        return joined([*rows, *columns, base, under, label(8, 14, above, class_="quiet")])


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from ``low`` to ``high``.

    >>> log_ticks(0.3, 12)
    [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [float(f"{step}e{power}") for power in powers for step in _STEPS]
    return [value for value in every if low <= value <= high]
