"""Runs plans on the given network and chooses the smallest file that keeps the promise, or the nearest ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compress.atomic_files import read_json, write_json
from compress.networks.network_source import OnnxFile
from compress.stage_interface import Stage
from compress.stages.acceptance import upper_bounds
from compress.stages.attempts import Home
from compress.stages.plan_file import Plan
from compress.stages.stage_order import STAGES
from compress.training.recipe import Recipe
from hw_profiles.budget import violations
from nas.compression.job import CompressJob
from nas.compression.plan_search import Scored, searched_strengths
from nas.compression.strengths import STRENGTHS, USUAL, Strength, Trainings, plan_of
from nas.execution.long_trainings import shielded_stages
from nas.pipeline.run_folder import log
from nas.pipeline.time_budget import Clock

_ANY_DROP = 100.0
_MOST_PLANS = 3
_SHORT, _SEARCH_SHARE, _FINALISTS = 0.25, 0.5, 2  # of the epochs of a stage; of the whole time; plans recovered fully
_TRAINING_SHARE, _LADDER_SHARE = 0.1, 0.15  # of the whole time: of a training of a stage, and of a ladder
_SHORTEST = 2.0
_FINALISTS_FILE = "finalists.json"
_WITHOUT_PRUNING = 2.0  # times as large as with it, roughly


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRun:
    """A plan that was run: its name, what it made, and the last accepted file. ``promised``: within the tolerance."""

    label: str
    plan: Plan
    home: Home
    promised: bool

    @property
    def coded_bytes(self) -> int:
        """Bytes of the coded file."""
        return int(self.home.metrics["coded_bytes"])

    def fits(self, job: CompressJob) -> bool:
        """Whether the file keeps the limits and has the size that was asked for."""
        excess = violations(upper_bounds(self.home.metrics), job.budget.limits())
        target = job.settings.target_bytes
        return all(value <= 0 for value in excess.values()) and (target is None or self.coded_bytes <= target)

    def applied(self) -> Plan | None:
        """The stages that were accepted, as they were applied; None where there were none. A training that was limited
        in seconds is stated by the epochs that it ran."""
        accepted = [record for record in self.home.artifact.history if record["accepted"]]
        if not accepted:
            return None
        return Plan(stages=[_stage_of(record) for record in accepted], any_order=self.plan.any_order)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a compression begins: the given network, the folder of the compression, and its clock."""

    reference: Home
    folder: Path
    clock: Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """What a compression came to: the best file within the tolerance, every other plan that was run, and, where that
    file is too large, the most accurate one of the asked size, if any was found."""

    best: PlanRun
    others: Sequence[PlanRun] = ()
    at_the_size: PlanRun | None = None


def run_plans(job: CompressJob, place: Place) -> Nearest:
    """Run the plan that was given, or the automatic ones from the strength that the size needs, each in a folder of its
    own."""
    if job.plan is not None:
        run = _run(job, "given", job.plan, place)
        return Nearest(best=run)
    promised: list[PlanRun] = []
    searched = job.settings.most_plans > 0
    for strength in _searched(job, place) if searched else _strengths(job, place.reference):
        promised.append(_run_strength(job, strength, place))
        if _is_over(place.clock) or (promised[-1].fits(job) and not searched):
            break
    best = min(promised, key=lambda run: (not run.fits(job), run.coded_bytes))
    others = [run for run in promised if run is not best]
    if best.fits(job) or job.settings.target_bytes is None:
        return Nearest(best=best, others=others)
    forced = list(_forced(job, place))
    small = [run for run in forced if run.coded_bytes <= job.settings.target_bytes]
    nearest = max(small, key=lambda run: float(run.home.metrics["val_accuracy"]), default=None)
    return Nearest(best=best, others=[*others, *forced], at_the_size=nearest)


def _strengths(job: CompressJob, reference: Home) -> Sequence[Strength]:
    """The usual one, or, for a size, those from the first that may reach it."""
    target = job.settings.target_bytes
    if target is None:
        return STRENGTHS[USUAL : USUAL + 1]
    share = target / reference.metrics["coded_bytes"]
    if isinstance(job.artifact.source, OnnxFile):  # which keeps its channels
        share /= _WITHOUT_PRUNING
    first = next((i for i, strength in enumerate(STRENGTHS) if strength.rough_share <= share), len(STRENGTHS) - 1)
    return STRENGTHS[first : first + _MOST_PLANS]


