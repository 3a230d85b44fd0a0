"""The code for Cortex-M4 and M7 with their DSP instructions, under emulation: exact, and twice as fast as without them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compress.c99 import verify, write_c99
from compress.c99.layers import Convolution, ProgramLayer
from compress.c99.network_reader import read_network
from compress.c99.target_machines import MACHINES
from search_spaces import preset
from tests.compress.c99.files import graph_file, images, network_file
from tests.compress.c99.more_graphs import MORE_GRAPHS
from tests.compress.c99.test_graphs import GRAPHS, Draft, Graph
from tests.compress.c99.test_program import STRICT
from tests.optional_parts import require
from tests.parameters import quick, slow

PORTABLE = "-DKERNEL_PORTABLE"


@pytest.fixture(autouse=True)
def emulator() -> None:
    require(not MACHINES["cortex-m7"].missing(), MACHINES["cortex-m7"].missing())


def padded_far() -> Graph:
    """More padding than the window is high, strides that skip rows, and single outputs."""
    d = Draft(5)
    d.conv("x", "a", (5, 1, 3, 3), group=5, pads=[4, 4, 4, 4], strides=[2, 2])
    d.conv("a", "b", (5, 1, 2, 2), group=5, strides=[3, 1])
    d.conv("b", "c", (1, 5, 1, 1))
    d.conv("c", "y", (3, 1, 2, 3), pads=[1, 1, 0, 1])
    return d.graph(21, 17)


def wide() -> Graph:
    """Rows of more outputs than are summed at a time, of every stride, and a window over the whole image."""
    d = Draft(2)
    d.conv("x", "a", (2, 1, 3, 3), group=2, pads=[1, 1, 1, 1])
    d.conv("a", "b", (2, 1, 3, 3), group=2, pads=[1, 1, 1, 1], strides=[1, 2])
    d.conv("b", "c", (2, 1, 3, 3), group=2, pads=[0, 2, 2, 0], strides=[2, 3])
    d.conv("c", "y", (7, 2, 2, 13))
    return d.graph(5, 77)


@pytest.mark.parametrize("make", quick([*GRAPHS, padded_far, wide, *MORE_GRAPHS], [*GRAPHS[1:5], padded_far, wide]))
def test_every_kernel_computes_the_same_numbers(make: Callable[[], Graph], tmp_path: Path) -> None:
    nodes, weights, shape = make()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape)
    write_c99(file, tmp_path / "c")
    portable = replace(MACHINES["cortex-m7"], name="portable", flags=(*MACHINES["cortex-m7"].flags, PORTABLE))
    result = verify(tmp_path / "c", file, images(shape, 3, seed=1), machines=["cortex-m7", portable], layer_images=3)
    for measured in result.machines:
        assert measured.exact == measured.values
        assert measured.equal == measured.images == 2
    assert len(result.machines) == 2


@pytest.mark.parametrize("name", ["cortex-m33", slow("cortex-m0plus"), slow("cortex-m55")])
def test_other_cores_compute_the_same_and_count_the_same_instructions(name: str, tmp_path: Path) -> None:
    """The boards' timers differ; code with DSP instructions is the same on M4 and M33, and nearly so on M55, so are its instructions."""
    nodes, weights, shape = padded_far()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape)
    write_c99(file, tmp_path / "c")
    result = verify(tmp_path / "c", file, images(shape, 1, seed=1), machines=["cortex-m4", name], layer_images=1)
    m4, other = result.machines
    assert other.exact == other.values
    assert other.equal == other.images == 1
    assert m4.total_instructions is not None
    assert other.total_instructions is not None
    ratio = other.total_instructions / m4.total_instructions
    least, most = {"cortex-m0plus": (3, 10), "cortex-m33": (0.95, 1.05), "cortex-m55": (0.95, 1.1)}[name]
    assert least < ratio < most


@pytest.mark.slow
def test_sums_are_cut_off_where_the_activation_says(tmp_path: Path) -> None:
    """Limits within the integers, as a scale that is shared with another tensor makes them."""
    arch = preset("mobilenetv2_035", input_shape=(3, 32, 32), num_classes=10)
    file = network_file(tmp_path / "model.onnx", arch)
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".act.zero_point"):
            tensor.CopyFrom(numpy_helper.from_array(np.uint8(60), tensor.name))
    onnx.save(model, file)
    steps = [layer.steps[0] for layer in read_network(file).layers]
    assert {s.depthwise for s in steps if isinstance(s, Convolution) and s.to.low == 60 - 128} == {False, True}
    write_c99(file, tmp_path / "c")
    result = verify(tmp_path / "c", file, images(arch.input_shape, 1), machines=["cortex-m7"], layer_images=1)
    assert result.machines[0].exact == result.machines[0].values


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m7"])
def test_dsp_instructions_halve_what_convolutions_take(name: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    arch = preset("mobilenetv2_035", input_shape=(3, 64, 64), num_classes=10)
    file = network_file(tmp_path / "model.onnx", arch)
    written = write_c99(file, tmp_path / "c")
    layers = read_network(file).layers
    portable = replace(machine, name="portable", flags=(*machine.flags, PORTABLE))
    result = verify(tmp_path / "c", file, images(arch.input_shape, 1), machines=[machine, portable], layer_images=1)
    fast, slower = result.machines
    for kind in ("depthwise", "1x1"):
        chosen = [i for i, layer in enumerate(layers) if kind == kind_of(layer)]
        assert len(chosen) > 10
        assert 2 * sum(fast.instructions[i] for i in chosen) <= sum(slower.instructions[i] for i in chosen), kind
    assert written.buffer_bytes <= fast.stack_bytes <= written.buffer_bytes + 1024


def kind_of(layer: ProgramLayer) -> str:
    step = layer.steps[0]
    if not isinstance(step, Convolution):
        return ""
    return "depthwise" if step.depthwise else "1x1" if step.window.kernel_size == (1, 1) else ""


@pytest.mark.parametrize(
    "flags", [slow((["-O0"],)), slow((["-Os"],)), ["-O3"], ["-Os", PORTABLE], slow((["-Os", "-mfloat-abi=soft"],))]
)
def test_it_compiles_without_a_warning(flags: list[str], tmp_path: Path) -> None:
    nodes, weights, shape = padded_far()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape)
    write_c99(file, tmp_path / "c")
    for name in ("cortex-m4", "cortex-m7"):
        machine = MACHINES[name]
        command = [machine.compiler, *STRICT, *machine.flags, *flags, "-c", "model.c", "kernels.c"]
        built = subprocess.run(command, cwd=tmp_path / "c", capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr[:2000]
