"""CIFAR-10: files 25 to 200 times smaller than a ResNet-18, and networks of the same bytes trained for as long.

    python tests/benchmarks/two_hundred.py --data FILE.npz --files FOLDER --epochs 60 --seconds 3600 --minutes 600

FILE.npz holds x_train, y_train, x_test and y_test. timm's ResNet-18 is trained for ``--epochs`` from random weights and kept
in FOLDER, where everything goes on that was interrupted. Each line is one case and seed. "compressed 200 ×": ``nas
compress`` of the trained network with that target size, at most one point lost, in ``--seconds``. "direct 200 ×": ResNet-8,
so wide that its int8 file has about that size, trained with the ResNet-18 as teacher in the same time. "mild, zeros first"
and "mild, channels first": the same two stages in the wrong and in the right order, and the same for strong ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from blocks.spec import BlockSpec
from compress import Artifact, Distill, Encode, Preprocessing, Prune, Recipe, Sparsify
from compress.atomic_files import read_json
from compress.stage_interface import Stage
from compress.stages.plan_file import Plan
from nas.compression.strengths import PLAIN_INT8
from search_spaces import Arch, build_model, preset
from tests.benchmarks.lines import extend, latest_by_case
from tests.benchmarks.markdown import commits, table

NAME = "two_hundred"
RATIOS = (25, 50, 100, 200)
_AMOUNTS = {"mild": (0.3, 0.5), "strong": (0.6, 0.9)}  # shares of channels and of zeros
_ORDERS = ("zeros first", "channels first")
_WIDTHS = tuple(i / 16 for i in range(4, 65))
CASES = (
    *(f"{way} {ratio} ×" for ratio in RATIOS for way in ("compressed", "direct")),
    *(f"{strength}, {order}" for strength in _AMOUNTS for order in _ORDERS),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """What all cases have in common; ``model`` is the network that is compressed."""

    data: str
    size: int
    files: Path
    model: str
    epochs: float
    seconds: float

    def run(self, case: str, seed: int) -> dict[str, Any]:
        """What a case comes to; one that misses its size says what was nearest."""
        full, out = self.full(seed), self.files / f"{case}-{seed}"
        way, _, rest = case.partition(" ")
        try:
            if way == "compressed":
                self._compressed(full, int(rest.split()[0]), seed, out)
            elif way == "direct":
                self._direct(full, int(rest.split()[0]), seed, out)
            else:
                self._ordered(full, *case.split(", "), seed, out)
        except nas.NothingFitsError as error:
            print(error, flush=True)
        found, whole = read_json(out / "metrics.json"), Artifact.load(full).metrics
        return {
            "full_bytes": whole["file_bytes"],
            "full_test_accuracy": read_json(full.parent / "metrics.json")["reference_test_accuracy"],
            "test_accuracy": found["test_accuracy"],
            "coded_bytes": found["coded_bytes"],
            "ratio": whole["file_bytes"] / found["coded_bytes"],
            "target_met": found["target_met"],
            "latency_ms": found["latency_ms"],
            "stages": [[row["label"], row["rung"], row["accepted"]] for row in found["waterfall"][1:]],
            "seconds": found["seconds"],
        }

    def full(self, seed: int) -> Path:
        """The folder of the trained network."""
        place = self.files / f"full-{seed}"
        self.files.mkdir(parents=True, exist_ok=True)
        plan = self._plan([PLAIN_INT8], f"full-{seed}")
        nas.compress(
            self.model, train_epochs=self.epochs, plan=plan, max_accuracy_drop=100, **self._common(seed, place)
        )
        return place / "reference"

    def _common(self, seed: int, out: Path) -> dict[str, Any]:
        return {"data": self.data, "size": self.size, "seed": seed, "latency_from": "estimated", "out": out}

    def _compressed(self, full: Path, ratio: int, seed: int, out: Path) -> None:
        target = Artifact.load(full).metrics["file_bytes"] // ratio
        nas.compress(
            Artifact.load(full), target_size=f"{target}B", time=f"{self.seconds:g}s", max_accuracy_drop=1.0,
            **self._common(seed, out),
        )  # fmt: skip

    def _direct(self, full: Path, ratio: int, seed: int, out: Path) -> None:
        artifact = Artifact.load(full)
        arch = of_size(artifact.metrics["file_bytes"] // ratio, artifact.preprocessing)
        given = Artifact(source=arch, weights={}, preprocessing=artifact.preprocessing).with_model(build_model(arch))
        recipe = Recipe(epochs=10_000, seconds=0.95 * self.seconds)
        plan = self._plan([Distill(recipe=recipe), PLAIN_INT8, Encode()], f"direct-{ratio}-{seed}")
        teacher = str(full / artifact.files["onnx"])
        nas.compress(given, plan=plan, teacher=teacher, max_accuracy_drop=100, **self._common(seed, out))

    def _ordered(self, full: Path, strength: str, order: str, seed: int, out: Path) -> None:
        channels, zeros = _AMOUNTS[strength]
        recipe = Recipe(epochs=10_000, learning_rate=0.03, seconds=0.45 * self.seconds)
        stages: list[Stage] = [Prune(amount=channels, steps=2, recipe=recipe), Sparsify(amount=zeros, recipe=recipe)]
        ordered = [*(reversed(stages) if order == _ORDERS[0] else stages), PLAIN_INT8, Encode()]
        plan = self._plan(ordered, f"{strength}-{order}-{seed}", any_order=True)
        nas.compress(Artifact.load(full), plan=plan, max_accuracy_drop=100, **self._common(seed, out))

    def _plan(self, stages: Sequence[Stage], name: str, *, any_order: bool = False) -> Path:
        path = self.files / f"{name}.toml"
        path.write_text(Plan(stages=stages, any_order=any_order).to_toml())
        return path


def of_size(size: int, preprocessing: Preprocessing) -> Arch:
    """ResNet-8, as wide as a byte for each weight allows."""
    plain = preset("resnet8", input_shape=preprocessing.input_shape, num_classes=len(preprocessing.class_names))
    fitting = [arch for width in _WIDTHS if (arch := of_width(plain, width)).workload().weight_count <= size]
    return max(fitting, key=lambda arch: arch.workload().weight_count)


def of_width(arch: Arch, width: float) -> Arch:
    """The network with ``width`` times the channels, in multiples of 8."""

    def wider(spec: BlockSpec, in_channels: int) -> BlockSpec:
        out, mid = (
            max(8, 8 * round(width * each / 8)) if each else each for each in (spec.out_channels, spec.mid_channels)
        )
        return replace(spec, in_channels=in_channels, out_channels=out, mid_channels=mid)

    stem = wider(arch.stem, arch.stem.in_channels)
    stages, channels = [], stem.out_channels
    for stage in arch.stages:
        blocks = []
        for spec in stage:
            blocks.append(wider(spec, channels))
            channels = blocks[-1].out_channels
        stages.append(tuple(blocks))
    return replace(arch, stem=stem, stages=tuple(stages))


def two_hundred() -> str:
    """The section of docs/benchmarks.md."""
    found = latest_by_case(NAME)
    if not found:
        return ""
    rows = [
        (
            case,
            len(lines),
            f"{mean(line['ratio'] for line in lines):.0f}",
            f"{mean(line['coded_bytes'] for line in lines):.0f}",
            f"{mean(line['full_test_accuracy'] for line in lines):.2%}",
            f"{mean(line['test_accuracy'] for line in lines):.2%}",
            "yes" if all(line["target_met"] for line in lines) else "no",
            f"{mean(line['seconds'] for line in lines):.0f}",
        )
        for case, lines in found.items()
    ]
    head = ("case", "seeds", "times smaller", "coded bytes", "full network", "test accuracy", "size reached", "seconds")
    every = [line for lines in found.values() for line in lines]
    return (
        f"## Two hundred times smaller\n\n`python tests/benchmarks/two_hundred.py`; commit {commits(every)}. CIFAR-10, "
        f"timm's ResNet-18.\n\n{table(head, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--files", type=Path, required=True, help="a folder where networks stay")
    parser.add_argument("--model", default="timm:resnet18")
    parser.add_argument("--epochs", type=float, default=60, help="of the network that is compressed")
    parser.add_argument("--seconds", type=float, default=3600, help="for each case")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600)
    given = parser.parse_args()
    course = Course(
        data=given.data, size=given.size, files=given.files, model=given.model, epochs=given.epochs,
        seconds=given.seconds,
    )  # fmt: skip
    cases = [(case, seed) for seed in range(given.seeds) for case in given.case or CASES]
    extend(NAME, cases, course.run, given.minutes)


if __name__ == "__main__":
    main()
