"""Images per second of a training with a limit of time beside those of a bare loop, on an idle machine or a busy one.

The bare loop repeats forward, backward and step on one batch that is there already; it makes no batches, clips nothing
and looks at nothing. In the middle of one training, every few seconds, the bare loop runs for a while with one thread and
with all of them, in the number format in which it is faster. Busy: one other process counts as fast as it can.
"""

from __future__ import annotations

import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from compress.data.dataset import Dataset
from compress.data.in_memory import arrays_dataset
from compress.training.loop import Recipe, train
from hw_profiles.measurement.latency_measurement import median_interval
from search_spaces import build_model, preset, sample
from search_spaces.arch import Arch

SIDE, BATCH_SIZE, CLASSES = 48, 32, 10
SHAPE = (3, SIDE, SIDE)
OURS_SECONDS, BARE_SECONDS, ROUNDS = 4.0, 1.0, 7

NETWORKS: dict[str, Callable[[], Arch]] = {
    "ResNet-8": lambda: preset("resnet8", input_shape=SHAPE, num_classes=CLASSES),
    "mobilenetv2_035": lambda: preset("mobilenetv2_035", input_shape=SHAPE, num_classes=CLASSES),
    "mobilenet space": lambda: sample("mobilenet", seed=0, input_shape=SHAPE, num_classes=CLASSES),
}
CASES = [f"{load}: {name}" for load in ("idle", "busy") for name in NETWORKS]


def run(case: str, seed: int) -> dict[str, Any]:
    """One case of both loops in turn."""
    load, _, name = case.partition(": ")
    model = build_model(NETWORKS[name](), seed=seed)
    before = round(os.getloadavg()[0], 1)
    recipe = Recipe(epochs=1e9, seconds=1e6, batch_size=BATCH_SIZE, bfloat16=None)
    with busy_process() if load == "busy" else nullcontext(), suppress(EnoughError):
        rounds = Rounds(copy.deepcopy(model))
        train(model, random_images(), recipe, report=rounds.report)
    found = rounds.found()
    return {"load_before": before, "threads": torch.get_num_threads(), **found}


class EnoughError(Exception):
    """All rounds are over."""


class Rounds:
    """Ours for some seconds, then the bare loop with each number of threads, and so on."""

    def __init__(self, model: nn.Module) -> None:
        self.bare = Bare(model)
        self.threads = sorted({1, torch.get_num_threads()})
        self.ours: list[float] = []
        self.others: dict[int, list[float]] = {threads: [] for threads in self.threads}
        self.used: list[int] = []
        self.steps, self.began, self.bfloat16 = 0, time.perf_counter(), False

    def report(self, share: float, note: str) -> None:
        self.steps += 1
        self.used.append(torch.get_num_threads())
        took = time.perf_counter() - self.began
        if took < OURS_SECONDS:
            return
        self.ours.append(self.steps * BATCH_SIZE / took)
        if len(self.ours) == 1:
            self.bfloat16 = self.bare.rate(1, True) > self.bare.rate(1, False)
        for threads in self.threads:
            self.others[threads].append(self.bare.rate(threads, self.bfloat16))
        if len(self.ours) == ROUNDS:
            raise EnoughError
        self.steps, self.began = 0, time.perf_counter()

    def found(self) -> dict[str, Any]:
        best = max(self.others, key=lambda threads: statistics.median(self.others[threads]))
        ratios = [mine / other for mine, other in zip(self.ours, self.others[best], strict=True)]
        return {
            "images_per_second": round(statistics.median(self.ours[1:])),
            "first_seconds": round(self.ours[0]),
            "bare": {threads: round(statistics.median(rates), 1) for threads, rates in self.others.items()},
            "bare_threads": best,
            "bfloat16": self.bfloat16,
            "mean_threads": round(statistics.mean(self.used), 2),
            "ours_over_bare": [round(x, 3) for x in (statistics.median(ratios[1:]), *median_interval(ratios[1:]))],
        }


class Bare:
    """Forward, backward and step on one batch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)
        self.x = torch.randn(BATCH_SIZE, *SHAPE).contiguous(memory_format=torch.channels_last)
        self.warm: set[tuple[int, bool]] = set()
        self.labels = torch.arange(BATCH_SIZE) % CLASSES

    def rate(self, threads: int, bfloat16: bool) -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            if (threads, bfloat16) not in self.warm:
                self.warm.add((threads, bfloat16))
                self.step(bfloat16)
            start, steps = time.perf_counter(), 0
            while (took := time.perf_counter() - start) < BARE_SECONDS:
                self.step(bfloat16)
                steps += 1
        finally:
            torch.set_num_threads(before)
        return steps * BATCH_SIZE / took

    def step(self, bfloat16: bool) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = self.model(self.x)
        self.optimizer.zero_grad()
        F.cross_entropy(logits.float(), self.labels, label_smoothing=0.05).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def random_images() -> Dataset:
    """2,000 of them, so that a training reads them at random places."""
    images = np.random.default_rng(0).integers(0, 256, (2000, SIDE, SIDE, 3), np.uint8)
    return arrays_dataset(images, np.arange(len(images)) % CLASSES)


@contextmanager
def busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
