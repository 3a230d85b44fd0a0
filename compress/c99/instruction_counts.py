"""A table of instructions per layer, counted under emulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compress.c99.c_literals import label


def instruction_table(layers: Sequence[str], instructions: Mapping[str, Sequence[int]]) -> str:
    """Instructions of each layer on each machine, as Markdown; nothing where no machine counted.

    >>> print(instruction_table(["conv"], {"host": (), "cortex-m7": (120,)}).splitlines()[-1])
    | conv | 120 |
    >>> instruction_table(["conv"], {"host": ()})
    ''
    """
    counted = {machine: found for machine, found in instructions.items() if len(found) == len(layers)}
    if not counted:
        return ""
    rows = [["layer", *counted], [":---", *["---:"] * len(counted)]]
    for i, name in enumerate(layers):
        rows.append([label(name), *(_shown(found[i]) for found in counted.values())])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    text = "Instructions of each layer by SysTick under emulation, to the next 50; no cycles of a real processor:"
    return "\n".join([text, "", *lines])


def _shown(instructions: int) -> str:
    return f"{instructions:,}" if instructions else "too many to count"
