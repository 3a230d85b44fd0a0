"""The reference networks of a run: published ones, at a width and resolution that meet the limits."""

from __future__ import annotations

import re

from hw_profiles.budget import violations
from nas.engine.candidate_evaluation import CandidateCost
from nas.pipeline.job import Job
from nas.pipeline.time_plan import EPOCHS_THAT_TRAIN
from nas.pipeline.training_speed import training_speeds
from search_spaces.arch import Arch
from search_spaces.layout import resized, resolutions
from search_spaces.presets import list_presets, preset

_FAMILIES = ("resnet8", "mobilenetv2", "mobilenetv3_small")
_SMALLEST_SIDE, _HALVED_FIVE_TIMES = {"resnet8": 16}, 48
_AT, _PIXELS = " at ", " px"


def plain_networks(job: Job, seconds: float) -> dict[str, float]:
    """How many images a second known networks that keep the limits train at here, by their names.

    Of each family it is the widest, at the data's resolution and each smaller one of the search spaces, that sees the
    training images 20 times in ``seconds``; where none does, the one network that sees them most often. Names are such
    as "mobilenetv2_050 at 48 px". The narrowest network of each family and resolution is timed, and wider ones are
    taken to need more time in proportion to their multiplications. The family of weights that the run starts from is
    left out: its networks are in the space, with weights.
    """
    fitting = [list(networks.items()) for networks in _fitting(job)]
    timed = training_speeds(dict(networks[-1] for networks in fitting))
    images = len(job.data.train)
    chosen: dict[str, float] = {}
    fastest: dict[str, float] = {}
    for networks in fitting:
        narrowest, narrow = networks[-1]
        if narrowest not in timed:
            continue
        per_mac = timed[narrowest] * narrow.workload().macs
        speeds = {name: per_mac / arch.workload().macs for name, arch in networks}
        fastest[narrowest] = speeds[narrowest]
        often = [name for name, speed in speeds.items() if speed * seconds >= EPOCHS_THAT_TRAIN * images]
        if often:
            chosen[often[0]] = speeds[often[0]]
    if not chosen and fastest:
        name = max(fastest, key=lambda each: fastest[each])
        return {name: fastest[name]}
    return chosen


def any_plain_network_fits(job: Job) -> bool:
    """Whether one of the known networks that a run with a limit of time tries keeps the limits."""
    return job.config.seconds is not None and bool(_fitting(job))


def network_named(name: str, job: Job) -> Arch:
    """The network of a name that :func:`plain_networks` gave."""
    preset_name, _, size = name.partition(_AT)
    shape = resized(job.data.preprocessing.input_shape, int(size.removesuffix(_PIXELS)))
    return preset(preset_name, input_shape=shape, num_classes=job.data.num_classes)


def _fitting(job: Job) -> list[dict[str, Arch]]:
    """For each family and resolution the networks that keep the limits, the widest first."""
    cost, limits = CandidateCost(job.device, job.search_limits(), measured=False), job.search_limits()
    found = []
    for family in (each for each in _FAMILIES if each != _family(job.init_facts.get("preset") or "")):
        for resolution in resolutions(min(job.data.preprocessing.input_shape[1:])):
            if resolution < _SMALLEST_SIDE.get(family, _HALVED_FIVE_TIMES):
                continue
            named = _of_family(family, resolution, job)
            fits = {
                name: arch
                for name, arch in named.items()
                if all(value <= 0 for value in violations(cost(arch), limits).values())
            }
            if fits:
                found.append(fits)
    return found


def _of_family(family: str, resolution: int, job: Job) -> dict[str, Arch]:
    presets = sorted((name for name in list_presets() if _family(name) == family), reverse=True)
    names = [f"{name}{_AT}{resolution}{_PIXELS}" for name in presets]
    return {name: network_named(name, job) for name in names}


def _family(name: str) -> str:
    """
    >>> _family("mobilenetv2_100")
    'mobilenetv2'
    """
    return re.sub(r"_\d{3}$", "", name)
