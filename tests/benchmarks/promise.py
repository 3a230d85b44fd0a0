"""Whether the promise of ``nas compress`` holds on test images, and how small the files are.

    python tests/benchmarks/promise.py [--mnist FILE.npz] --minutes 10

Each line: one seed of digits (1,797 images of 8 × 8, read at 16 × 16), or of 1,000 of the training images of MNIST, drawn by
the seed and judged by its 10,000 test images; FILE.npz holds train_x, train_y, test_x and test_y. ResNet-8 is trained for 15
epochs and compressed with at most one point of accuracy lost, by the usual plan or the best of as many as the case says;
the seed sets the split, the weights and the order of images. ``kept``: the deployed file loses at most one point on the
test images, which no decision has seen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from tests.benchmarks.lines import extend

SEEDS = 20
ALLOWED = 1.0
MNIST_IMAGES = 1000
CASES: dict[str, dict[str, Any]] = {
    "digits": {"size": 16},
    "digits, 12 plans tried": {"size": 16, "trials": 12},
    "mnist, 1,000 images": {"size": 28},
}


def compressed(case: str, seed: int, mnist: Path | None) -> dict[str, Any]:
    """What a compression came to."""
    with tempfile.TemporaryDirectory() as folder:
        data = "digits"
        if mnist is not None and case.startswith("mnist"):
            data = str(some_of(mnist, seed, Path(folder) / "some.npz"))
        found = nas.compress(
            "resnet8", data=data, seed=seed, train_epochs=15, stage_epochs=5, max_accuracy_drop=ALLOWED,
            latency_from="estimated", out=Path(folder) / "run", **CASES[case],
        ).metrics  # fmt: skip
    lost = found["test_change"]["points"]
    return {
        "kept": lost <= ALLOWED + 1e-9,
        "test_points_lost": lost,
        "val_points_lost": found["promise"]["points"],
        "val_points_lost_upper": found["promise"]["high"],
        "reference_test_accuracy": found["reference_test_accuracy"],
        "test_accuracy": found["test_accuracy"],
        "reference_bytes": found["reference"]["file_bytes"],
        "coded_bytes": found["coded_bytes"],
        "share": found["coded_bytes"] / found["reference"]["file_bytes"],
        "stages": [[row["label"], row["rung"], row["accepted"]] for row in found["waterfall"][1:]],
        "seconds": found["seconds"],
    }


def some_of(mnist: Path, seed: int, path: Path) -> Path:
    """A file with as many of the training images, drawn by the seed, and all test images."""
    arrays = np.load(mnist)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(arrays["train_y"]))[:MNIST_IMAGES])
    train = {"x_train": arrays["train_x"][chosen], "y_train": arrays["train_y"][chosen]}
    np.savez(path, **train, x_test=arrays["test_x"], y_test=arrays["test_y"])
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--mnist", type=Path, help="MNIST as .npz")
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    chosen = given.case or [case for case in CASES if given.mnist or not case.startswith("mnist")]
    cases = [(case, seed) for case in chosen for seed in range(given.seeds)]
    extend("promise", cases, partial(compressed, mnist=given.mnist), given.minutes)


if __name__ == "__main__":
    main()
