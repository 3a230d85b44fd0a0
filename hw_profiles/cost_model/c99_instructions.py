"""Instructions that C99 programs of ``nas export`` take, counted under emulation."""

from __future__ import annotations

from collections.abc import Mapping

# Written by tests/benchmarks/c99_instruction_costs.py. For each kind of kernel: instructions for a start, and millions
# of them for a million MACs, for a megabyte of tensors read and written, and for a megabyte of weights.
INSTRUCTIONS: Mapping[str, Mapping[str, tuple[float, float, float, float]]] = {"dsp": {}, "portable": {}}
"""Of the code with DSP instructions (Cortex-M4, M7, M33, M55), and of the portable code, counted on Cortex-M0+."""

UNSEEN: Mapping[str, tuple[str, ...]] = {"dsp": (), "portable": ()}
"""Kinds that no program had, with the costs of the most expensive alike."""

DEVIATION: Mapping[str, float] = {"dsp": 0.1, "portable": 0.1}
"""Relative standard deviation of whole programs' instructions from these sums, on networks that were not fitted."""

WITH_DSP = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
"""Processors whose programs use DSP instructions."""

CODE_BYTES, STACK_BYTES = 8192, 4096
"""The largest code and stack seen in emulated programs, rounded up."""


def code_of(processor: str) -> str:
    """Which of :data:`INSTRUCTIONS` a processor runs.

    >>> code_of("cortex-m7"), code_of("xtensa-lx7")
    ('dsp', 'portable')
    """
    return "dsp" if processor in WITH_DSP else "portable"
