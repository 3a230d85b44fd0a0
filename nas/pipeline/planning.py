"""The plan of a run whose time is limited, made from what is measured before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.atomic_files import read_json, write_json
from compress.networks.artifact import Artifact
from compress.progress import progress
from compress.quantization.int8.ptq import Quantize
from compress.stage_interface import Stage
from compress.training.recipe import FEW_IMAGES, Recipe, from_random_weights
from compress.training.teachers import Teacher
from hw_profiles.budget import violations
from hw_profiles.devices.c99_program import deploys_c99
from hw_profiles.profiling import profile
from nas.pipeline.job import Job
from nas.pipeline.plain_networks import network_named, plain_networks
from nas.pipeline.pretrained_start import likely_part
from nas.pipeline.pretrained_weights import AUTO as WEIGHTS_AT_HAND
from nas.pipeline.pretrained_weights import package_at_hand
from nas.pipeline.run_folder import log
from nas.pipeline.stage_plan import LONGEST, baseline_of, with_stage_weights
from nas.pipeline.teacher import AUTO, may_be_trained
from nas.pipeline.time_budget import Clock
from nas.pipeline.time_plan import (
    C99_SECONDS,
    OF_THE_SPACE,
    ONE_NETWORK,
    TimePlan,
    duration,
    search_plan,
    seconds_after_training,
    time_plan,
)
from nas.pipeline.training_speed import TrainingPace, teacher_speed, training_speeds
from search_spaces.arch import Arch

_TEACHER_SHARE, _DISTILL_SHARE, _PRUNE_SHARE = 0.15, 0.09, 0.05
_SAMPLES = 5
_NETWORK, _TEACHER = "images_per_second", "teacher_images_per_second"
_TRAINING_SHARE = 0.6  # of the time, before more is known


def planned(job: Job, folder: Path, clock: Clock) -> tuple[TimePlan | None, Job]:
    """The plan, and the job of the search with the networks that it tries first; None and the job as it is where the
    time is not limited.

    The plan is made once and stored in ``folder``; the clock gets the shares of the phases.

    Raises:
        InputError: the time is too short for anything.
    """
    seconds = job.config.seconds
    if seconds is None:
        return None, job

    def made() -> TimePlan:
        images, speeds = len(job.for_shipping().data.train), _speeds(job, _TRAINING_SHARE * seconds)
        # What the timing took is spent, too.
        return time_plan(seconds, clock.spent, images, speeds, _seconds_at_the_end(job))

    plan = _made_once(folder, made)
    weights = package_at_hand()
    if job.config.init is None and weights is not None and len(job.data.train) <= FEW_IMAGES:
        log.info("plan: ImageNet weights found (%s); use --init auto to start from them", weights)
    clock.weights, clock.reserve = _shares(plan, job), plan.after_seconds
    return plan, _trying_first(plan, job)


def planned_search(job: Job, folder: Path, clock: Clock) -> TimePlan | None:
    """The plan of a search that no training follows, made once and stored; None where the time is not limited.

    Raises:
        InputError: the time is too short for anything.
    """
    seconds = job.config.seconds
    if seconds is None:
        return None

    def made() -> TimePlan:
        with progress("plan"):
            speeds = training_speeds({OF_THE_SPACE: _small_network(job)})
        return search_plan(
            seconds, clock.spent, len(job.data.train), speeds,
            longest=job.config.search_epochs * LONGEST, measured=not job.predicts,
        )  # fmt: skip

    return _made_once(folder, made)


def _made_once(folder: Path, make: Callable[[], TimePlan]) -> TimePlan:
    """The plan that is stored in ``folder``, or a new one, and its lines in the log."""
    kept = folder / "time_plan.json"
    plan = TimePlan.from_json(read_json(kept)) if kept.is_file() else make()
    write_json(kept, plan.to_json())
    for line in plan.lines():
        log.info("plan: %s", line)
    return plan


def _speeds(job: Job, seconds: float) -> dict[str, float]:
    """Of the known networks, unless the user names weights to start from, and of the space where it begins with
    weights, none of those fits, or a microcontroller's networks train much faster than those."""
    with progress("plan"):
        compared = job.config.init in (None, WEIGHTS_AT_HAND) and job.config.storage is None
        known = plain_networks(job, seconds) if compared else {}
        if known and job.init is None and not deploys_c99(job.device):
            return known
        return {**known, **training_speeds({OF_THE_SPACE: _small_network(job)})}


def _trying_first(plan: TimePlan, job: Job) -> Job:
    part = None
    if job.init is not None and OF_THE_SPACE in plan.speeds:
        part = likely_part(job, _small_network(job), plan.speeds[OF_THE_SPACE], plan.train_seconds)
    known = {name: network_named(name, job) for name in plan.presets()}
    return job.trying_first(known, [part] if part else [], alone=plan.kind == ONE_NETWORK)


