"""Runs stages in order; each is accepted only if the deployed file is no worse for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.networks.artifact import Artifact
from compress.networks.onnx_export import onnx_bytes
from compress.progress import progress
from compress.stage_interface import Context, Stage
from compress.stages.acceptance import points_lost
from compress.stages.accuracy_change import confidence_on
from compress.stages.attempts import Attempt, Home, InapplicableStageError, Judge, ProgressFactory
from compress.stages.deployed_file import deploy
from compress.stages.provenance import config_of
from compress.stages.tolerance_ladder import Ladder
from compress.training.torch_settings import usual_torch_settings
from hw_profiles.errors import InputError

log = logging.getLogger("fitnas")
AS_PLANNED = "as planned"


@usual_torch_settings()
def run_stages(
    artifact: Artifact,
    stages: Sequence[Stage],
    context: Context,
    folder: Path | str,
    *,
    home: Path | None = None,
    ladder: Ladder | None = None,
    skip_inapplicable: bool = False,
    show: ProgressFactory = progress,
) -> Artifact:
    """Run stages one after the other, each in ``folder/NN_name``; finished stages are not repeated.

    ``home`` is the folder with the file of the artifact; by default it is written to ``folder/00_start`` first.

    After each stage the file is written, run in ONNX Runtime on the validation images, and its latency is taken. A
    stage is reverted if its file is slower or larger than the one before, unless the budget requires it, or if it
    reduces accuracy by more than ``max_accuracy_drop`` points below the reference: its folder stays, the reason is in
    the history, and the next stage starts from the previous result. The reference is the last artifact before any lossy
    stage. Each stage receives the remaining accuracy budget.

    With a ``ladder`` of fallbacks, such as :class:`compress.stages.tolerance_ladder.Int8Ladder`, a stage that loses too
    much accuracy is not reverted at once: the fallbacks are tried, cheapest first, each in a folder of its own, until
    one meets the limit. The history lists them with their effect and cost under ``tried``. With ``skip_inapplicable`` a
    stage that cannot be applied is skipped, with the reason in the history.

    Raises:
        InputError: a stage, which is named, cannot be applied to this artifact, the artifact cannot be saved, or the
            folder holds what came of another one, of other options, images, seed, device or budget. What earlier
            stages made stays in their folders and is found again.
    """
    artifact.network.require_savable()
    _check_size(artifact, context)
    folder = Path(folder)
    if home is None:
        home = folder / "00_start"
        artifact = _started(artifact, home) if (home / "artifact.json").is_file() else deploy(artifact, context, home)
    current = in_float = Home(artifact=artifact, folder=home)
    judge = Judge(context=context, reference=current, show=show)
    for number, stage in enumerate(stages, 1):
        place = folder / f"{number:02}_{stage.name}"
        left = context.max_accuracy_drop - points_lost(judge.reference.metrics, in_float.metrics)
        remaining = replace(context, max_accuracy_drop=max(0.0, left))
        try:
            tried = [judge.attempt(stage, current, place, remaining, AS_PLANNED)]
        except InapplicableStageError as error:
            if not skip_inapplicable:
                raise
            current = _with(current, _left_out(stage, current, str(error)))
            continue
        if ladder is not None and tried[0].may_be_fixed:
            rungs = _Rungs(ladder, coming=frozenset(each.name for each in stages[number:]))
            tried.extend(rungs.climbed(judge, current, tried[0], remaining))
        last = tried[-1]
        best = last if last.why_not is None else tried[0]
        record = _record(best, current, [attempt.facts(context) for attempt in tried])
        current = _with(current if best.why_not else best.home, record, current.artifact.history)
        if current.artifact.precision == "fp32":  # what quantization is compared with
            in_float = current
        if not any(each.lossy for each in stages[:number]):
            judge.reference = current
    return current.artifact


@dataclass(frozen=True, slots=True)
class _Rungs:
    """A ladder without the stages that are still ``coming``, which cannot be applied twice."""

    ladder: Ladder
    coming: frozenset[str]

    def climbed(self, judge: Judge, before: Home, failed: Attempt, context: Context) -> Iterator[Attempt]:
        """The rungs in turn, up to the first that holds or the end of the time for them."""
        allowed, spent, seconds = _with_margin(failed, context), 0.0, self.ladder.seconds
        _log(failed, failed.stage)
        rungs = (
            self.ladder.faster(failed.stage, allowed)
            if failed.costly is not None
            else self.ladder(failed.stage, before.artifact, allowed)
        )
        for number, rung in enumerate(rungs, 1):
            place = failed.home.folder.with_name(f"{failed.home.folder.name}.{number}_{rung.stage.name}")
            if seconds is not None and spent >= seconds and not place.is_dir():
                return
            if rung.stage.name in self.coming:
                continue
            try:
                attempt = judge.attempt(rung.stage, before, place, allowed, rung.name)
            except InapplicableStageError:
                continue
            spent += attempt.seconds
            _log(attempt, failed.stage)
            yield attempt
            if attempt.why_not is None:
                return


def _log(attempt: Attempt, stage: Stage) -> None:
    """Its gain and cost."""
    metrics = attempt.home.metrics
    log.info(
        "%s, %s: validation accuracy %.2f %%, %d bytes compressed, %.3f ms, in %.1f s: %s",
        *(stage.name, attempt.rung, 100 * metrics["val_accuracy"], metrics["coded_bytes"], metrics["latency_ms"]),
        *(attempt.seconds, "accepted" if attempt.why_not is None else f"rejected, {attempt.why_not}"),
    )


def _with_margin(failed: Attempt, context: Context) -> Context:
    """Lowers the accepted loss, so that the requested limit holds at the upper end of an interval."""
    if failed.change is None:
        return context
    asked = confidence_on(failed.change.images, context.max_accuracy_drop, context.confidence)
    margin = failed.change.upper(asked) - failed.change.points_lost
    return replace(context, max_accuracy_drop=max(0.0, context.max_accuracy_drop - margin))


def _record(chosen: Attempt, before: Home, tried: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "stage": chosen.stage.name,
        "config": config_of(chosen.stage, chosen.home.folder),
        "folder": chosen.home.folder.name,
        "before": dict(before.metrics),
        "after": dict(chosen.home.metrics),
        "accepted": chosen.why_not is None,
        "rejection_reason": chosen.why_not,
        "seconds": sum(each["seconds"] for each in tried),
        "tried": list(tried),
    }


def _left_out(stage: Stage, before: Home, why: str) -> dict[str, Any]:
    """The record of a stage that was not run."""
    return {
        "stage": stage.name,
        "config": {},
        "folder": before.folder.name,
        "before": dict(before.metrics),
        "after": dict(before.metrics),
        "accepted": False,
        "rejection_reason": why,
        "seconds": 0.0,
        "tried": [],
    }


def _with(home: Home, record: dict[str, Any], history: Sequence[Any] | None = None) -> Home:
    earlier = home.artifact.history if history is None else history
    return replace(home, artifact=replace(home.artifact, history=(*earlier, record)))


def _check_size(artifact: Artifact, context: Context) -> None:
    wanted, given = artifact.source.input_shape, context.data.preprocessing.input_shape
    if wanted != given:
        raise InputError(f"the data must have the size that the network reads, {wanted}, got {given}: resize them")


def _started(artifact: Artifact, home: Path) -> Artifact:
    """What is there already, if it is the same network."""
    found = Artifact.load(home)
    if onnx_bytes(artifact) != (home / found.files["onnx"]).read_bytes():
        raise InputError(f"{home.parent}: holds the stages of another network; choose another folder")
    return found