def _searched(job: CompressJob, place: Place) -> Sequence[Strength]:
    """The best of the strengths that a search tries with a short recovery; chosen once and kept."""
    kept = place.folder / _FINALISTS_FILE
    if not kept.is_file():
        chosen = _search(job, place)
        write_json(kept, {"strengths": [asdict(strength) for strength in chosen]})
    return [Strength(**each) for each in read_json(kept, "strengths")["strengths"]]


def _search(job: CompressJob, place: Place) -> Sequence[Strength]:
    trainings, clock = _trainings(job), place.clock
    short = replace(
        trainings,
        epochs=_SHORT * trainings.epochs,
        seconds=None if trainings.seconds is None else max(_SHORTEST, _SHORT * trainings.seconds),
    )
    before = place.reference.metrics["val_accuracy"]

    def run(strength: Strength) -> Scored:
        found = _run_strength(job, strength, place, max_accuracy_drop=_ANY_DROP, trainings=short)
        lost = 100 * (before - found.home.metrics["val_accuracy"])
        log.info("plan %s: %d bytes coded, %.2f points lost", found.label, found.coded_bytes, lost)
        return Scored(strength=strength, coded_bytes=found.coded_bytes, points_lost=lost)

    scored = searched_strengths(
        run,
        allowed=job.settings.max_accuracy_drop,
        trials=job.settings.most_plans,
        trains=not isinstance(job.artifact.source, OnnxFile),
        seed=job.seed,
        is_over=lambda: clock.total is not None and clock.spent > _SEARCH_SHARE * clock.total,
    )
    return [each.strength for each in scored[:_FINALISTS]]


def _forced(job: CompressJob, place: Place) -> Iterator[PlanRun]:
    """The same plans whatever accuracy they lose, up to the first of the asked size."""
    for strength in _strengths(job, place.reference):
        if _is_over(place.clock):
            return
        run = _run_strength(job, strength, place, max_accuracy_drop=_ANY_DROP)
        yield run
        if job.settings.target_bytes is not None and run.coded_bytes <= job.settings.target_bytes:
            return


def _run_strength(
    job: CompressJob,
    strength: Strength,
    place: Place,
    *,
    max_accuracy_drop: float | None = None,
    trainings: Trainings | None = None,
) -> PlanRun:
    """With ``trainings`` of its own, it is a short recovery, without anything tried in place of a stage."""
    plan = plan_of(strength, job.artifact, trainings or _trainings(job), teacher=job.teacher is not None)
    label = strength.label if trainings is None else f"{strength.label}, short"
    return _run(job, label, plan, place, max_accuracy_drop=max_accuracy_drop)


def _run(job: CompressJob, label: str, plan: Plan, place: Place, *, max_accuracy_drop: float | None = None) -> PlanRun:
    if max_accuracy_drop is not None:
        label += ", any loss"
    folder = place.folder / "plans" / label.replace(", ", "_").replace(" ", "_")
    log.info("plan %s: %s", label, ", ".join(plan.names))
    seconds = place.clock.total
    ladder = _trainings(job).ladder(None if seconds is None else _LADDER_SHARE * seconds)
    artifact = shielded_stages(
        place.reference.artifact,
        plan.stages,
        job.context(max_accuracy_drop=max_accuracy_drop),
        folder,
        home=place.reference.folder,
        what=f"a stage of the plan {label}",
        ladder=ladder,
        skip_inapplicable=job.plan is None,
    )
    place.clock.save()
    accepted = [record["folder"] for record in artifact.history if record["accepted"]]
    home = Home(artifact=artifact, folder=folder / accepted[-1] if accepted else place.reference.folder)
    return PlanRun(label=label, plan=plan, home=home, promised=max_accuracy_drop is None)


def _trainings(job: CompressJob) -> Trainings:
    settings, seconds = job.settings, job.settings.seconds
    return Trainings(
        epochs=settings.stage_epochs,
        learning_rate=settings.learning_rate,
        seconds=None if seconds is None else max(_SHORTEST, _TRAINING_SHARE * seconds),
    )


def _is_over(clock: Clock) -> bool:
    """Whether no further plan is begun: one may take as long as those before."""
    return clock.left is not None and clock.total is not None and clock.left < clock.total / 2


def _stage_of(record: Mapping[str, Any]) -> Stage:
    """The stage of a record in the history, with the settings that it had."""
    kind = STAGES[record["stage"]]
    config = {name: tuple(value) if isinstance(value, list) else value for name, value in record["config"].items()}
    given: Any = config.get("recipe")
    if given is not None:
        recipe = Recipe(**given)
        training = record["after"].get("training")
        if recipe.seconds is not None and training is not None:
            recipe = replace(recipe, seconds=None, epochs=training["epochs"])
        config["recipe"] = recipe
    return kind(**config)
