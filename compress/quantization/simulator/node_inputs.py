"""What a node of an ONNX file is told: its attributes, and its inputs as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

Given = Sequence[Tensor | None]
Attributes = Mapping[str, Any]


def integers(said: Attributes, given: Given, i: int, name: str) -> list[int] | None:
    """What an attribute, or in newer opsets an input, says."""
    if name in said:
        return list(said[name])
    tensor = given[i] if i < len(given) else None
    return None if tensor is None else tensor.reshape(-1).long().tolist()


def number(said: Attributes, given: Given, i: int, name: str, default: float) -> float:
    """A number that an attribute, or in newer opsets an input, says."""
    if name in said:
        return float(said[name])
    tensor = given[i] if i < len(given) else None
    return default if tensor is None else float(tensor)


def first(given: Given) -> Tensor:
    """The first input, which every node has."""
    assert given[0] is not None
    return given[0]


def tensors(given: Given) -> list[Tensor]:
    """The inputs that are there."""
    return [each for each in given if each is not None]
