"""Instructions that generated C takes for each multiply-accumulate on emulated microcontrollers, by kind of kernel."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.c99 import verify, write_c99
from compress.c99.kernel_calls import direct
from compress.c99.layers import Convolution, ProgramLayer
from compress.c99.network_reader import read_network
from compress.c99.target_machines import MACHINES, Machine
from compress.c99.verification import Measured
from search_spaces import preset
from tests.compress.c99.files import images, network_file

NETWORKS = ("resnet8@32", "mobilenetv1_025@96", "mobilenetv2_035@96", "mobilenetv2_035@144")


def machines() -> dict[str, Machine]:
    """Both processors, with DSP instructions and without."""
    found = {}
    for name in ("cortex-m4", "cortex-m7"):
        machine = MACHINES[name]
        found[f"{name} dsp"] = machine
        found[f"{name} portable"] = replace(
            machine, name=f"{name}-portable", flags=(*machine.flags, "-DKERNEL_PORTABLE")
        )
    return found


def kind(layer: ProgramLayer) -> str:
    step = layer.steps[0]
    if not isinstance(step, Convolution):
        return "others"
    if step.depthwise:
        return "depthwise"
    if direct(step, layer.inputs[0].shape):
        return "fully connected"
    return "1x1" if step.window.kernel_size == (1, 1) else "window"


def by_kind(layers: tuple[ProgramLayer, ...], measured: Measured) -> dict[str, float]:
    """Instructions for each MAC of the layers of one kind, and ``whole``: of all layers for each MAC of the network."""
    totals: dict[str, list[int]] = {}
    for layer, instructions in zip(layers, measured.instructions, strict=True):
        total = totals.setdefault(kind(layer), [0, 0])
        total[0] += instructions
        total[1] += layer.macs
    whole = [sum(total[i] for total in totals.values()) for i in (0, 1)]
    found = {name: round(n / m, 3) for name, (n, m) in totals.items() if m}
    return {**found, "whole": round(whole[0] / whole[1], 3), "instructions": whole[0]}


def measure(case: str) -> dict[str, Any]:
    name, _, side = case.partition("@")
    arch = preset(name, input_shape=(3, int(side), int(side)), num_classes=1000 if side == "144" else 10)
    with tempfile.TemporaryDirectory() as folder:
        file = network_file(Path(folder, "model.onnx"), arch)
        network = read_network(file)
        write_c99(file, Path(folder, "c"))
        result = verify(
            Path(folder, "c"),
            file,
            images(arch.input_shape, 1, seed=1),
            machines=list(machines().values()),
            layer_images=1,
            emulated_images=1,
        )
    return {
        "macs": network.macs,
        "arena_bytes": network.arena_bytes,
        "weights": network.weights,
        "per_mac": {m: by_kind(network.layers, found) for m, found in zip(machines(), result.machines, strict=True)},
        **_sizes(dict(zip(machines(), result.machines, strict=True))),
        "problems": list(result.problems),
    }


def _sizes(found: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        "code_bytes": {name: m.sizes.code for name, m in found.items()},
        "constant_bytes": {name: m.sizes.constants for name, m in found.items()},
        "stack_bytes": {name: m.stack_bytes for name, m in found.items()},
    }
