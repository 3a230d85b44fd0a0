"""A table of instructions per layer, counted under emulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compress.c99.c_literals import label

INSTRUCTIONS_PER_TICK = 40
"""SysTick runs at 25 MHz, and the emulated processors execute one instruction a nanosecond."""


def tick_table(layers: Sequence[str], ticks: Mapping[str, Sequence[int]]) -> str:
    """Instructions of each layer on each machine, as Markdown; nothing where no machine counted.

    >>> print(tick_table(["conv"], {"host": (), "cortex-m7": (3,)}).splitlines()[-1])
    | conv | 120 |
    >>> tick_table(["conv"], {"host": ()})
    ''
    """
    counted = {machine: found for machine, found in ticks.items() if len(found) == len(layers)}
    if not counted:
        return ""
    rows = [["layer", *counted], [":---", *["---:"] * len(counted)]]
    for i, name in enumerate(layers):
        rows.append([label(name), *(_instructions(found[i]) for found in counted.values())])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    text = "Instructions of each layer by SysTick under emulation, to the next 40; no cycles of a real processor:"
    return "\n".join([text, "", *lines])


def _instructions(ticks: int) -> str:
    return f"{INSTRUCTIONS_PER_TICK * ticks:,}" if ticks else "too many to count"
