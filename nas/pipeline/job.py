"""The input of a run, checked: images, device, budget, space."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.dataset import Dataset, load_data
from compress.networks.artifact import Artifact
from compress.progress import progress
from compress.pruning.importance import CRITERIA
from compress.stage_interface import Context
from compress.training.recipe import FEW_IMAGES
from hw_profiles.budget import Budget
from hw_profiles.device_kit.first_use import device_here
from hw_profiles.devices.c99_program import deploys_c99, runs_c99, with_c99_costs
from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import load_device
from hw_profiles.devices.machine import matches_this_machine
from hw_profiles.errors import InputError
from hw_profiles.latency.energy import latency_limit_ms
from hw_profiles.spelling_suggestions import check_one_of
from nas.config import Config
from nas.pipeline.pretrained_weights import AUTO, InitialWeights, initial_weights, weights_at_hand
from nas.pipeline.stage_plan import C99_STAGES, baseline_of, stage_names
from nas.pipeline.teacher import AutoTeacher, auto_teacher, check_teacher, check_teacher_file
from nas.pipeline.warm_start import best_of_earlier_run
from nas.results.teacher_info import TeacherInfo
from nas.samplers.registry import sampler_named
from search_spaces.arch import Arch
from search_spaces.presets import preset
from search_spaces.pretrained import pretrained_space
from search_spaces.registry import load_space
from search_spaces.space import NETWORK, SEARCHED, Space, SpaceWithPresets

_DRIFT = 0.97  # measurements of one file differ by some percent: the search keeps clear of the limit


@dataclass(frozen=True, slots=True)
class Job:
    """The checked input of a run. ``asked`` are all limits, those of a microcontroller's memory included; in ``budget``
    a limit on energy is one on latency."""

    config: Config
    data: Dataset
    device: Device
    asked: Budget
    budget: Budget
    space: Space | SpaceWithPresets
    init: Path | None
    measured: bool
    warm_start: Sequence[Mapping[str, Any]] = ()
    init_facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def predicts(self) -> bool:
        """Whether candidates are estimated from the device's table, which was made on this machine; the finalists are
        measured."""
        made_here = matches_this_machine(self.device.conditions, self.device.threads)
        return not self.measured or (self.config.latency_from == "auto" and made_here)

    def search_limits(self) -> dict[str, float]:
        """What a candidate must keep, some percent clear of the budget where each one's latency is measured."""
        limits = self.budget.limits()
        if not self.predicts and "latency_ms" in limits:
            limits["latency_ms"] *= _DRIFT
        return limits

    def auto_teacher(self) -> AutoTeacher:
        """What ``auto`` trains as the teacher: a network with the weights that the run starts from, if there are."""
        return auto_teacher(self.data, self.init_facts.get("preset"), self.init)

    def data_without_test(self) -> Dataset:
        """The images that decisions may see."""
        return replace(self.data, test=self.data.test.take(np.arange(0)))

    def trying_first(self, presets: Mapping[str, Arch], params: Sequence[Mapping[str, Any]], *, alone: bool) -> Job:
        """The same, with known networks and some of the space as the first candidates; ``alone``: and no others."""
        space, first = self.space, [*params, *self.warm_start]
        if presets:
            assert isinstance(self.space, Space)
            space = SpaceWithPresets(space=self.space, presets=presets)
            first = [*({NETWORK: SEARCHED, **each} for each in first), *space.params_of_presets()]
        count = len(presets) + len(params)
        config = replace(self.config, trials=count) if alone and count else self.config
        return replace(self, config=config, space=space, warm_start=first)

    def known_networks(self) -> Collection[Arch]:
        """The candidates that are no networks of the space, and begin with random weights."""
        return self.space.presets.values() if isinstance(self.space, SpaceWithPresets) else ()

    def for_shipping(self) -> Job:
        """The same for a network about which nothing is left to decide: it learns from the validation images, too,
        where images are few."""
        data = self.data
        if len(data.train) + len(data.val) > FEW_IMAGES:
            return self
        return replace(self, data=data.training_on_validation())

    def context(self, artifact: Artifact, teacher_info: TeacherInfo) -> Context:
        """What the stages of an artifact work with."""
        return Context(
            data=self.data.resized(*artifact.source.input_shape[1:]),
            device=self.device,
            budget=self.budget,
            max_accuracy_drop=self.config.max_accuracy_drop,
            teacher=teacher_info.teacher,
            seed=self.config.seed,
            measured=self.measured,
        )


