"""The part of a pretrained network that a run with a limit of time tries first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hw_profiles.budget import violations
from nas.engine.candidate_evaluation import CandidateCost
from nas.pipeline.job import Job
from search_spaces.arch import Arch

# Half of EfficientNet-lite0 at 64 pixels had learned 1,402 photographs of hands after 15 epochs (98.5%).
_ENOUGH_EPOCHS = 20.0


def likely_part(job: Job, timed: Arch, speed: float, seconds: float) -> dict[str, Any] | None:
    """The choices of the largest part, of whole depth and kernels, that keeps the limits and sees the training images
    20 times in ``seconds``; of the smallest where none does, and None where none keeps the limits.

    ``timed`` is a network of the space, which trains at ``speed`` images a second; others are taken to need time in
    proportion to their multiplications.
    """
    cost, limits = CandidateCost(job.device, job.search_limits(), measured=False), job.search_limits()
    fitting: list[tuple[int, Mapping[str, Any]]] = []
    for params in _whole_parts(job):
        arch = job.space.build(params)
        if all(value <= 0 for value in violations(cost(arch), limits).values()):
            fitting.append((arch.workload().macs, params))
    fitting.sort(key=lambda pair: pair[0])
    often = [pair for pair in fitting if _epochs(pair[0], job, timed, speed, seconds) >= _ENOUGH_EPOCHS]
    chosen = often[-1:] or fitting[:1]
    return dict(chosen[0][1]) if chosen else None


def _whole_parts(job: Job) -> list[dict[str, Any]]:
    """Every resolution and width; of other choices the first value, which is the whole network's."""
    choices = job.space.choices
    others = {name: values[0] for name, values in choices.items()}
    return [
        {**others, "resolution": resolution, "width": width}
        for resolution in choices["resolution"]
        for width in choices["width"]
    ]


def _epochs(macs: int, job: Job, timed: Arch, speed: float, seconds: float) -> float:
    return seconds * speed * timed.workload().macs / macs / len(job.data.train)
