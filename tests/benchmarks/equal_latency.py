"""The network of a search beside presets of the same latency, all trained as long, with the same teacher.

    python tests/benchmarks/equal_latency.py --data cifar10.npz --teacher teacher.onnx --out runs/equal --minutes 90

The limit is the int8 latency of the preset ResNet-8 at the data's resolution, measured first. The search has 40 minutes
for networks of at most that. Then each network is trained from random weights for 15 minutes, led by the same teacher
and by the recipe of ``nas run``, made int8, and its file run on the test images in ONNX Runtime. mobilenetv2 is the
widest preset of that family that is as fast. Each line: accuracies, latency beside that of ResNet-8 (both files run in
turn), and how many images only one of the two gets right. A benchmark that was interrupted goes on in ``--out``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Artifact, Context, Dataset, Quantize, Recipe, load_data
from compress.atomic_files import read_json, write_json
from compress.networks.onnx_export import predict_onnx
from compress.stages.accuracy_change import AccuracyChange
from compress.stages.deployed_file import deploy
from compress.training.recipe import from_random_weights
from compress.training.teachers import OnnxTeacher
from hw_profiles import load_device, profile
from hw_profiles.measurement.latency_measurement import compare
from nas import search_networks
from nas.execution.long_trainings import trained_network
from nas.pipeline.training_speed import TrainingPace, teacher_speed, training_speeds
from search_spaces import list_presets, preset
from search_spaces.arch import Arch
from tests.benchmarks.lines import extend, latest_by_case, read
from tests.benchmarks.markdown import commits, table

NAME = "equal_latency"
FIRST = "resnet8"
NETWORKS = (FIRST, "winner", "mobilenetv2")
MANY_EPOCHS = 10_000.0
CONFIDENCE = 0.975  # of each end of an interval


@dataclass(frozen=True)
class Race:
    """One seed's search and trainings, in a folder."""

    source: str
    teacher: Path
    folder: Path
    search_time: str
    train_minutes: float
    seed: int
    views: int | None = None
    given: Mapping[str, Arch] = field(default_factory=dict)

    @cached_property
    def data(self) -> Dataset:
        return load_data(self.source, seed=self.seed)

    @property
    def limit_ms(self) -> float:
        """Latency of ResNet-8 in int8, measured once."""
        kept = self.folder / "limit.json"
        if not kept.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            found = profile(self.preset(FIRST), load_device("host"), "int8", measured=True)
            write_json(kept, {"latency_ms": found.latency_ms})
        return float(read_json(kept, "latency_ms")["latency_ms"])

    def preset(self, name: str) -> Arch:
        return preset(name, input_shape=self.data.preprocessing.input_shape, num_classes=self.data.num_classes)

    def arch(self, network: str) -> Arch:
        """What is trained under this name."""
        if network in self.given:
            return self.given[network]
        if network == "winner":
            return search_networks(
                data=self.source, latency=f"{self.limit_ms:.5f}ms", time=self.search_time, seed=self.seed,
                teacher=str(self.teacher), out=self.folder / "search",
            ).winner  # fmt: skip
        if network == FIRST:
            return self.preset(FIRST)
        family = [self.preset(name) for name in sorted(list_presets()) if name.startswith(network)]
        device = load_device("host")
        fitting = [a for a in family if profile(a, device, "int8", measured=True).latency_ms <= self.limit_ms]
        return max(fitting, key=lambda each: each.workload().macs)

    def deployed(self, network: str) -> tuple[Artifact, Artifact]:
        """The trained network and its int8 form, each with a written file."""
        arch = self.arch(network)
        data = self.data.resized(*arch.input_shape[1:])
        teacher, seconds = OnnxTeacher(self.teacher, self.data), 60 * self.train_minutes
        context = Context(data=data, device=load_device("host"), seed=self.seed, teacher=teacher)
        pace = TrainingPace(network=training_speeds({network: arch})[network], teacher=teacher_speed(teacher, arch))
        views = self.views or pace.views(len(data.train), seconds)
        recipe = Recipe(epochs=MANY_EPOCHS, seconds=seconds, bfloat16=None, views=views)
        recipe = from_random_weights(recipe, len(data.train))
        home = self.file(network).parent
        trained = trained_network(arch, context, recipe, home.with_name("float"), what=network)
        if not (home / "artifact.json").is_file():
            shutil.rmtree(home, ignore_errors=True)
            deploy(Quantize()(trained, context), context, home)
        return trained, Artifact.load(home)

    def file(self, network: str) -> Path:
        views = f"_{self.views}_views" if self.views else ""
        return self._in(f"{network}{views}")

    @property
    def first(self) -> Path:
        """What the others are compared with."""
        return self._in(FIRST)

    def _in(self, name: str) -> Path:
        return self.folder / name / "int8" / "model.int8.onnx"

    def right(self, file: Path) -> NDArray[np.bool_]:
        """Which test images ONNX Runtime puts into the right class, (N,)."""
        artifact = Artifact.load(file.parent)
        test = self.data.resized(*artifact.source.input_shape[1:]).test
        right: NDArray[np.bool_] = predict_onnx(file, test, artifact.preprocessing) == test.labels
        return right

    def line(self, network: str) -> dict[str, Any]:
        """The results of one network, trained if need be."""
        trained, int8 = self.deployed(network)
        file = self.file(network)
        right = self.right(file)
        ratio, low, high = compare(file, self.first, load_device("host"))
        return {
            "arch": trained.source.id,
            "input_shape": trained.source.input_shape,
            "macs": trained.workload().macs,
            "limit_ms": self.limit_ms,
            "float_val_accuracy": trained.metrics["val_accuracy"],
            "val_accuracy": int8.metrics["val_accuracy"],
            "views": self.views,
            "epochs": round(trained.metrics["training"]["epochs"], 1),
            "file_bytes": file.stat().st_size,
            "latency_ms": int8.metrics["latency_ms"],
            "latency_ratio": [ratio, low, high],
            "test_accuracy": float(right.mean()),
            "beside_first": AccuracyChange.between(self.right(self.first), right).to_dict(CONFIDENCE),
        }


