"""The networks of the kit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

from hw_profiles.measurement.random_networks import is_attention, micro_network
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.tensor_formats import PRECISIONS
from hw_profiles.network.workload import Workload
from hw_profiles.onnx_io.writer import write_onnx

# Seeds of random networks; tests/benchmarks/kit_networks.py chose them one after the other, each the one that leaves
# the least doubt about latency in both precisions. So the first ones alone are a good choice as well.
KIT_SEEDS = (13, 32, 57, 40, 69, 73, 16, 7, 34, 29, 20, 62, 15, 46, 33, 3, 47, 4, 10, 42)
"""The networks of the kit as seeds of :func:`hw_profiles.measurement.random_networks.micro_network`."""
BOARD_SEEDS = (123, 93, 174, 141, 63, 135, 24, 108)
"""Smaller ones, for microcontrollers."""
FIRST = 10
"""So many of them are run to see whether a device is that of this machine."""


def _name(seed: int) -> str:
    return f"network-{seed:03d}"


_SEEDS = {_name(seed): seed for seed in (*KIT_SEEDS, *BOARD_SEEDS)}


def kit_names() -> tuple[str, ...]:
    """The names of the networks, the most informative first.

    >>> len(kit_names()) == len(set(kit_names())) >= FIRST
    True
    """
    return tuple(map(_name, KIT_SEEDS))


def known_names() -> tuple[str, ...]:
    """The names of all networks, also those for boards.

    >>> set(kit_names()) < set(known_names())
    True
    """
    return tuple(_SEEDS)


def board_names() -> tuple[str, ...]:
    """The names of the networks for boards.

    >>> 4 <= len(board_names()) < len(kit_names())
    True
    """
    return tuple(map(_name, BOARD_SEEDS))


def kit_workload(name: str) -> Workload:
    """The network of a name; a KeyError where there is none.

    >>> kit_workload(kit_names()[0]).macs > 0
    True
    """
    return micro_network(_SEEDS[name])


def in_precisions(name: str, precisions: Sequence[str] = PRECISIONS) -> tuple[str, ...]:
    """The precisions in which a network of the kit is written; attention in float32 only."""
    return tuple(each for each in precisions if each == "fp32" or not is_attention(_SEEDS[name]))


def kit_file(name: str, precision: str) -> bytes:
    """The ONNX file of a network in a precision."""
    workload = kit_workload(name)
    return write_onnx(workload, quantization=fixed_quantization(workload) if precision == "int8" else None)


@cache
def kit_digest() -> str:
    """Says which networks these are: times of others must not be taken for theirs.

    >>> len(kit_digest())
    16
    """
    text = repr([(name, micro_network(seed).ops) for name, seed in _SEEDS.items()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
