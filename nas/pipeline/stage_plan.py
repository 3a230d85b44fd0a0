"""The stages of a run, and the training recipe of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from compress.distillation.distill import Distill
from compress.pruning.prune import Prune
from compress.quantization.int8.qat import QuantizeAware
from compress.stage_interface import Stage
from compress.stages.stage_order import STAGES, check_order
from compress.stages.tolerance_ladder import Int8Ladder
from compress.training.loop import Recipe
from hw_profiles.errors import InputError
from nas.config import Config
from nas.pipeline.teacher import NO_TEACHER

AUTO = "auto"
_USUAL, _WITH_TIME = ("distill", "prune", "int8"), ("int8",)
# With a limit of time, at most so many times the epochs of the config: there the time decides how long is trained.
LONGEST, _LONGEST_TRAINING = 4.0, 100.0
C99_STAGES = ("int8", "qat")
"""Those after which a network is in 8-bit integers as a whole, as C99 programs need it."""
# The part of the learning rate with which each phase trains.
_RATES: Mapping[str, float] = {
    "train": 1.0, "distill": 0.5, "prune": 0.3, "sparsify": 0.3, "binary": 0.5, "qat": 0.02, "cluster": 0.1
}  # fmt: skip
# Shares of the time of the stages that are not usual, beside those of the other phases.
_WEIGHTS: Mapping[str, float] = {"sparsify": 0.05, "binary": 0.09, "qat": 0.05, "cluster": 0.04}

_LADDER_SHARE = 0.1

RecipeOf = Callable[[str], Recipe]


def stage_names(config: Config) -> tuple[str, ...]:
    """The stages of a run in their order. ``auto`` are those that make a network faster; with a limit of time int8
    alone, as the search has found a network that keeps the budget, and a teacher leads its training from the start.

    Raises:
        InputError: no such stage, another order, one that is there twice or that another one excludes, or distillation
            without a teacher.

    >>> stage_names(Config(stages="prune, int8,qat"))
    ('prune', 'int8', 'qat')
    """
    if config.stages == AUTO and config.time is not None:
        return _WITH_TIME
    if config.stages == AUTO:
        return tuple(name for name in _USUAL if name != Distill.name or config.teacher != NO_TEACHER)
    names = tuple(name for part in config.stages.split(",") if (name := part.strip()))
    check_order(names)
    if Distill.name in names and config.teacher == NO_TEACHER:
        raise InputError(f"stages: distill needs a teacher, got teacher {NO_TEACHER!r}")
    return names


def baseline_of(config: Config) -> str | None:
    """The preset that is trained beside the winner; with ``auto`` ResNet-8, but none where the time is limited: there
    known networks are candidates of the search.

    >>> baseline_of(Config(trials=3)), baseline_of(Config(time="5min")), baseline_of(Config(baseline="none"))
    ('resnet8', None, None)
    """
    usual = "none" if config.time is not None else "resnet8"
    name = usual if config.baseline == AUTO else config.baseline
    return None if name == "none" else name


def planned_stages(config: Config, recipe_of: RecipeOf, *, has_teacher: bool) -> list[Stage]:
    """The stages of a run, each with its recipe; without a teacher there is no distillation."""
    names = [name for name in stage_names(config) if has_teacher or name != Distill.name]
    return [STAGES[name](**_options(name, config, recipe_of)) for name in names]


def recipe_for(phase: str, config: Config, seconds: float | None) -> Recipe:
    """How a phase of a run trains, in its time where there is a limit.

    >>> recipe_for("qat", Config(stage_epochs=3), None).epochs
    3.0
    """
    own = {"train": config.train_epochs, "distill": config.distill_epochs, "prune": config.prune_epochs}
    epochs, usual = own.get(phase, config.stage_epochs), Recipe()
    if phase in _WEIGHTS:
        usual = getattr(STAGES[phase](), "recipe", usual)
    recipe = replace(usual, epochs=epochs, learning_rate=_RATES[phase] * config.learning_rate)
    if seconds is None:
        return recipe
    bfloat16 = False if phase == QuantizeAware.name else None
    longest = _LONGEST_TRAINING if phase == "train" else LONGEST
    return replace(recipe, epochs=epochs * longest, seconds=seconds, bfloat16=bfloat16)


def int8_ladder(config: Config) -> Int8Ladder:
    """What is tried where int8 loses too much accuracy; with a limit of time for a tenth of it.

    >>> int8_ladder(Config(time="10min")).seconds, int8_ladder(Config(trials=3)).seconds
    (60.0, None)
    """
    seconds = None if config.seconds is None else _LADDER_SHARE * config.seconds
    recipe = recipe_for(QuantizeAware.name, config, None if seconds is None else seconds / 2)
    return Int8Ladder(qat=recipe, seconds=seconds)


def with_stage_weights(weights: Mapping[str, float], config: Config) -> dict[str, float]:
    """The shares of the phases of a run, with those of the stages that train and without those of the ones that are not
    in it. The baseline goes through them, too.
    """
    names = stage_names(config)
    added = {name: weight for name, weight in _WEIGHTS.items() if name in names}
    kept = {name: weight for name, weight in weights.items() if name not in (Distill.name, Prune.name) or name in names}
    if "baseline" in kept:
        gone = sum(weight for name, weight in weights.items() if name not in kept)
        kept["baseline"] += sum(added.values()) - gone
    return {**kept, **added}


def _options(name: str, config: Config, recipe_of: RecipeOf) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if name in _RATES:
        options["recipe"] = recipe_of(name)
    if name == Prune.name:
        options |= {
            "amount": config.prune_amount,
            "criterion": config.prune_criterion,
            "steps": config.prune_steps,
        }
    return options
