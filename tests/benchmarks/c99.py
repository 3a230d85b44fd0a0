"""Generated C beside its reference and ONNX Runtime, layer by layer, over many networks.

    python tests/benchmarks/c99.py --minutes 30

Each line: numbers that the layers make of the reference's inputs; how many of them are other ones in C, and in ONNX
Runtime's nodes, and by how many steps at most; images whose outputs C changes; bytes of code and constants on the host.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress.c99 import verify, write_c99
from compress.c99.network import read_network
from compress.c99.reference import quantize_images, run_layers
from search_spaces import Arch, list_presets, list_spaces, preset, sample
from tests.benchmarks.lines import extend
from tests.compress.c99.files import images, network_file, onnx_layers

SIDES = (32, 64, 96)
CASES = [
    *((space, seed) for seed in range(50) for space in list_spaces()),
    *((f"{name}@{side}", 0) for side in SIDES for name in list_presets()),
]


def arch_of(case: str, seed: int) -> Arch:
    name, _, side = case.partition("@")
    if side:
        return preset(name, input_shape=(3, int(side), int(side)), num_classes=10)
    return sample(name, seed=seed, input_shape=(3, 32, 32), num_classes=10)


def measure(case: str, seed: int) -> dict[str, Any]:
    arch = arch_of(case, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = network_file(folder / "model.onnx", arch, seed=seed)
        network = read_network(file)
        x = images(arch.input_shape, 32, seed=1)
        values = run_layers(network, quantize_images(network, x)[0])
        made = onnx_layers(file, network, values)
        off = np.concatenate([np.abs(made[key] - values[key]).reshape(-1) for key in made])
        write_c99(file, folder / "c")
        result = verify(folder / "c", file, x, machines=["host"], layer_images=4)
    host = result.machines[0]
    return {
        "values": host.values,
        "c_differs": host.values - host.exact,
        "c_largest": host.largest,
        "ort_differs": round(float((off > 0).mean()), 7),
        "ort_largest": int(off.max()),
        "images_differ": host.images - host.equal,
        "arena_bytes": network.arena_bytes,
        "code_bytes": host.sizes.code,
        "constant_bytes": host.sizes.constants,
        "weights": network.weights,
        "problems": list(result.problems),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    extend("c99", CASES, measure, parser.parse_args().minutes)


if __name__ == "__main__":
    main()
