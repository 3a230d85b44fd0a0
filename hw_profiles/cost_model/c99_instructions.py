"""Instructions that C99 programs of ``nas export`` take, counted under emulation."""

from __future__ import annotations

from collections.abc import Mapping

# Written by tests/benchmarks/c99_instruction_costs.py. For each kind of kernel: instructions for a start, and millions
# of them for a million MACs, for a megabyte of tensors read and written, and for a megabyte of weights.
INSTRUCTIONS: Mapping[str, Mapping[str, tuple[float, float, float, float]]] = {
    "dsp": {},
    "portable": {},
    "soft_float": {},
}
"""Of the code with DSP instructions, and of the portable code with a floating-point unit, both counted on Cortex-M4; and
of the portable code without such a unit, counted on Cortex-M0+."""

UNSEEN: Mapping[str, tuple[str, ...]] = {"dsp": (), "portable": (), "soft_float": ()}
"""Kinds that no program had, with the costs of the most expensive alike."""

DEVIATION: Mapping[str, float] = {"dsp": 0.1, "portable": 0.1, "soft_float": 0.1}
"""Relative standard deviation of whole programs' instructions from these sums, on networks that were not fitted."""

_CODES = {
    "cortex-m0plus": "soft_float", "cortex-m4": "dsp", "cortex-m7": "dsp", "cortex-m33": "dsp", "cortex-m55": "dsp",
}  # fmt: skip

CODE_BYTES, STACK_BYTES = 8192, 4096
"""The largest code and stack seen in emulated programs, rounded up."""


def code_of(processor: str) -> str:
    """Which of :data:`INSTRUCTIONS` a processor runs: the portable code where it is no Cortex-M.

    >>> code_of("cortex-m7"), code_of("xtensa-lx7")
    ('dsp', 'portable')
    """
    return _CODES.get(processor, "portable")
