"""Whether the promise of ``nas compress`` holds on test images, and how small the files are.

    python tests/benchmarks/promise.py --minutes 10

Each line: one seed of digits (1,797 images of 8 × 8, read at 16 × 16). ResNet-8 is trained for 15 epochs and compressed
by the usual plan with at most one point of accuracy lost; the seed sets the split, the weights and the order of images.
``kept``: the deployed file loses at most one point on the test images, which no decision has seen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from tests.benchmarks.lines import extend

SEEDS = 20
ALLOWED = 1.0


def compressed(case: str, seed: int) -> dict[str, Any]:
    """What a compression came to."""
    with tempfile.TemporaryDirectory() as folder:
        found = nas.compress(
            "resnet8", data=case, size=16, seed=seed, train_epochs=15, stage_epochs=5, max_accuracy_drop=ALLOWED,
            latency_from="estimated", out=folder,
        ).metrics  # fmt: skip
    lost = found["test_change"]["points"]
    return {
        "kept": lost <= ALLOWED + 1e-9,
        "test_points_lost": lost,
        "val_points_lost": found["promise"]["points"],
        "reference_test_accuracy": found["reference_test_accuracy"],
        "test_accuracy": found["test_accuracy"],
        "reference_bytes": found["reference"]["file_bytes"],
        "coded_bytes": found["coded_bytes"],
        "share": found["coded_bytes"] / found["reference"]["file_bytes"],
        "stages": [[row["label"], row["rung"], row["accepted"]] for row in found["waterfall"][1:]],
        "seconds": found["seconds"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    extend("promise", [("digits", seed) for seed in range(SEEDS)], compressed, parser.parse_args().minutes)
