"""A Graph: the operations of a network with its weights, the one form in which every network is quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.network.workload import Workload

Weights = Mapping[str, NDArray[np.float32]]

FLOAT = 1  # ONNX's number of float32
MOVES = ("reshape", "transpose", "slice", "gather", "expand")
"""Kinds of operations that move the numbers of one tensor, so that what they make keeps its scale."""


@dataclass(frozen=True, slots=True)
class Value:
    """What a file reads or makes: its name, its sides (names where they are open, None where nothing is said) and the
    number that ONNX gives its type."""

    name: str
    shape: tuple[int | str | None, ...]
    data_type: int = FLOAT


@dataclass(frozen=True, slots=True, eq=False)
class KeptNodes:
    """The nodes of an ONNX file that one operation stands for, and the constants that they read, written back as they
    are; tensors of other operations go by the names that these have in the graph."""

    nodes: tuple[Any, ...]
    constants: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Graph:
    """A float32 network: what it does, as a workload, and its weights and biases by the workload's names, batch
    normalization folded.

    ``kept`` has the nodes of each operation that the writer cannot write itself: those of kind ``"other"``,
    around which everything stays float, and some that only move numbers. ``opsets`` are those of the kept nodes, by
    domain. ``inputs`` and ``outputs`` say what is in the file where it is not what the workload says; each output
    comes with the tensor that it is, the first one with the workload's output.

    >>> from search_spaces import preset
    >>> from hw_profiles.onnx_io.writer import random_weights
    >>> workload = preset("resnet8").workload()
    >>> [value.name for value in Graph(workload=workload, weights=random_weights(workload)).input_values]
    ['input']
    """

    workload: Workload
    weights: Weights
    kept: Mapping[str, KeptNodes] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)
    inputs: tuple[Value, ...] = ()
    outputs: tuple[tuple[Value, str], ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def input_values(self) -> tuple[Value, ...]:
        """What the file says of its inputs."""
        return self.inputs or tuple(self._usual(name) for name in self.workload.inputs)

    @property
    def output_values(self) -> tuple[tuple[Value, str], ...]:
        """What it says of its outputs, each with the tensor that it is."""
        return self.outputs or ((self._usual(self.workload.output), self.workload.output),)

    def _usual(self, name: str) -> Value:
        return Value(name, ("N", *self.workload.shapes[name][1:]))

    def with_weights(self, weights: Weights) -> Graph:
        """The same operations with other weights."""
        return replace(self, weights=weights)
