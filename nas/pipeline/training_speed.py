"""How fast networks train on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch

from compress.training.evaluation import training_place
from compress.training.pace import wait_for
from nas.errors import CrashError
from nas.execution.shielded import run_shielded
from nas.pipeline.run_folder import log
from search_spaces.arch import Arch
from search_spaces.model import build_model

_BATCH, _STEPS = 32, 2


def training_speeds(networks: Mapping[str, Arch]) -> dict[str, float]:
    """Images a second that each network trains at here, timed by a few steps in a process of its own.

    A network whose training crashes that process is left out.
    """
    found = {}
    for name, arch in networks.items():
        try:
            found[name] = float(run_shielded(images_per_second, arch, what=f"timing {name}"))
        except CrashError:
            log.info("%s is not a candidate: its training crashes on this machine", name)
    return found


def images_per_second(arch: Arch) -> float:
    """The fastest of a few steps of training, on a GPU where there is one.

    They are timed in float32 and bfloat16, and in the faster of them with one thread, too.
    """
    place = training_place()
    model = build_model(arch, seed=0).to(place).to(memory_format=torch.channels_last).train()
    pixels = torch.rand(_BATCH, *arch.input_shape, device=place).contiguous(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    seconds = {bfloat16: min(_step_seconds(model, pixels, bfloat16)) for bfloat16 in (False, True)}
    faster = min(seconds, key=lambda bfloat16: seconds[bfloat16])
    try:
        torch.set_num_threads(1)
        alone = min(_step_seconds(model, pixels, faster))
    finally:
        torch.set_num_threads(threads)
    return _BATCH / min(alone, seconds[faster])


def _step_seconds(model: torch.nn.Module, pixels: torch.Tensor, bfloat16: bool) -> Iterator[float]:
    for _ in range(_STEPS):
        start = time.perf_counter()
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            loss = model(pixels).float().logsumexp(1).mean()
        loss.backward()
        wait_for(pixels.device)
        yield time.perf_counter() - start
