"""As many workers as are measured to be faster."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from hw_profiles.errors import InputError
from nas.execution.executor import EvaluationError
from nas.execution.worker_count import Layout, measured_layout
from tests.nas.execution.candidates import evaluate


def rate(of_one: float, of_several: float) -> Callable[[int, int], float]:
    return lambda workers, threads: {(1, 4): of_one, (4, 1): of_several}[workers, threads]


@pytest.mark.parametrize(
    ("of_one", "of_several", "layout"), [(1.0, 3.0, (4, 1)), (1.0, 0.5, (1, 4)), (1.0, 1.05, (1, 4))]
)
def test_the_faster_layout_is_taken(of_one: float, of_several: float, layout: tuple[int, int]) -> None:
    found = measured_layout(evaluate, "", cores=4, rate=rate(of_one, of_several))
    assert (found.workers, found.threads) == layout
    assert found.rates == {1: of_one, 4: of_several}
    assert Layout.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_where_several_at_once_fail_one_is_taken() -> None:
    def measure(workers: int, threads: int) -> float:
        if workers > 1:
            raise EvaluationError("out of memory")
        return 1.0

    assert measured_layout(evaluate, "", cores=4, rate=measure).workers == 1


def test_with_one_core_nothing_is_measured() -> None:
    assert measured_layout(evaluate, "raise", cores=1) == Layout(workers=1, threads=1, rates={})


def test_real_evaluations_are_timed() -> None:
    found = measured_layout(evaluate, "", cores=2)
    assert set(found.rates) == {1, 2}
    assert min(found.rates.values()) > 0


def test_a_candidate_that_fails_is_told() -> None:
    with pytest.raises(EvaluationError, match="no such width"):
        measured_layout(evaluate, "raise", cores=2)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "not the layout of workers"),
        ({"workers": 0, "threads": 1, "rates": {}}, "at least 1, got 0 and 1"),
        ({"workers": 1, "threads": 1, "rates": []}, "not the layout of workers"),
    ],
)
def test_a_damaged_record_is_refused(record: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Layout.from_json(record)


def test_an_impossible_number_of_cores_is_refused() -> None:
    with pytest.raises(InputError, match=r"^cores must be"):
        measured_layout(evaluate, "", cores=0)
