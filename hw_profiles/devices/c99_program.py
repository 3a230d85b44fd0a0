"""A microcontroller that runs our C99 programs, in place of the software of the published latencies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from hw_profiles.cost_model.c99_instructions import (
    CALL_INSTRUCTIONS,
    CODE_BYTES,
    DEVIATION,
    INSTRUCTIONS,
    STACK_BYTES,
    UNSEEN,
    code_of,
)
from hw_profiles.cost_model.features import family
from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.devices.device import Device
from hw_profiles.devices.facts import FACTOR_OF_TWO, NINETY, Fact
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import PRECISIONS

_CALL = "call/call"
_DOUBT = 1.0
_NEEDED = ("c99_processor", "c99_cycles_per_instruction", "clock_mhz")
_EMULATED = "programs of fitnas under emulation"
_ON_THE_BOARD = Fact(value="C99 programs of fitnas on the board", source="measured by the user")


def runs_c99(device: Device) -> bool:
    """Whether it is a microcontroller for which a C99 program can be written, with what its estimates need.

    >>> from hw_profiles.devices.device_file import load_device
    >>> runs_c99(load_device("stm32f746")), runs_c99(load_device("raspberry-pi-4"))
    (True, False)
    """
    return all(name in device.facts for name in _NEEDED)


def deploys_c99(device: Device) -> bool:
    """Whether what is deployed on it is a C99 program: a device that :func:`with_c99_costs` made."""
    code = device.facts.get("runtime_flash_bytes")
    return device.runtime == "c99" and runs_c99(device) and code is not None and code.source == _EMULATED


def deployed_precisions(device: Device) -> tuple[str, ...]:
    """The precisions in which a network can be deployed: C99 programs compute in int8 alone.

    >>> from hw_profiles.devices.device_file import load_device
    >>> deployed_precisions(load_device("host")), deployed_precisions(with_c99_costs(load_device("rp2040")))
    (('fp32', 'int8'), ('int8',))
    """
    return ("int8",) if deploys_c99(device) else PRECISIONS


def microseconds_of_instruction(device: Device) -> float:
    """What an instruction of a C99 program is expected to take in the mean."""
    return float(device.facts["c99_cycles_per_instruction"].value) / float(device.facts["clock_mhz"].value)


def processor_of(device: Device) -> str:
    """The processor of its facts, such as ``cortex-m7``."""
    return str(device.facts["c99_processor"].value)


def with_c99_costs(device: Device) -> Device:
    """The same board with the costs of our C99 programs: instructions counted under emulation times the cycles of an
    instruction, which published latencies of other programs on that core support. No board has run ours, so the
    interval is at least a factor of two either way.

    Costs of a device that was made here, and then calibrated with latencies of C99 programs on a board, stay. Costs in
    float32 are there for comparison alone: they are as many times those of int8 as the device's own table says; no
    program is written in float32.

    Raises:
        InputError: not a microcontroller, or one whose file states no processor, clock or cycles for an instruction.

    >>> from hw_profiles.devices.device_file import load_device
    >>> found = with_c99_costs(load_device("rp2040"))
    >>> found.runtime, found.spread["int8"] >= 0.42
    ('c99', True)
    """
    if not runs_c99(device):
        missing = [name for name in _NEEDED if name not in device.facts]
        raise InputError(f"device {device.name} cannot run C99 programs: its device file lacks {', '.join(missing)}")
    facts = {
        **{name: fact for name, fact in device.facts.items() if name != "dead_channels"},  # ours compute them
        "runtime_ram_bytes": Fact(value=STACK_BYTES, source=_EMULATED, note="stack, beside buffers of kernels"),
        "runtime_flash_bytes": Fact(value=CODE_BYTES, source=_EMULATED, note="code"),
    }
    if deploys_c99(device) and "int8" in device.calibrated:
        return _with_float(replace(device, facts=facts))
    cycles = device.facts["c99_cycles_per_instruction"]
    code = code_of(processor_of(device))
    facts["measured_with"] = Fact(
        value=f"no board: instructions of C99 programs ({code} code), counted under emulation", source=_EMULATED
    )
    int8 = _costs(code, microseconds_of_instruction(device))
    deviation = math.hypot(cycles.deviation / NINETY, DEVIATION[code])
    slower = _float_factor(device)
    return replace(
        device,
        runtime="c99",
        facts=facts,
        source=f"instructions counted under emulation; cycles of each: {cycles.source}",
        costs={"int8": int8, "fp32": {kind: _times(cost, slower) for kind, cost in int8.items()}},
        spread={
            "int8": max(FACTOR_OF_TWO, deviation),
            "fp32": max(2 * FACTOR_OF_TWO, deviation, device.spread.get("fp32", 0.0)),
        },
        calibrated=(),
        held_out={},
    )


def facts_of_calibrated(device: Device) -> Mapping[str, Fact]:
    """The facts of a device whose costs were corrected by latencies measured on it: those of C99 programs are then no
    longer counted only.
    """
    return {**device.facts, "measured_with": _ON_THE_BOARD} if deploys_c99(device) else device.facts


def _with_float(device: Device) -> Device:
    """With costs in float32, those of int8 where it has none."""
    spread = max(2 * FACTOR_OF_TWO, device.spread["int8"])
    return replace(
        device,
        costs={"fp32": device.costs["int8"], **device.costs},
        spread={"fp32": spread, **device.spread},
    )


def _costs(code: str, microseconds: float) -> dict[str, KernelCost]:
    """``microseconds`` are those of one instruction."""
    costs = {_CALL: KernelCost(coefficients=(CALL_INSTRUCTIONS * microseconds, 0.0, 0.0, 0.0, 0.0))}
    for kind, (start, *millions) in INSTRUCTIONS[code].items():
        coefficients = (start * microseconds, *(1e6 * each * microseconds for each in millions))
        costs[kind] = KernelCost(coefficients=coefficients, doubt=_DOUBT if kind in UNSEEN[code] else 0.0)
    assert all(family(kind) in ("call", "layer") for kind in costs)
    return costs


def _times(cost: KernelCost, factor: float) -> KernelCost:
    return replace(cost, coefficients=tuple(factor * each for each in cost.coefficients))


def _float_factor(device: Device) -> float:
    """How many times as long as in int8 a layer takes in float32 by the device's own table."""
    if "fp32" not in device.costs or "int8" not in device.costs:
        return 1.0
    in_float, in_int8 = (device.costs[precision][_CALL].coefficients[0] for precision in ("fp32", "int8"))
    return in_float / in_int8
