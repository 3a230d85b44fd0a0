"""In what multiples channels should leave: the same share of channels removed in multiples of 8 and of 16.

    python tests/benchmarks/channel_multiple.py --minutes 5

Each line: one random network of the space ``mobilenet``, a fifth of its channels removed by L2; how long the file then
takes as a share of the unpruned file's time, both run in turn on this machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Artifact, Preprocessing
from compress.pruning.importance import channel_scores
from compress.pruning.prunable_network import prunable_network
from hw_profiles import load_device
from hw_profiles.measurement.latency_measurement import compare
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.tensor_formats import PRECISIONS
from hw_profiles.network.workload import Workload
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import build_model, sample
from tests.benchmarks.lines import extend
from tests.prunings import remove_channels, select_channels

MULTIPLES = (8, 16)
AMOUNT = 0.2


def artifact_of(seed: int) -> Artifact:
    arch = sample("mobilenet", seed=seed)
    record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a", "b"))
    return Artifact(source=arch, weights={}, preprocessing=record).with_model(build_model(arch, seed=seed))


def write(workload: Workload, precision: str, path: Path) -> Path:
    quantization = fixed_quantization(workload) if precision == "int8" else None
    path.write_bytes(write_onnx(workload, quantization=quantization))
    return path


def run(case: str, seed: int) -> dict[str, Any]:
    artifact, device = artifact_of(seed), load_device("host")
    network = prunable_network(artifact)
    scores = channel_scores(network.model, network.groups, "l2")
    channels = sum(map(len, scores.values()))
    line: dict[str, Any] = {"channels": channels}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for multiple in MULTIPLES:
            kept = select_channels(scores, AMOUNT * channels, multiple)
            pruned = remove_channels(artifact, kept).source.workload()
            line[f"left_{multiple}"] = round(sum(map(len, kept.values())) / channels, 4)
            for precision in PRECISIONS:
                before = write(artifact.source.workload(), precision, folder / "before.onnx")
                after = write(pruned, precision, folder / "after.onnx")
                line[f"{precision}_{multiple}"] = [round(r, 4) for r in compare(after, before, device)]
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    extend("channel_multiple", [("mobilenet", seed) for seed in range(30)], run, parser.parse_args().minutes)


if __name__ == "__main__":
    main()