def equal_latency() -> str:
    """The section of docs/benchmarks.md; nothing without lines."""
    lines = read(NAME)
    if not lines:
        return ""
    rows = [
        (
            line["case"], line["seed"], "×".join(map(str, line["input_shape"])), f"{line['macs']:,}",
            f"{line['file_bytes']:,}", f"{line['epochs']:.0f}", f"{line['latency_ms']:.4f}",
            "{:.2f} ({:.2f} to {:.2f})".format(*line["latency_ratio"]), f"{line['test_accuracy']:.2%}",
            "{:+.2f} ({:+.2f} to {:+.2f})".format(*(-line["beside_first"][end] for end in ("points", "high", "low"))),
        )
        for each in latest_by_case(NAME).values() for line in each
    ]  # fmt: skip
    head = (
        "network", "seed", "input", "MACs", "bytes", "epochs", "latency ms", "time / ResNet-8", "test accuracy, int8",
        "points above ResNet-8 (95 %)",
    )  # fmt: skip
    return (
        "## The same latency\n\n`python tests/benchmarks/equal_latency.py --data cifar10.npz --teacher FILE`: CIFAR-10 as "
        "JPEG; a search of 40 minutes for networks of at most the int8 latency of ResNet-8; each network trained for 15 "
        "minutes with the same teacher. chosen_by_seconds led a search of 26 minutes whose candidates were trained for 60 "
        f"seconds each (commit {commits(lines)}).\n\n{table(head, rows)}"
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="a folder of images, or an .npz")
    parser.add_argument("--teacher", type=Path, required=True, help="an ONNX classifier of the same images")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--search-time", default="40min")
    parser.add_argument("--train-minutes", type=float, default=15)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--arch", type=Path, nargs="+", default=[], help="further networks: files such as winner.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--views", type=int, help="versions of each image that the teacher is asked about (default: as nas run)"
    )
    parser.add_argument("--minutes", type=float, default=90)
    given = parser.parse_args()
    folder = given.out / str(given.seed)
    archs = {path.stem: Arch.from_json(path.read_text()) for path in given.arch}
    race = Race(
        given.data, given.teacher, folder, given.search_time, given.train_minutes, given.seed, given.views, archs
    )
    names = [*given.networks, *archs]
    cases = {f"{name}, {given.views} views" if given.views else name: name for name in names}
    extend(NAME, [(case, given.seed) for case in cases], lambda case, _: race.line(cases[case]), given.minutes)


if __name__ == "__main__":
    main()
