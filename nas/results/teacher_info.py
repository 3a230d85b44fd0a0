"""The teacher of a run and the facts that are shown of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from compress.training.teachers import Teacher


@dataclass(frozen=True, slots=True)
class TeacherInfo:
    """A teacher, and what is shown of it."""

    teacher: Teacher | None = None
    facts: dict[str, Any] = field(default_factory=dict)
