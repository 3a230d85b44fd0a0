"""Divides the time of a run among its phases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compress.atomic_files import read_json, write_json

_RESERVE_SECONDS = 10.0


@dataclass(slots=True)
class Clock:
    """Divides what is left of the time among the phases still to come, and remembers what it gave.

    Without ``total`` every phase may take as long as it needs. ``weights`` are the phases' relative shares, and
    ``reserve`` the seconds that are kept for what follows them. The settings are in plan.json, so a run that goes
    on gives the same again; time that passed between two starts does not count.
    """

    path: Path
    total: float | None
    weights: Mapping[str, float]
    reserve: float = _RESERVE_SECONDS
    spent_before: float = 0.0
    given: dict[str, dict[str, float]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.path.is_file():
            saved = read_json(self.path, "spent_seconds", "phases")
            self.spent_before, self.given = saved["spent_seconds"], saved["phases"]

    @property
    def spent(self) -> float:
        """Seconds that this run has taken, earlier starts included."""
        return self.spent_before + time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds left for the whole run; None without a limit."""
        return None if self.total is None else max(0.0, self.total - self.spent)

    def seconds_for(self, phase: str) -> float | None:
        """Seconds for a phase, decided when it is first asked for; None without a limit."""
        if self.total is None:
            return None
        if phase not in self.given:
            coming = sum(weight for name, weight in self.weights.items() if name not in self.given)
            left = self.total - self.spent - self.reserve
            seconds = max(1.0, left * self.weights[phase] / coming)
            self.given[phase] = {"seconds": seconds, "begun_at": self.spent}
        self.save()
        return self.given[phase]["seconds"]

    def left_of(self, phase: str) -> float | None:
        """Seconds left for a phase that has started, at least 0."""
        seconds = self.seconds_for(phase)
        return None if seconds is None else max(0.0, self.given[phase]["begun_at"] + seconds - self.spent)

    def save(self) -> None:
        """Write plan.json."""
        write_json(self.path, {"spent_seconds": self.spent, "phases": self.given})
