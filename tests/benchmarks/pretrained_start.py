"""What a part of a pretrained network knows: the same network begun with slices of its weights and at random.

    python tests/benchmarks/pretrained_start.py --data FOLDER --minutes 30

Each line: a network cut out of EfficientNet-lite0, trained for a few epochs on few photographs in one thread, by a rate
of the recipe; the accuracies that it then has. The weights are those that ``--init auto`` finds.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import load_data
from compress.training.evaluation import evaluate
from compress.training.loop import Recipe, train
from nas.pipeline.pretrained_weights import InitialWeights, weights_at_hand
from search_spaces import build_model, pretrained_space
from tests.benchmarks.lines import extend

NAME = "pretrained_start"
EPOCHS = 5
PART, RANDOM = "a part of the weights", "random weights"
STARTS = ((RANDOM, 0.1), (PART, 0.1), (PART, 0.02))


@dataclass(frozen=True)
class Case:
    """A network, what it begins with, and the learning rate."""

    side: int
    width: float
    depth: float
    start: str
    rate: float


NETWORKS = ((64, 0.5, 1.0), (64, 0.25, 1.0), (96, 0.5, 0.6), (64, 1.0, 1.0))
CASES = {f"{'-'.join(map(str, network))}, {start}, {rate}": Case(*network, start, rate)
         for network in NETWORKS for start, rate in STARTS}  # fmt: skip


def run(folder: str, found: InitialWeights, name: str, seed: int) -> dict[str, Any]:
    case = CASES[name]
    data = load_data(folder, size=case.side)
    space = pretrained_space(found.preset, found.path, data.preprocessing.input_shape, data.num_classes)
    arch = space.build({"resolution": case.side, "width": case.width, "depth": case.depth, "kernel": 5})
    model = build_model(arch if case.start == PART else replace(arch, weights=None), seed=seed)
    start = time.process_time()
    train(model, data, Recipe(epochs=EPOCHS, learning_rate=case.rate), seed=seed)
    return {
        **{name: getattr(case, name) for name in ("side", "width", "depth", "start", "rate")},
        "preset": found.preset,
        "images": len(data.train),
        "epochs": EPOCHS,
        "macs": arch.workload().macs,
        "params": arch.workload().params,
        "val_accuracy": round(evaluate(model, data.val, data.preprocessing), 4),
        "test_accuracy": round(evaluate(model, data.test, data.preprocessing), 4),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of photographs")
    parser.add_argument("--minutes", type=float, default=30)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    found = weights_at_hand()
    if isinstance(found, str):
        raise SystemExit(found)
    extend(NAME, [(name, seed) for seed in (0, 1) for name in CASES], partial(run, parsed.data, found), parsed.minutes)


if __name__ == "__main__":
    main()
