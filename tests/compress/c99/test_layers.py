"""Every layer of a network, fed the reference's own inputs: numpy beside ONNX Runtime's nodes, C beside numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compress.c99 import verify, write_c99
from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images, run_layers
from search_spaces import Arch, list_spaces, preset, sample
from tests.compress.c99.files import images, network_file, onnx_layers
from tests.parameters import quick

PRESETS = [("resnet8", 32), ("mobilenetv2_035", 48), ("mobilenetv3_small_050", 32)]
NAMES = [*(name for name, _ in PRESETS), *list_spaces()]


def arch_of(name: str) -> Arch:
    for key, size in PRESETS:
        if key == name:
            return preset(name, input_shape=(3, size, size), num_classes=10)
    return sample(name, seed=3, input_shape=(3, 32, 32), num_classes=10)


@pytest.mark.parametrize("name", quick(NAMES, ["resnet8", "mobilenet", "tiny"]))
def test_each_layer_is_what_onnx_runtime_and_c_make_of_the_same_inputs(name: str, tmp_path: Path) -> None:
    arch = arch_of(name)
    file = network_file(tmp_path / "model.onnx", arch)
    network = read_network(file)
    x = images(arch.input_shape, 4, seed=1)
    values = run_layers(network, quantize_images(network, x)[0])
    made = onnx_layers(file, network, values)
    off = np.concatenate([np.abs(made[key] - values[key]).reshape(-1) for key in made])
    assert off.max() <= 1
    assert (off > 0).mean() < 1e-3
    write_c99(file, tmp_path / "c")
    result = verify(tmp_path / "c", file, x, machines=["host"])
    assert result.problems == ()
    assert (
        result.machines[0].exact
        == result.machines[0].values
        == 2 * sum(t.size for t in values.values()) - 2 * x[0].size
    )
    assert result.machines[0].equal == 4
