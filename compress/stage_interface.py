"""The interface of a stage, and the context that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from compress.data.dataset import Dataset
from compress.networks.artifact import Artifact
from compress.progress import Report, no_report
from compress.training.teachers import Teacher
from hw_profiles.budget import Budget
from hw_profiles.devices.device import Device


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Context:
    """What stages work with. ``data`` has the size that the artifact reads. ``max_accuracy_drop`` is in percentage
    points and holds for all stages together; it is judged by the upper end of an interval with the one-sided
    ``confidence``, at 0.5 by the estimate. ``target_bytes`` is what the coded file may have; ``smaller_suffices``: a
    smaller architecture need not be faster, only no slower. ``checkpoint`` is where a training may keep its state,
    ``folder`` where a stage may leave files.
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


class Stage(Protocol):
    """A frozen config that turns an artifact into another. ``lossy``: it trades accuracy for cost."""

    name: ClassVar[str]
    lossy: ClassVar[bool]

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The artifact after the stage."""
