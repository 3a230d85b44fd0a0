"""Which groups of layers run faster in float than in 8-bit integers on this machine, each measured apart."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from compress.networks.artifact import Artifact
from compress.networks.onnx_export import onnx_bytes
from hw_profiles.devices.device import Device
from hw_profiles.measurement.latency_measurement import compare

LowerAllBut = Callable[[Collection[str]], Artifact]
"""A network with all its operations in low precision but those named."""

_FASTER = 0.98  # below that at the upper end of the interval
_TOGETHER = 4  # operations whose names say nothing of blocks
_ROUNDS = 20


def groups_of(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Operations by the block that they belong to, which is what their names begin with; others in fours.

    >>> groups_of(["stem", "stages.0.0.conv1", "stages.0.0.conv2", "classifier"])
    [('stem', 'classifier'), ('stages.0.0.conv1', 'stages.0.0.conv2')]
    """
    alone = [name for name in names if "." not in name]
    fours = [tuple(alone[at : at + _TOGETHER]) for at in range(0, len(alone), _TOGETHER)]
    blocks: dict[str, tuple[str, ...]] = {}
    for name in names:
        block = name.rpartition(".")[0]
        if block:
            blocks[block] = (*blocks.get(block, ()), name)
    return [*fours, *blocks.values()]


def faster_in_float(lower: LowerAllBut, names: Sequence[str], device: Device) -> list[str]:
    """The operations to keep in float because the file is faster that way. Groups are tried one after the other: each
    file with the group in float is timed against the fastest file so far.

    Raises:
        InputError: the device is not this machine.
    """
    kept: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(onnx_bytes(lower(kept)))
        for group in groups_of(names):
            after.write_bytes(onnx_bytes(lower([*kept, *group])))
            _, _, high = compare(after, before, device, max_rounds=_ROUNDS)
            if high < _FASTER:
                kept.extend(group)
                after.replace(before)
    return kept
