"""What the report says about the time of a run."""

from __future__ import annotations

from typing import Any

import pytest

from nas.report.plan_section import plan_section, ranking_words, search_words


def network(name: str, accuracy: float, error: float = 0.03) -> dict[str, Any]:
    low, high = accuracy - error, accuracy + error
    return {"network": name, "val_accuracy": accuracy, "val_accuracy_low": low, "val_accuracy_high": high}


def found(known: float, searched: float | None) -> dict[str, Any]:
    return {
        "known": network("resnet8 at 48 px", known),
        "searched": None if searched is None else network("searched", searched),
        "candidates": {"known": 2, "searched": 7},
        "agreement_of_halves": 0.8,
        "repeated_scores": {"3": [0.5, 0.6], "4": [0.7, 0.5]},
    }


@pytest.mark.parametrize(
    ("known", "searched", "said"),
    [
        (0.5, 0.7, "improved on the reference networks: best of 7 candidates proposed by the search: 70.00%"),
        (0.5, 0.53, "possibly better than the reference networks, but within sampling error"),
        (0.7, 0.5, "no improvement over the reference networks: best of 7 candidates proposed by the search: 50.00%"),
        (0.7, None, "no candidate proposed by the search was trained; best reference network: resnet8 at 48 px"),
    ],
)
def test_it_says_whether_the_search_paid(known: float, searched: float | None, said: str) -> None:
    assert search_words(found(known, searched)).startswith(said)


def test_without_known_networks_nothing_is_compared() -> None:
    assert search_words(None) == ranking_words(None) == ""
    assert ranking_words({"agreement_of_halves": None}) == ""
    assert ranking_words(found(0.5, 0.7)).endswith(
        "validation scores: 0.80; the top 2 were re-evaluated twice with different seeds and image subsets"
    )


def test_the_plan_stands_beside_what_came_of_it() -> None:
    plan = {
        "lines": ["one <b>", "two", "three"], "seconds": 720.0, "ran_train_seconds": 431.2, "ran_epochs": 294.0,
        "winner_epochs": 308.3, "twice_the_time_points": 0.25,
    }  # fmt: skip
    page = plan_section({"plan": plan, "search": found(0.5, 0.7), "seconds": 717.7})
    for said in ("<p>One &lt;b&gt;.</p>", "431 s, 294 epochs (planned: 308)", "expected gain: 0.25 percentage points",
                 "718 s (time limit: 720 s)", "improved on the reference networks", "validation scores: 0.80"):  # fmt: skip
        assert said in page
