"""What stages make of networks of every kind is what it was: a change is either wanted and recorded, or a fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.goldens.results import CASES, RESULTS, found

_SHORT = ("arch: mobilenetv2_035", "timm: test_resnet", "onnx: gated", "onnx: shuffled")


def alike(one: Any, other: Any) -> bool:
    """Equal, numbers that are no counts to four digits after the point."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one)
    if isinstance(one, float):
        return isinstance(other, float) and abs(one - other) <= 3e-4
    return bool(one == other)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in _SHORT else pytest.mark.slow) for case in CASES]
)
def test_results_are_those_that_were_recorded(case: str) -> None:
    recorded = json.loads(RESULTS.read_text(encoding="utf-8"))[case]
    now = found(case)
    assert now.keys() == recorded.keys()
    for part, value in now.items():
        assert alike(value, recorded[part]), f"{part}: {value} was {recorded[part]}"
