"""Images per second of the training loop beside those of a plain PyTorch loop.

    python tests/benchmarks/training_speed.py --data FOLDER --minutes 12

Each line: one network, fine-tuned on labels or led by what it was (soft targets, 1503.02531), in bfloat16. The plain
loop makes the same batches, augmented by the same function, and has the same loss, optimizer and number format; it has no
schedule, no clipping of gradients, no clock, no checkpoints. Both run in turn, so many steps each, in one thread; times
are those of the processor, and the ratio is the median over rounds with its 90 % interval. Then ``training_pace.py``: the whole machine, on
the clock, as found and beside a busy process; without ``--data`` that alone, on random images.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Dataset, Recipe, load_data
from compress.distillation.guided_training import guided_training
from compress.training.augmentation import LIGHT, drawn
from compress.training.loop import train
from hw_profiles.measurement.latency_measurement import median_interval
from search_spaces import build_model, preset
from search_spaces.arch import Arch
from tests.benchmarks import training_pace
from tests.benchmarks.lines import extend
from tests.benchmarks.methods import network

NAME = "training_speed"
BATCH_SIZE, STEPS, ROUNDS = 128, 10, 15
TEMPERATURE, TEACHERS_SHARE, SMOOTHING = 4.0, 0.7, 0.05

NETWORKS: dict[str, Callable[[Dataset], Arch]] = {
    "ResNet-8": lambda data: preset(
        "resnet8", input_shape=data.preprocessing.input_shape, num_classes=data.num_classes
    ),
    "five 3×3 convolutions": lambda data: network("conv", data),
}
Loop = Callable[[], object]


def plain_loop(model: nn.Module, teacher: nn.Module | None, data: Dataset, recipe: Recipe) -> Loop:
    """What one writes without a library."""
    images, labels = torch.from_numpy(data.train.images).permute(0, 3, 1, 2), torch.from_numpy(data.train.labels)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.preprocessing.mean, data.preprocessing.std))
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        model.to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(
            model.parameters(), lr=recipe.learning_rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
        for chosen in torch.randperm(len(labels), generator=generator)[: STEPS * BATCH_SIZE].split(BATCH_SIZE):
            pixels = (
                drawn(LIGHT, tuple(images[chosen].shape), generator, flip=True).applied(images[chosen]).float() / 255
            )
            x = (pixels.contiguous(memory_format=torch.channels_last) - mean) / std
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(x)
                with torch.no_grad():
                    wanted = None if teacher is None else teacher(x)
            optimizer.zero_grad()
            plain_loss(logits.float(), labels[chosen], wanted).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return run


def plain_loss(logits: Tensor, labels: Tensor, wanted: Tensor | None) -> Tensor:
    if wanted is None:
        return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    target = F.log_softmax(wanted.float() / TEMPERATURE, 1)
    soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, 1), target, log_target=True, reduction="batchmean")
    return TEACHERS_SHARE * TEMPERATURE**2 * soft + (1 - TEACHERS_SHARE) * F.cross_entropy(logits, labels)


def our_loop(model: nn.Module, led: bool, data: Dataset, recipe: Recipe) -> Loop:
    """What stages train with."""
    if not led:
        return lambda: train(model, data, recipe)

    def run() -> None:
        learn = guided_training(recipe, data, model, data.preprocessing)
        assert learn is not None
        learn(model)

    return run


def seconds(run: Loop) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def run(case: str, seed: int, data: Dataset) -> dict[str, Any]:
    name, _, how = case.partition(": ")
    led = how == "distillation"
    model = build_model(NETWORKS[name](data), seed=seed)
    recipe = Recipe(epochs=STEPS / (len(data.train) // BATCH_SIZE), batch_size=BATCH_SIZE, bfloat16=True,
                    learning_rate=0.03, label_smoothing=SMOOTHING)  # fmt: skip
    other = copy.deepcopy(model)
    ours = our_loop(model, led, data, recipe)
    plain = plain_loop(other, copy.deepcopy(other).eval() if led else None, data, recipe)
    ours(), plain()
    times = [(seconds(ours), seconds(plain)) for _ in range(ROUNDS)]
    ratios = [theirs / mine for mine, theirs in times]
    rates = [STEPS * BATCH_SIZE / statistics.median(each) for each in zip(*times, strict=True)]
    return {
        "images_per_second": round(rates[0]),
        "plain_images_per_second": round(rates[1]),
        "ours_over_plain": [round(value, 3) for value in (statistics.median(ratios), *median_interval(ratios))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--minutes", type=float, default=12)
    given = parser.parse_args()
    extend(NAME, [(case, 0) for case in training_pace.CASES], training_pace.run, given.minutes)
    if given.data is not None:
        torch.set_num_threads(1)
        data = load_data(given.data)
        cases = [(f"{name}: {how}", 0) for how in ("fine-tuning", "distillation") for name in NETWORKS]
        extend(NAME, cases, lambda case, seed: run(case, seed, data), given.minutes)


if __name__ == "__main__":
    main()