def prepare(config: Config, device: Device | None = None) -> Job:
    """Read and check everything that can be wrong with the input, before a folder is made.

    ``device`` takes the place of the one that ``config`` names.

    Raises:
        InputError: with what must hold, and what came.
    """
    device = _device_of(config) if device is None else device
    if config.latency_from == "measured" and not device.measurable:
        raise InputError(f"latency_from='measured' requires a device file of this machine, got {config.device!r}")
    if config.latency_from == "measured" and config.storage is not None:
        raise InputError(
            "latency_from 'measured' works on one machine only: with --storage, latencies come from the device file"
        )
    asked = config.budget
    if runs_c99(device):
        device = with_c99_costs(device)
        asked = _within_memory(asked, device)
    budget = with_energy_as_latency(asked, device)
    check_teacher(config.teacher)
    sampler_named(config.sampler)
    _check_integers(stage_names(config), device)
    check_one_of("prune_criterion", config.prune_criterion, CRITERIA)
    baseline = baseline_of(config)
    if baseline is not None:
        preset(baseline)
    warm_start = best_of_earlier_run(config)
    with progress("reading images") as report:
        data = load_data(
            config.data,
            seed=config.seed,
            size=config.size,
            unreadable=config.unreadable,
            on_progress=lambda share: report(share, ""),
        )
    check_teacher_file(config.teacher, data)
    init, facts = _init(config)
    shape, classes = data.preprocessing.input_shape, data.num_classes
    if init is None:
        space, weights = load_space(config.space, input_shape=shape, num_classes=classes), None
    else:
        space, weights = pretrained_space(init.preset, init.path, input_shape=shape, num_classes=classes), init.path
    measured = device.measurable and config.latency_from != "estimated"
    return Job(config, data, device, asked, budget, space, weights, measured, warm_start, facts)


def _within_memory(budget: Budget, device: Device) -> Budget:
    """The budget with the device's RAM and flash where it names no smaller ones."""
    memory = {"peak_ram_bytes": device.number("ram_bytes"), "flash_bytes": device.number("flash_bytes")}
    limits = {name: [each for each in (getattr(budget, name), size) if each] for name, size in memory.items()}
    return replace(budget, **{name: min(found) for name, found in limits.items() if found})


def _check_integers(stages: Sequence[str], device: Device) -> None:
    if deploys_c99(device) and not {*stages} & {*C99_STAGES}:
        raise InputError(
            f"stages must hold one of {', '.join(C99_STAGES)} for {device.name}, whose program computes in 8-bit "
            f"integers, got {', '.join(stages) or 'none'}"
        )


def _device_of(config: Config) -> Device:
    """The device, made to fit this machine where files are going to be measured on it."""
    return load_device(config.device) if config.latency_from == "estimated" else device_here(config.device)


def with_energy_as_latency(budget: Budget, device: Device) -> Budget:
    """The budget with the latency that keeps its energy: on one device energy is latency times a power that hardly
    depends on the network.
    """
    if budget.energy_mj is None:
        return budget
    latency = latency_limit_ms(device, budget.energy_mj)
    if latency is None:
        raise InputError(f"device {device.name} has no power data, so --energy cannot be used")
    return replace(budget, energy_mj=None, latency_ms=min(latency, budget.latency_ms or latency))


def _init(config: Config) -> tuple[InitialWeights | None, dict[str, Any]]:
    """The weights to start from, if any, and what the report says of them."""
    if config.init is None:
        return None, {}
    found = weights_at_hand() if config.init == AUTO else initial_weights(config.init)
    if isinstance(found, InitialWeights):
        return found, {"preset": found.preset, "text": found.text}
    return None, {"preset": None, "text": f"starts from random weights in the space {config.space}: {found}"}
