"""Runs plans on the given network and chooses the smallest file that keeps the promise, or the nearest ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compress.atomic_files import read_json, write_json
from compress.networks.artifact import Artifact
from compress.stage_interface import Stage
from compress.stages.acceptance import points_lost, worst_excess
from compress.stages.attempts import Home
from compress.stages.deployed_file import deploy
from compress.stages.plan_file import Plan
from compress.stages.stage_order import STAGES
from compress.training.recipe import Recipe
from nas.compression.job import CompressJob
from nas.compression.plan_search import Scored, searched_strengths
from nas.compression.strengths import STRENGTHS, USUAL, Strength, Trainings, plan_of
from nas.execution.long_trainings import shielded_stages
from nas.pipeline.run_folder import log
from nas.pipeline.time_budget import Clock

_ANY_DROP, _ANY_LOSS = 100.0, ", any loss"
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

    def excess(self, job: CompressJob) -> float:
        """The largest relative excess over a limit or the requested size."""
        return worst_excess(self.home.metrics, job.context())

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
    file misses the size or a limit, the most accurate one that keeps all of them, if any was found."""

    best: PlanRun
    others: Sequence[PlanRun] = ()
    within_limits: PlanRun | None = None


def run_plans(job: CompressJob, place: Place) -> Nearest:
    """Run the plan that was given, or the automatic ones from the strength that the size needs, each in a folder of its
    own."""
    promised: list[PlanRun] = []
    strengths = _searched(job, place) if job.is_searched else _strengths(job, place.reference)
    for label, plan in _plans(job, strengths):
        if promised and _is_over(place, label):
            break
        promised.append(_run(job, label, plan, place))
        if promised[-1].excess(job) <= 0 and not job.is_searched:
            break
    best = min(promised, key=lambda run: (run.excess(job), run.coded_bytes))
    others = [run for run in promised if run is not best]
    if best.excess(job) <= 0:
        return Nearest(best=best, others=others)
    forced = list(_forced(job, place))
    kept = [run for run in forced if run.excess(job) <= 0]
    nearest = max(kept, key=lambda run: float(run.home.metrics["val_accuracy"]), default=None)
    return Nearest(best=best, others=[*others, *forced], within_limits=nearest)


def _plans(job: CompressJob, strengths: Sequence[Strength]) -> list[tuple[str, Plan]]:
    """The plan that was given, or those of the strengths, each with its label."""
    if job.plan is not None:
        return [("given", job.plan)]
    return [(each.label, _plan_of(job, each, _trainings(job))) for each in strengths]


def _strengths(job: CompressJob, reference: Home) -> Sequence[Strength]:
    """The usual one; with limits also one that is pruned to them, and stronger ones; for a size those from the first
    that may reach it."""
    target, usual = job.settings.target_bytes, STRENGTHS[USUAL]
    if target is None and not job.budget.limits():
        return [usual]
    if target is None:
        to_limits = replace(usual, channels=None, to_limits=True)
        prunable = {"latency_ms", "peak_ram_bytes"} & {*job.budget.limits()}
        return [usual, *([to_limits] if prunable else []), *STRENGTHS[USUAL + 1 :][:_MOST_PLANS]]
    share = target / reference.metrics["coded_bytes"]
    if job.artifact.network.file is not None:  # which keeps its channels
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
    looking, start = replace(job, data=job.search_data), _search_place(job, place)

    def run(strength: Strength) -> Scored:
        plan = _plan_of(job, strength, short)
        found = _run(looking, f"{strength.label}, short", plan, start, max_accuracy_drop=_ANY_DROP)
        lost = points_lost(start.reference.metrics, found.home.metrics)
        log.info("plan %s: %d bytes compressed, accuracy drop %.2f points", found.label, found.coded_bytes, lost)
        return Scored(strength=strength, coded_bytes=found.coded_bytes, points_lost=lost, excess=found.excess(job))

    scored = searched_strengths(
        run,
        allowed=job.settings.max_accuracy_drop,
        trials=job.settings.most_plans,
        trains=job.artifact.network.file is None,
        seed=job.seed,
        is_over=lambda: clock.total is not None and clock.spent > _SEARCH_SHARE * clock.total,
    )
    return [each.strength for each in scored[:_FINALISTS]]


def _search_place(job: CompressJob, place: Place) -> Place:
    """The place with the accuracy of the given network on the images that choose among plans."""
    if job.search_data.val is job.data.val:
        return place
    folder, context = place.folder / "search_reference", replace(job.context(), data=job.search_data)
    bare = place.reference.artifact.bare()
    found = Artifact.load(folder) if (folder / "artifact.json").is_file() else deploy(bare, context, folder)
    return replace(place, reference=Home(artifact=found, folder=folder))


def _forced(job: CompressJob, place: Place) -> Iterator[PlanRun]:
    """The plans whatever accuracy they lose, up to the first that keeps the size and all limits."""
    for label, plan in _plans(job, _strengths(job, place.reference)):
        if _is_over(place, f"{label}{_ANY_LOSS}"):
            return
        run = _run(job, label, plan, place, max_accuracy_drop=_ANY_DROP)
        yield run
        if run.excess(job) <= 0:
            return


def _plan_of(job: CompressJob, strength: Strength, trainings: Trainings) -> Plan:
    return plan_of(strength, job.artifact, trainings, teacher=job.teacher is not None, limits=job.budget.limits())


def _run(job: CompressJob, label: str, plan: Plan, place: Place, *, max_accuracy_drop: float | None = None) -> PlanRun:
    if max_accuracy_drop is not None:
        label += _ANY_LOSS
    folder = _folder(place, label)
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


def _folder(place: Place, label: str) -> Path:
    return place.folder / "plans" / label.replace(", ", "_").replace(" ", "_")


def _is_over(place: Place, label: str) -> bool:
    """Whether a further plan is not begun, as it may take as long as those before; one that was begun is gone on with,
    so that a compression that is called again comes to the same."""
    left, total = place.clock.left, place.clock.total
    over = left is not None and total is not None and left < total / 2
    return over and not _folder(place, label).is_dir()


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