def _small_network(job: Job) -> Arch:
    """Of a few networks of the space the one of the fewest multiplications."""
    return min(map(job.space.sample, range(_SAMPLES)), key=lambda arch: arch.workload().macs)


def _seconds_at_the_end(job: Job) -> float:
    """What a run takes at its end beside the usual: a microcontroller's builds and emulates a program."""
    return C99_SECONDS if deploys_c99(job.device) else 0.0


def winner_pace(arch: Arch, plan: TimePlan, job: Job, clock: Clock, teacher: Teacher | None) -> TrainingPace:
    """How fast the chosen network trains here and its teacher answers, timed once and kept; the clock keeps what the
    network needs after its training."""
    kept = clock.path.with_name("winner_speed.json")
    speeds = read_json(kept) if kept.is_file() else {}
    if _NETWORK not in speeds:
        speeds[_NETWORK] = training_speeds({"the winner": arch}).get("the winner", 0.0)
    if teacher is not None and _TEACHER not in speeds:
        speeds[_TEACHER] = teacher_speed(teacher, arch)
    write_json(kept, speeds)
    pace = TrainingPace(network=float(speeds[_NETWORK]), teacher=None if teacher is None else float(speeds[_TEACHER]))
    clock.reserve = seconds_after_training(plan.images, pace.network, _seconds_at_the_end(job))
    return pace


def winner_recipe(recipe: Recipe, arch: Arch, plan: TimePlan, pace: TrainingPace) -> Recipe:
    """How the chosen network is trained in ``plan``, at this pace."""
    recipe = replace(recipe, views=pace.views(plan.images, plan.train_seconds))
    if arch.weights is not None:
        return recipe
    return from_random_weights(recipe, plan.images, pace.epochs(plan.images, plan.train_seconds))


def plan_facts(plan: TimePlan, recipe: Recipe, pace: TrainingPace) -> dict[str, Any]:
    """The plan in JSON types, and how often the winner will see the images in its training."""
    assert recipe.seconds is not None
    epochs = min(recipe.epochs, pace.epochs(plan.images, recipe.seconds))
    log.info("plan: training the selected network for %s (about %.0f epochs)", duration(recipe.seconds), epochs)
    return {**plan.to_json(), "winner_epochs": epochs, "winner_augmentation": recipe.augmentation}


def _shares(plan: TimePlan, job: Job) -> dict[str, float]:
    """A baseline is trained exactly as long as the winner, so it weighs as much as all its trainings."""
    config, train = job.config, 1 - plan.search_share
    shares = {"search": plan.search_share, "train": train, "distill": _DISTILL_SHARE, "prune": _PRUNE_SHARE}
    if may_be_trained(config.teacher) and (config.teacher != AUTO or _teacher_may_pay(plan, job)):
        shares["teacher"] = _TEACHER_SHARE
    if baseline_of(config) is not None:
        shares["baseline"] = train + _DISTILL_SHARE + _PRUNE_SHARE
    return with_stage_weights(shares, config)


def _teacher_may_pay(plan: TimePlan, job: Job) -> bool:
    """Whether the teacher of ``auto`` would see the images often enough in its share of the time, if it needed as long
    for a multiplication as the fastest network that was timed."""
    if not plan.speeds:
        return True
    name = max(plan.speeds, key=lambda each: plan.speeds[each])
    timed = _small_network(job) if name == OF_THE_SPACE else network_named(name, job)
    teacher = job.auto_teacher()
    speed = plan.speeds[name] * timed.workload().macs / teacher.macs
    return _TEACHER_SHARE * plan.seconds * speed >= teacher.fewest_epochs * plan.images


def pays(stage: Stage, job: Job, artifact: Artifact) -> bool:
    """Whether a stage may make the network better on the device: int8 does not where it is expected to be slower than
    float32, and float32 keeps the budget. A microcontroller runs int8 alone."""
    if not isinstance(stage, Quantize) or deploys_c99(job.device):
        return True
    arch = artifact.arch
    in_float, in_int8 = (profile(arch, job.device, precision, measured=False) for precision in ("fp32", "int8"))
    limits = job.budget.limits()
    costs = {
        "latency_ms": in_float.latency_upper_bound_ms,
        "peak_ram_bytes": in_float.peak_ram_bytes,
        "flash_bytes": in_float.flash_bytes,
    }
    keeps = all(value <= 0 for value in violations(costs, limits).values())
    slower = in_int8.latency_low_ms > in_float.latency_high_ms
    if keeps and slower:
        log.info(
            "skipping int8: estimated latency %.3f ms, float32 %.3f ms on this device",
            in_int8.latency_ms,
            in_float.latency_ms,
        )
    return not (keeps and slower)
