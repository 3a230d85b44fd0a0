"""Generated C beside its reference, ONNX Runtime, another generator, and itself without DSP instructions.

    python tests/benchmarks/c99.py --minutes 30 [--only speed|instructions|exact] [--emx PROGRAM]

``exact`` (every space, 50 random networks at 32 pixels; every preset at 32 to 96): numbers that the layers make of the
reference's inputs, how many of them are other ones in C, and in ONNX Runtime's nodes, and by how many steps at most (of
a convolution and a function after it, each node may round otherwise: the second is told what it makes of the first's
neighbors too); images whose outputs C changes; the arena beside the least that must live at once; bytes of code and constants.
``speed``: milliseconds on this machine beside ONNX Runtime and emx-onnx-cgen, in turn (c99_speed.py).
``instructions``: for each multiply-accumulate on Cortex-M4 and M7, emulated (c99_instructions.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress.c99 import verify, write_c99
from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images, run_layers
from compress.c99.runtime_layers import steps_apart
from compress.c99.target_machines import MACHINES, sizes
from hw_profiles.memory.lifetimes import lifetimes, storages
from hw_profiles.memory.ordering import best_order
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.runtimes.fusion import fuse
from search_spaces import Arch, list_presets, list_spaces, preset, sample
from tests.benchmarks import c99_instructions, c99_speed
from tests.benchmarks.lines import extend
from tests.compress.c99.files import images, network_file, onnx_layers

SIDES = (32, 64, 96)
IMAGES = {"space": 32, "preset": 4}
SPACES = [(space, seed) for seed in range(50) for space in list_spaces()]
PRESETS = [(f"{name}@{side}", 0) for side in SIDES for name in list_presets()]


def arch_of(case: str, seed: int) -> Arch:
    name, _, side = case.partition("@")
    if side:
        return preset(name, input_shape=(3, int(side), int(side)), num_classes=10)
    return sample(name, seed=seed, input_shape=(3, 32, 32), num_classes=10)


def least_bytes(file: Path) -> int:
    """What must live at once in the best order: no arena can be smaller."""
    workload = read_onnx(file)
    problem = storages(workload, fuse(workload, "c99"), "c99")
    return max(lifetimes(problem, best_order(problem)).live)


def exact(case: str, seed: int) -> dict[str, Any]:
    arch = arch_of(case, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = network_file(folder / "model.onnx", arch, seed=seed)
        network = read_network(file)
        x = images(arch.input_shape, IMAGES["preset" if "@" in case else "space"], seed=1)
        values = run_layers(network, quantize_images(network, x)[0])
        made = onnx_layers(file, network, values)
        off = np.concatenate([np.abs(made[key] - values[key]).reshape(-1) for key in made])
        steps = [
            steps_apart(layer, [values[t.name].reshape(t.shape) for t in layer.inputs], made[layer.output.name])
            for layer in network.layers
            if layer.output.name in made
        ]
        write_c99(file, folder / "c")
        result = verify(folder / "c", file, x, machines=["host"], layer_images=4)
        small = sizes(MACHINES["cortex-m7"], folder / "c", folder)
        least = least_bytes(file)
    host = result.machines[0]
    return {
        "values": host.values,
        "c_differs": host.values - host.exact,
        "c_largest": host.largest,
        "ort_differs": round(float((off > 0).mean()), 7),
        "ort_largest": max(steps),
        "images": host.images,
        "images_differ": host.images - host.equal,
        "arena_bytes": network.arena_bytes,
        "least_bytes": least,
        "code_bytes": small.code,
        "constant_bytes": small.constants,
        "weights": network.weights,
        "channels": sum(len(step.weight) for step in network.convolutions()),
        "problems": list(result.problems),
    }


def measure(emx: str, case: str, seed: int) -> dict[str, Any]:
    kind, _, name = case.rpartition(":")
    kinds: Mapping[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: c99_speed.measure(name, emx),
        "instructions": lambda: c99_instructions.measure(name),
        "": lambda: exact(name, seed),
    }
    return kinds[kind]()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--only", choices=["speed", "instructions", "exact"])
    parser.add_argument("--emx", default="emx-onnx-cgen", help="the program of that name, pip install emx-onnx-cgen")
    parsed = parser.parse_args()
    cases = {
        "speed": [("speed:resnet8@32", 0)],
        "instructions": [(f"instructions:{name}", 0) for name in c99_instructions.NETWORKS],
        "exact": [*SPACES, *PRESETS],
    }
    chosen = [case for kind, found in cases.items() if parsed.only in (None, kind) for case in found]
    extend("c99", chosen, partial(measure, parsed.emx), parsed.minutes)


if __name__ == "__main__":
    main()
