"""The plan that ``nas compress`` finds, and three that people choose by hand, in the same time.

    python tests/benchmarks/automatic_plan.py [--data FILE.npz --size 32] --seconds 600 --files FOLDER --minutes 60

Each line: one way and seed. All begin with the same ResNet-8, which is trained once for each seed and kept in FOLDER. The
automatic plan has ``--seconds`` for everything and may lose one point of accuracy; by hand, int8 after training, half of
the channels and int8, and 80 % zeros and int8 train for as long, and may lose what they lose. Bytes are those of the coded
file, accuracy that on the test images; latency is measured, beside the file of the automatic plan in alternation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from compress import Artifact, Encode, Prune, Quantize, Recipe, Sparsify
from compress.stage_interface import Stage
from compress.stages.plan_file import Plan
from hw_profiles import load_device
from hw_profiles.measurement.latency_measurement import compare
from tests.benchmarks.lines import extend, latest_by_case
from tests.benchmarks.markdown import commits, table

NAME = "automatic_plan"
AUTOMATIC = "automatic"
ALLOWED = 1.0
_INT8 = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False)

BY_HAND: dict[str, Callable[[Recipe], Sequence[Stage]]] = {
    "int8 after training": lambda recipe: (_INT8, Encode()),
    "half of the channels, int8": lambda recipe: (Prune(amount=0.5, steps=2, recipe=recipe), _INT8, Encode()),
    "80 % zeros, int8": lambda recipe: (Sparsify(amount=0.8, recipe=recipe), _INT8, Encode()),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """What all ways have in common."""

    data: str
    size: int
    epochs: float
    seconds: float
    files: Path

    def start(self, seed: int) -> Artifact:
        """The trained network."""
        place = self.files / f"start-{seed}"
        nas.compress(
            "resnet8", data=self.data, size=self.size, seed=seed, train_epochs=self.epochs, max_accuracy_drop=100,
            plan=self._plan([_INT8], seed), latency_from="estimated", out=place,
        )  # fmt: skip
        return Artifact.load(place / "reference")

    def run(self, way: str, seed: int) -> dict[str, Any]:
        """What a way comes to."""
        common = {"data": self.data, "size": self.size, "seed": seed, "out": self.files / f"{way}-{seed}"}
        start = self.start(seed)
        if way == AUTOMATIC:
            found = nas.compress(start, time=f"{self.seconds:g}s", max_accuracy_drop=ALLOWED, **common)
        else:
            recipe = Recipe(epochs=1000, learning_rate=0.03, seconds=0.9 * self.seconds)
            plan = self._plan(BY_HAND[way](recipe), seed)
            found = nas.compress(start, plan=plan, max_accuracy_drop=100, **common)
        metrics, automatic = found.metrics, self.files / f"{AUTOMATIC}-{seed}"
        beside = next(automatic.glob("model*.onnx"), None)
        return {
            "test_accuracy": metrics["test_accuracy"],
            "reference_test_accuracy": metrics["reference_test_accuracy"],
            "coded_bytes": metrics["coded_bytes"],
            "reference_bytes": metrics["reference"]["coded_bytes"],
            "latency_ms": metrics["latency_ms"],
            "latency_over_automatic": None
            if beside is None
            else list(compare(found.deployed, beside, load_device("host"))),
            "stages": [[row["label"], row["rung"], row["accepted"]] for row in metrics["waterfall"][1:]],
            "seconds": metrics["seconds"],
        }

    def _plan(self, stages: Sequence[Stage], seed: int) -> Path:
        self.files.mkdir(parents=True, exist_ok=True)
        path = self.files / f"{'-'.join(stage.name for stage in stages)}-{seed}.toml"
        path.write_text(Plan(stages=stages).to_toml())
        return path


def automatic_plan() -> str:
    """The section of docs/benchmarks.md."""
    found = latest_by_case(NAME)
    if not found:
        return ""
    rows = [
        (
            way,
            len(lines),
            f"{mean(line['test_accuracy'] for line in lines):.2%}",
            f"{mean(100 * (line['reference_test_accuracy'] - line['test_accuracy']) for line in lines):.2f}",
            f"{mean(line['coded_bytes'] for line in lines):.0f}",
            f"{mean(line['reference_bytes'] / line['coded_bytes'] for line in lines):.1f}",
            f"{mean(line['latency_over_automatic'][0] for line in lines if line['latency_over_automatic']):.2f}",
            f"{mean(line['seconds'] for line in lines):.0f}",
        )
        for way, lines in found.items()
    ]
    head = (
        "way",
        "seeds",
        "test accuracy",
        "points lost",
        "coded bytes",
        "times smaller",
        "time / automatic",
        "seconds",
    )
    every = [line for lines in found.values() for line in lines]
    return (
        f"## Automatic plan and plans by hand\n\n`python tests/benchmarks/automatic_plan.py`; commit {commits(every)}. The "
        f"same trained ResNet-8 and the same total time for each.\n\n{table(head, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=15, help="of the network that is compressed")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--files", type=Path, required=True, help="a folder where networks stay")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60)
    given = parser.parse_args()
    course = Course(data=given.data, size=given.size, epochs=given.epochs, seconds=given.seconds, files=given.files)
    cases = [(way, seed) for seed in range(given.seeds) for way in (AUTOMATIC, *BY_HAND)]
    extend(NAME, cases, course.run, given.minutes)


if __name__ == "__main__":
    main()
