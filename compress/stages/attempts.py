"""One attempt at a stage: the stage is run in a folder of its own, its file judged, and what came of it recorded."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.atomic_files import read_json, write_json
from compress.networks.artifact import Artifact
from compress.networks.onnx_export import predict_onnx
from compress.progress import Report
from compress.stage_interface import Context, Stage
from compress.stages.acceptance import SLOWER, accuracy_reason, cost_reason
from compress.stages.accuracy_change import ESTIMATE, AccuracyChange
from compress.stages.deployed_file import deploy
from compress.stages.provenance import ORIGIN, check_origin, config_of, matches, origin_of
from hw_profiles.errors import InputError

ProgressFactory = Callable[[str], AbstractContextManager[Report]]

_TOOK = "seconds.json"
_SHOWN = ("val_accuracy", "file_bytes", "coded_bytes", "latency_ms", "peak_ram_bytes", "precision")


class InapplicableStageError(InputError):
    """A stage that cannot be applied to a network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """An artifact, and the folder that holds its file."""

    artifact: Artifact
    folder: Path

    @property
    def file(self) -> Path:
        """The ONNX file."""
        return self.folder / self.artifact.files["onnx"]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured on it."""
        return self.artifact.metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What a stage made of a network in ``seconds``.

    ``costly`` says why its file costs more than the one before, ``inaccurate`` why too much accuracy is lost; None
    where that is not so. ``change`` is the accuracy lost against the reference, where it was requested.
    """

    rung: str
    stage: Stage
    home: Home
    seconds: float
    costly: str | None
    inaccurate: str | None
    change: AccuracyChange | None

    @property
    def why_not(self) -> str | None:
        """Why the result is rejected; None where it is accepted."""
        return self.costly or self.inaccurate

    @property
    def may_be_fixed(self) -> bool:
        """Whether something else may be tried in its place: it is slower, or costs accuracy alone."""
        return self.costly.startswith(SLOWER) if self.costly is not None else self.inaccurate is not None

    def facts(self, context: Context) -> dict[str, Any]:
        """What a report tells of it."""
        metrics = {name: self.home.metrics[name] for name in _SHOWN}
        change = None if self.change is None else self.change.to_dict(context.confidence)
        return {
            "rung": self.rung,
            "stage": self.stage.name,
            "config": config_of(self.stage, self.home.folder),
            "folder": self.home.folder.name,
            **metrics,
            "change": change,
            "seconds": self.seconds,
            "accepted": self.why_not is None,
            "rejection_reason": self.why_not,
        }


@dataclass(kw_only=True, slots=True)
class Judge:
    """Judges what stages make of networks, by files that were run on the validation images.

    ``reference`` is what accuracy is lost against. Which images a file gets right is looked at once for each file.
    """

    context: Context
    reference: Home
    show: ProgressFactory
    _right: dict[Path, NDArray[np.bool_]] = field(default_factory=dict)

    def attempt(self, stage: Stage, before: Home, folder: Path, context: Context, rung: str) -> Attempt:
        """Run a stage on what is there ``before``, or find in ``folder`` what it made.

        Raises:
            InapplicableStageError: it cannot be applied to this network.
            InputError: the folder holds what came of other options, images, seed, device or budget.
        """
        home, seconds = _run_stage(stage, before, folder, context, self.show)
        change = self.change(home) if context.confidence != ESTIMATE else None
        costs = cost_reason(before.metrics, home.metrics, context)
        if stage.lossy and before.file.read_bytes() == home.file.read_bytes():
            costs = "it changed neither the architecture nor the precision"
        lost = accuracy_reason(before.metrics, home.metrics, self.reference.metrics, self.context, change)
        return Attempt(
            rung=rung, stage=stage, home=home, seconds=seconds, costly=costs, inaccurate=lost, change=change
        )  # fmt: skip

    def change(self, home: Home) -> AccuracyChange:
        """The accuracy that a file loses against the reference on the validation images."""
        return AccuracyChange.between(self._which_right(self.reference), self._which_right(home))

    def _which_right(self, home: Home) -> NDArray[np.bool_]:
        if home.folder not in self._right:
            val = self.context.data.val
            self._right[home.folder] = predict_onnx(home.file, val, home.artifact.preprocessing) == val.labels
        return self._right[home.folder]


def _run_stage(stage: Stage, before: Home, folder: Path, context: Context, show: ProgressFactory) -> tuple[Home, float]:
    """What the stage makes, and how many seconds it took."""
    origin = origin_of(stage, context, before.file.read_bytes())
    if (folder / "artifact.json").is_file():
        check_origin(origin, folder)
        took = read_json(folder / _TOOK, "seconds")["seconds"] if (folder / _TOOK).is_file() else 0.0
        return Home(artifact=Artifact.load(folder), folder=folder), float(took)
    partial = folder.with_name(folder.name + ".partial")
    if partial.is_dir() and not matches(origin, partial):
        shutil.rmtree(partial)  # what other options had begun
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / ORIGIN, origin)
    began = time.monotonic()
    with show(stage.name) as report:
        bare = before.artifact.bare()
        inside = replace(context, checkpoint=partial / "checkpoint.pt", folder=partial, report=report)
        try:
            after = stage(bare, inside)
        except InputError as error:
            raise InapplicableStageError(f"stage {stage.name} cannot be applied: {error}") from error
    seconds = time.monotonic() - began
    write_json(partial / _TOOK, {"seconds": seconds})
    return Home(artifact=deploy(after, context, folder, before.folder), folder=folder), seconds
