"""Choices as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nas.samplers.encoding import ABSENT, Encoding
from nas.samplers.space_trial import position_of, propose, random_value, value_at
from search_spaces import load_space
from search_spaces.space import Space

DISTRIBUTIONS = {
    "kernel1": CategoricalDistribution((3, 5, 7)),
    "kernel2": CategoricalDistribution((3, 5, 7)),
    "block": CategoricalDistribution(("a", "b", None)),
    "depth": IntDistribution(1, 4),
    "width": IntDistribution(8, 512, step=8),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "share": FloatDistribution(0.0, 1.0, step=0.25),
}


def test_codes_give_back_the_values() -> None:
    encoding = Encoding(DISTRIBUTIONS)
    generator = np.random.default_rng(0)
    for _ in range(50):
        params = {name: random_value(found, generator) for name, found in DISTRIBUTIONS.items()}
        back = encoding.decode(encoding.encode([params])[0])
        assert back.pop("rate") == pytest.approx(params.pop("rate"))
        assert abs(back.pop("width") - params.pop("width")) <= 8
        assert back == params


def test_an_unordered_choice_is_a_hamming_distance_and_an_ordered_one_also_a_rank() -> None:
    encoding = Encoding(
        {"a": CategoricalDistribution((1, 2, 4)), "b": CategoricalDistribution((8, 9, 3))}, ordered=["a"]
    )
    rows = [{"a": 1, "b": 8}, {"a": 2, "b": 8}, {"a": 4, "b": 8}, {"a": 1, "b": 3}]
    z = encoding.features(encoding.encode(rows))
    distances = [((z[0] - z[row]) ** 2) for row in (1, 2, 3)]
    by_group = [[found[encoding.groups == group].sum() for group in range(3)] for found in distances]
    np.testing.assert_allclose(by_group, [[1, 0, 0.25], [1, 0, 1], [0, 1, 0]])


def test_choices_of_equal_values_share_counts_and_ranks() -> None:
    encoding = Encoding({"kernel1": DISTRIBUTIONS["kernel1"], "kernel2": DISTRIBUTIONS["kernel2"]})
    rows = [{"kernel1": 3, "kernel2": 7}, {"kernel1": 7, "kernel2": 3}, {"kernel1": 7, "kernel2": 7}]
    z = encoding.features(encoding.encode(rows))
    shared = encoding.groups >= 4
    assert set(encoding.groups[shared]) == {4, 5}
    assert len(encoding.prior_log_weights) == 6
    np.testing.assert_allclose(z[0, shared], z[1, shared])
    assert not np.allclose(z[0, shared], z[2, shared])


def test_neighbors_differ_in_one_choice_and_all_codes_are_all() -> None:
    encoding = Encoding({name: DISTRIBUTIONS[name] for name in ("kernel1", "block", "depth")})
    everything = encoding.all_codes(100)
    assert everything is not None
    assert len(np.unique(everything, axis=0)) == 36
    around = encoding.neighbors(everything[5], np.random.default_rng(0))
    assert len(np.unique(around, axis=0)) == len(around) == 2 + 2 + 3
    assert ((around != everything[5]).sum(1) == 1).all()
    assert encoding.all_codes(35) is None


def test_an_absent_choice_has_a_code_of_its_own() -> None:
    encoding = Encoding(DISTRIBUTIONS, may_be_absent=True)
    codes = encoding.encode([{"kernel1": 3}, {"kernel1": 3, "block": "a"}, {"kernel1": 3, "block": "no such"}])
    assert codes[0, 2] == codes[2, 2] == ABSENT
    assert not np.allclose(*encoding.features(codes[:2]))
    assert encoding.decode(codes[0]) == {"kernel1": 3}


@pytest.mark.parametrize("distribution", [IntDistribution(3, 11, step=2), IntDistribution(1, 100, log=True), FloatDistribution(-2.0, 5.0)])  # fmt: skip
def test_positions_cover_the_range(distribution: Any) -> None:
    assert value_at(distribution, 0.0) == distribution.low
    assert value_at(distribution, 1.0) == distribution.high
    assert position_of(distribution, distribution.high) == 1.0
    values = {value_at(distribution, position) for position in np.linspace(0, 1, 400)}
    assert all(distribution._contains(value) for value in values)


def test_a_space_is_asked_with_given_values_and_random_ones() -> None:
    def space(trial: Any) -> tuple[Any, ...]:
        kind = trial.suggest_categorical("kind", ("plain", "wide"))
        return (kind, trial.suggest_int("width", 1, 9)) if kind == "wide" else (kind, trial.suggest_float("rate", 0, 1))

    proposal = propose(space, {"kind": "wide", "width": 7, "rate": 2}, np.random.default_rng(0))
    assert proposal.candidate == ("wide", 7)
    assert proposal.params == {"kind": "wide", "width": 7}
    assert propose(space, {"kind": "plain", "rate": 2}, np.random.default_rng(0)).params["rate"] <= 1


def test_a_space_says_which_choices_have_an_order() -> None:
    choices = {"kernel": (3, 5, 7), "two": (1, 2), "se": (False, True), "block": ("a", "b", "c"), "one": (5,)}
    assert Space(name="s", choices=choices, build=lambda params: None).ordered == ("kernel",)  # type: ignore[arg-type,return-value]
    assert "stage0.kernel" in load_space("mobilenet", input_shape=(3, 32, 32), num_classes=10).ordered
