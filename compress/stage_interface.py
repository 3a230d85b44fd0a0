"""The interface of a stage, and the context that it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from compress.argument_checks import is_number, is_within
from compress.data.dataset import Dataset
from compress.networks.artifact import Artifact
from compress.progress import Report, no_report
from compress.training.teachers import Teacher
from hw_profiles.budget import Budget
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Context:
    """Settings and data shared by all compression steps.

    ``data`` has the input size of the artifact. ``max_accuracy_drop`` is in percentage points, for all stages together;
    it is compared with the upper bound of an interval of one-sided ``confidence``, or with the estimate at 0.5.
    ``target_bytes`` is the maximum size of the compressed file. With ``smaller_suffices`` a smaller architecture need
    not be faster, only not slower. ``checkpoint`` is where a training may save its state, ``folder`` where a stage may
    write files.
    """

    data: Dataset
    device: Device
    budget: Budget = Budget()
    max_accuracy_drop: float = 1.0
    confidence: float = 0.5
    target_bytes: int | None = None
    smaller_suffices: bool = False
    teacher: Teacher | None = None
    seed: int = 0
    measured: bool = True
    checkpoint: Path | None = None
    folder: Path | None = None
    report: Report = no_report

    def __post_init__(self) -> None:
        if not is_number(self.max_accuracy_drop, -math.inf):
            raise InputError(
                f"Context.max_accuracy_drop must be a number of percentage points, got {self.max_accuracy_drop!r}"
            )
        if not (is_within(self.confidence, 0.5, 1) and self.confidence < 1):
            raise InputError(f"Context.confidence must be at least 0.5 and below 1, got {self.confidence!r}")
        if self.target_bytes is not None and not is_number(self.target_bytes, 0):
            raise InputError(f"Context.target_bytes must be above 0, got {self.target_bytes!r}")


class Stage(Protocol):
    """A frozen config that turns an artifact into another. ``lossy``: it trades accuracy for cost."""

    name: ClassVar[str]
    lossy: ClassVar[bool]

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The artifact after the stage."""
