"""Facts of a network for the report: blocks, memory over time, estimated latency."""

from __future__ import annotations

from typing import Any

from hw_profiles.devices.device import Device
from hw_profiles.latency.estimate import estimate
from hw_profiles.layer_profile import kernel_name
from hw_profiles.memory.planner import plan
from hw_profiles.network.workload import Workload
from hw_profiles.runtimes.fusion import fuse
from search_spaces.arch import Arch


def architecture_facts(arch: Arch) -> dict[str, Any]:
    """Every block with its specs, the (height, width) that it puts out, its parameters and MACs.

    >>> from search_spaces import preset
    >>> facts = architecture_facts(preset("resnet8"))
    >>> [block["resolution"] for block in facts["blocks"]]
    [[32, 32], [32, 32], [16, 16], [8, 8]]
    """
    workload = arch.workload()
    blocks = []
    for name, spec in arch.blocks():
        ops = [op for op in workload.ops if op.name == name or op.name.startswith(f"{name}.")]
        part = Workload(workload.input, ops[-1].name, tuple(ops), workload.shapes)
        cost = {"resolution": list(workload.shapes[ops[-1].name][2:]), "params": part.params, "macs": part.macs}
        blocks.append({"name": name, **spec.to_dict(), **cost})
    return {
        "id": arch.id,
        "input_shape": list(arch.input_shape),
        "num_classes": arch.num_classes,
        "features": arch.features,
        "blocks": blocks,
    }


def memory_facts(workload: Workload, device: Device) -> dict[str, Any]:
    """Bytes of activations alive while each kernel runs, in the order in which they run, and the peak.

    >>> from hw_profiles import load_device
    >>> from search_spaces import preset
    >>> facts = memory_facts(preset("resnet8").workload().with_precision("int8"), load_device("host"))
    >>> facts["peak_bytes"], facts["kernels"][facts["peak_index"]]["name"]
    (49152, 'stages.0.0.conv2')
    """
    schedule = plan(workload, fuse(workload, device.runtime), device.runtime)
    return {
        "kernels": [
            {"name": kernel_name(kernel), "kind": kernel.kind, "live_bytes": live}
            for kernel, live in zip(schedule.kernels, schedule.live_bytes, strict=True)
        ],
        "peak_bytes": schedule.peak_bytes,
        "peak_index": schedule.live_bytes.index(schedule.peak_bytes),
    }


def estimated_latency(workload: Workload, device: Device) -> dict[str, float]:
    """The estimate from the device's table, beside whatever was measured; empty where the table lacks a kernel.

    >>> from hw_profiles import load_device
    >>> from search_spaces import preset
    >>> sorted(estimated_latency(preset("resnet8").workload(), load_device("host")))
    ['estimated_high_ms', 'estimated_low_ms', 'estimated_ms']
    """
    try:
        found = estimate(workload, fuse(workload, device.runtime), device)
    except ValueError:  # a kind of kernel without a cost, as networks of the zoo may have
        return {}
    return {"estimated_ms": found.ms, "estimated_low_ms": found.low_ms, "estimated_high_ms": found.high_ms}
