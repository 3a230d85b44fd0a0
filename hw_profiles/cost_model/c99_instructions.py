"""Instructions that C99 programs of ``nas export`` take, counted under emulation."""

from __future__ import annotations

from collections.abc import Mapping

# Written by tests/benchmarks/c99_instruction_costs.py. For each kind of kernel: instructions for a start, and millions
# of them for a million MACs, for a megabyte of tensors read and written, and for a megabyte of weights.
INSTRUCTIONS: Mapping[str, Mapping[str, tuple[float, float, float, float]]] = {
    "dsp": {
        "layer/first": (5000.0, 1.638, 33.2, 0),
        "layer/conv": (2192.5, 1.224, 11.39, 0),
        "layer/pointwise": (403.6, 1.249, 12.67, 0),
        "layer/depthwise": (5000.0, 4.372, 4.186, 0),
        "layer/grouped": (5000.0, 4.372, 4.186, 0),
        "layer/conv_transpose": (2192.5, 1.224, 11.39, 0),
        "layer/linear": (320.0, 3, 0, 0),
        "layer/matmul": (320.0, 3, 0, 0),
        "layer/elementwise": (0.0, 0, 14.11, 0),
        "layer/nonlinear": (0.0, 0, 14.11, 0),
        "layer/pool": (364.3, 0, 11.64, 0),
        "layer/copy": (0.0, 0, 14.11, 0),
    },
    "portable": {
        "layer/first": (5000.0, 4.856, 41.94, 0),
        "layer/conv": (5000.0, 4.697, 17.5, 0),
        "layer/pointwise": (301.0, 4.911, 20.41, 0),
        "layer/depthwise": (0.0, 12.94, 3.724, 0),
        "layer/grouped": (0.0, 12.94, 3.724, 0),
        "layer/conv_transpose": (5000.0, 4.697, 17.5, 0),
        "layer/linear": (360.0, 7, 0, 0),
        "layer/matmul": (360.0, 7, 0, 0),
        "layer/elementwise": (0.0, 0, 14.11, 0),
        "layer/nonlinear": (0.0, 0, 14.11, 0),
        "layer/pool": (505.2, 0, 16.17, 0),
        "layer/copy": (0.0, 0, 14.11, 0),
    },
    "soft_float": {
        "layer/first": (5000.0, 15.23, 146.2, 0),
        "layer/conv": (0.0, 9.237, 52.29, 0),
        "layer/pointwise": (0.0, 10.3, 90.51, 0),
        "layer/depthwise": (747.7, 30.96, 44.06, 0),
        "layer/grouped": (747.7, 30.96, 44.06, 0),
        "layer/conv_transpose": (0.0, 9.237, 52.29, 0),
        "layer/linear": (3640.0, 10, 0, 0),
        "layer/matmul": (3640.0, 10, 0, 0),
        "layer/elementwise": (0.0, 0, 345.6, 0),
        "layer/nonlinear": (0.0, 0, 345.6, 0),
        "layer/pool": (5000.0, 0, 25.42, 0),
        "layer/copy": (0.0, 0, 345.6, 0),
    },
}
"""Of the code with DSP instructions and of the portable code with a floating-point unit, both counted on Cortex-M4, and
of the portable code without such a unit, counted on Cortex-M0+."""

UNSEEN: Mapping[str, tuple[str, ...]] = {
    "dsp": ("layer/grouped", "layer/conv_transpose", "layer/matmul", "layer/nonlinear", "layer/copy"),
    "portable": ("layer/grouped", "layer/conv_transpose", "layer/matmul", "layer/nonlinear", "layer/copy"),
    "soft_float": ("layer/grouped", "layer/conv_transpose", "layer/matmul", "layer/nonlinear", "layer/copy"),
}
"""Kinds that no program had, with the costs of the most expensive alike."""

DEVIATION: Mapping[str, float] = {"dsp": 0.076, "portable": 0.0273, "soft_float": 0.1496}
"""Relative standard deviation of whole programs' instructions from these sums, on networks that were not fitted."""

_CODES = {
    "cortex-m0plus": "soft_float", "cortex-m4": "dsp", "cortex-m7": "dsp", "cortex-m33": "dsp", "cortex-m55": "dsp",
}  # fmt: skip

CALL_INSTRUCTIONS = 500.0
"""Of a call beside its kernels: the input is copied, and the output."""

CODE_BYTES, STACK_BYTES = 8192, 768
"""The largest code seen in emulated programs, and the largest stack beside the buffers of kernels, rounded up."""


def code_of(processor: str) -> str:
    """Which of :data:`INSTRUCTIONS` a processor runs: the portable code where it is no Cortex-M.

    >>> code_of("cortex-m7"), code_of("xtensa-lx7")
    ('dsp', 'portable')
    """
    return _CODES.get(processor, "portable")
