"""Which processor runs our C99 programs on each microcontroller, and the cycles that an instruction takes there.

The cycles are published cycles of other programs on a network, divided by the instructions that ours takes for it
(``c99_instruction_costs.py cycles`` prints them): the geometric mean, and the range as the interval, whose lower end is at
least what the core can do: one cycle where it begins one instruction a cycle, half of one on a Cortex-M7.
"""

from __future__ import annotations

from collections.abc import Mapping

from hw_profiles.devices.facts import ASSUMED, Fact

_TINY = "mlcommons/tiny_results_v0.7 to v1.3, closed division"
_NOTE = "published cycles over the instructions of our program for the same networks"
_LAYERS = "published cycles over the instructions of our portable code for the same layers"

_CYCLES = {
    "cortex-m0plus": Fact(
        value=1.4, source=ASSUMED,
        note="one instruction at a time, loads and branches take two cycles; published programs take fewer instructions",
    ),
    "cortex-m4": Fact(value=1.46, low=1.0, high=2.97, source=f"{_TINY}, STM32L4R5ZI", note=_NOTE),
    "cortex-m7": Fact(value=0.71, low=0.5, high=1.22, source=f"{_TINY}, STM32H7A3ZI", note=_NOTE),
    "cortex-m33": Fact(value=0.99, low=0.62, high=1.51, source=f"{_TINY}, STM32U575ZI and STM32U585AI", note=_NOTE),
    "cortex-m55": Fact(value=1.0, source=ASSUMED),
    "xtensa-lx7": Fact(value=1.82, low=0.55, high=2.68, source="espressif/esp-nn README.md, ANSI C on the ESP32-S3", note=_LAYERS),
    "rv32": Fact(value=1.24, low=0.73, high=2.04, source="espressif/esp-nn README.md, ANSI C on the ESP32-P4", note=_LAYERS),
}  # fmt: skip

_PROCESSORS = {
    "rp2040": "cortex-m0plus",
    "stm32l4r5": "cortex-m4", "stm32f412": "cortex-m4", "nrf52840": "cortex-m4",
    "stm32f746": "cortex-m7", "stm32h743": "cortex-m7", "stm32h747": "cortex-m7",
    "stm32u575": "cortex-m33", "nrf5340": "cortex-m33", "rp2350": "cortex-m33",
    "stm32n6": "cortex-m55", "ra8d1": "cortex-m55",
    "esp32-s3": "xtensa-lx7", "esp32-p4": "rv32",
}  # fmt: skip
_NOTES = {"ra8d1": "a Cortex-M85, which runs the instructions of a Cortex-M55"}


def c99_facts(device: str) -> Mapping[str, Fact]:
    """The facts of a microcontroller; none of any other device."""
    processor = _PROCESSORS.get(device)
    if processor is None:
        return {}
    named = Fact(value=processor, source="compress.c99.target_machines", note=_NOTES.get(device, ""))
    return {"c99_processor": named, "c99_cycles_per_instruction": _CYCLES[processor]}
