"""A folder of photographs: errors on the test images of ``nas run --time`` beside those of a plain script as long.

    python tests/benchmarks/photographs.py --data signs --latency 1ms --time 12min --seeds 3 --minutes 90
    python tests/benchmarks/photographs.py --data signs --latency 1ms --time 4min --images 500 --minutes 10

Both have the same test images, split off by the seed, and the same time in seconds for everything after the start of the
process. The plain script trains ResNet-8 at 48 × 48 on all other images: SGD with Nesterov momentum 0.9, rate 0.1 with 10 %
warm-up and then a cosine, weight decay 5e-4, label smoothing 0.05, one shift of up to an eighth of the side by reflection
and one flip for each batch of 32, in bfloat16 if that is faster, channels_last.

``--images`` takes the first ones of each class, as many in all. ``--busy`` keeps one other process computing beside both.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from compress.data.dataset import Dataset, load_data
from compress.training.evaluation import predict
from nas.config import quantity
from nas.results.prediction_statistics import wilson
from search_spaces import build_model, preset
from tests.benchmarks.lines import extend, latest_by_case, read
from tests.benchmarks.markdown import commits, table

NAME = "photographs"
WAYS = ("fitnas", "plain")
SIDE, BATCH = 48, 32


def plain_script(data: Dataset, seconds: float, seed: int) -> torch.nn.Module:
    """The training that a user would write."""
    began = time.perf_counter()
    images = torch.from_numpy(np.concatenate([data.train.images, data.val.images])).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.preprocessing.mean, data.preprocessing.std))
    images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(np.concatenate([data.train.labels, data.val.labels]))
    torch.manual_seed(seed)
    random.seed(seed)
    arch = preset("resnet8", input_shape=(images.shape[1], SIDE, SIDE), num_classes=data.num_classes)
    model = build_model(arch, seed=seed).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    bfloat16, share = min((_step_seconds(model, images[:BATCH], on), on) for on in (False, True))[1], 0.0
    while share < 1:
        for indices in torch.randperm(len(images)).split(BATCH):
            share = (time.perf_counter() - began) / seconds
            if share >= 1 or len(indices) < 2:
                break
            rate = share / 0.1 if share < 0.1 else 0.5 * (1 + math.cos(math.pi * (share - 0.1) / 0.9))
            optimizer.param_groups[0]["lr"] = 0.1 * rate
            top, left = random.randint(0, 2 * SIDE // 8), random.randint(0, 2 * SIDE // 8)
            x = F.pad(images[indices], (SIDE // 8,) * 4, mode="reflect")[..., top : top + SIDE, left : left + SIDE]
            x = (x.flip(3) if random.random() < 0.5 else x).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                loss = F.cross_entropy(model(x), labels[indices], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def _step_seconds(model: torch.nn.Module, pixels: torch.Tensor, bfloat16: bool) -> float:
    best = math.inf
    for _ in range(4):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            model(pixels).float().logsumexp(1).mean().backward()
        best = min(best, time.perf_counter() - began)
    return best


def plain(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Errors of the plain script."""
    data = load_data(folder, seed=seed).resized(SIDE, SIDE)
    model = plain_script(data, seconds, seed)
    wrong = int((predict(model, data.test, data.preprocessing) != data.test.labels).sum())
    return {"errors": wrong, "test_images": len(data.test)}


def fitnas(folder: Path, seconds: float, seed: int, latency: str, options: dict[str, Any]) -> dict[str, Any]:
    """Errors of the deployed file of a run."""
    with tempfile.TemporaryDirectory() as out:
        result = nas.run(
            data=folder, latency=latency, time=f"{seconds:g}s", seed=seed, out=Path(out) / "run", **options
        )
        metrics = result.metrics
    images = metrics["final"]["test_images"]
    plan = metrics["plan"]
    return {
        "errors": round((1 - metrics["test_accuracy"]) * images),
        "test_images": images,
        "latency_ms": round(metrics["latency_ms"], 4),
        "kept": metrics["budget_met"],
        "epochs": round(plan["ran_epochs"], 1),
        "expected_epochs": round(plan["winner_epochs"], 1),
        "search": metrics["search"] and metrics["search"]["candidates"],
    }


@contextmanager
def busy_process(on: bool) -> Iterator[None]:
    """One other process that computes."""
    process = multiprocessing.get_context("spawn").Process(target=_compute, daemon=True)
    if on:
        process.start()
    try:
        yield
    finally:
        if on:
            process.kill()


def _compute() -> None:
    total = 0
    while True:
        total += 1


@contextmanager
def subset(folder: Path, images: int | None) -> Iterator[Path]:
    """The folder, or one with copies of the first images of each class."""
    if images is None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        classes = sorted(path for path in folder.iterdir() if path.is_dir())
        for each in classes:
            (Path(place) / each.name).mkdir()
            for path in sorted(each.iterdir())[: images // len(classes)]:
                shutil.copyfile(path, Path(place) / each.name / path.name)
        yield Path(place)


def photographs() -> str:
    """The section of docs/benchmarks.md; nothing without lines."""
    lines = read(NAME)
    if not lines:
        return ""
    return (
        "## Photographs\n\n`python tests/benchmarks/photographs.py --data FOLDER --time 12min`: 2,062 photographs of hands in "
        "ten classes, 100 × 100, at most 1 ms; case: folder / time / settings / trained by; the same test images "
        f"for both (commit {commits(lines)}).\n\n{tables()}"
    )


def tables() -> str:
    """Errors of all splits together with the 95 % interval of the accuracy, the latest line of each."""
    rows = []
    for case, lines in sorted(latest_by_case(NAME).items()):
        wrong, images = (sum(line[name] for line in lines) for name in ("errors", "test_images"))
        off = max(abs(line["seconds"] / line["asked_seconds"] - 1) for line in lines)
        low, high = wilson(images - wrong, images)
        accuracy = f"{1 - wrong / images:.2%} ({low:.1%} to {high:.1%})"
        rows.append((case, len(lines), f"{wrong} of {images}", accuracy, f"{off:.1%}"))
    return table(("case", "splits", "errors", "accuracy", "time missed by at most"), rows)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of images, one folder for each class")
    parser.add_argument("--latency", default="1ms")
    parser.add_argument("--time", default="12min")
    parser.add_argument("--images", type=int)
    parser.add_argument("--seeds", type=int, default=3, help="how many splits (default: 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first split's seed (default: 0)")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--set", default="{}", help="further entries of the config of nas run, as JSON")
    parser.add_argument("--tables", action="store_true", help="print the results and run nothing")
    given = parser.parse_args()
    if given.tables:
        print(tables())
        return
    seconds, options = quantity("time", given.time), json.loads(given.set)

    def run(case: str, seed: int) -> dict[str, Any]:
        with subset(given.data, given.images) as folder, busy_process(given.busy):
            began = time.perf_counter()
            way = case.rsplit("/", 1)[1]
            if way == "plain":
                found = plain(folder, seconds, seed)
            else:
                found = fitnas(folder, seconds, seed, given.latency, options)
            return {**found, "asked_seconds": seconds, "seconds": round(time.perf_counter() - began, 1)}

    settings = [given.data.name, given.time, *([f"{given.images} images"] if given.images else [])]
    settings += ["busy"] if given.busy else []
    settings += [f"{name}={value}" for name, value in options.items()]
    ways = [given.only] if given.only else WAYS
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    cases = [("/".join([*settings, way]), seed) for seed in seeds for way in ways]
    extend(NAME, cases, run, given.minutes)


if __name__ == "__main__":
    main()
