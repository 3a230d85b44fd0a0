"""The search by its contract."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

import nas
from hw_profiles import Budget
from nas.errors import InputError, UserFunctionError
from nas.samplers.registry import SAMPLERS, sampler_named
from nas.storages.lease import new_worker
from nas.storages.sqlite_file import sqlite_url
from tests.parameters import quick

Pair = tuple[int, int]


def space(trial: Any) -> Pair:
    return trial.suggest_int("x", 0, 9), trial.suggest_categorical("y", (1, 2, 3))


def cost(found: Pair) -> dict[str, float]:
    return {"size": found[0] * found[1], "latency_ms": 1 + found[0]}


class Evaluation:
    """Accuracy x / 10, higher for larger y, and a list of what was asked."""

    def __init__(self, fail: Callable[[Pair], bool] = lambda pair: False) -> None:
        self.asked: list[tuple[Pair, float]] = []
        self.fail = fail

    def __call__(self, found: Pair, fidelity: float) -> float:
        self.asked.append((found, fidelity))
        if self.fail(found):
            raise RuntimeError(f"no {found}")
        return (found[0] + found[1] / 4) / 10


def states(study: optuna.Study) -> dict[str, int]:
    return {
        state.name: len(study.get_trials(states=(state,))) for state in TrialState if study.get_trials(states=(state,))
    }


def test_what_breaks_the_budget_or_repeats_is_never_evaluated() -> None:
    evaluate = Evaluation()
    study = nas.search(space, evaluate, cost=cost, budget={"size": 9}, n_trials=10)
    candidates = [found for found, _ in evaluate.asked]
    assert len(candidates) == len(set(candidates)) == 10
    assert all(cost(found)["size"] <= 9 for found in candidates)
    assert states(study)["COMPLETE"] == 10
    whys = [trial.user_attrs["why"] for trial in study.get_trials(states=(TrialState.PRUNED,))]
    assert any(why.startswith("exceeds the budget: size is ") for why in whys)
    for trial in study.trials:
        broken = cost(nas.candidate(study, trial))["size"] > 9
        assert trial.constraints["size"] == pytest.approx(cost(nas.candidate(study, trial))["size"] / 9 - 1)
        assert trial.user_attrs["feasible"] is not broken


def test_the_winner_is_the_best_feasible_candidate() -> None:
    study = nas.search(space, Evaluation(), cost=cost, budget={"size": 9}, n_trials=19)  # all that keep it
    assert nas.winner(study) == (9, 1)
    assert nas.winner(nas.search(space, Evaluation(), cost=cost, budget={"latency_ms": 0.5}, n_trials=3)) is None


def test_a_small_space_is_exhausted_and_the_search_ends() -> None:
    evaluate = Evaluation()
    study = nas.search(space, evaluate, cost=cost, n_trials=1000)
    assert len(evaluate.asked) == states(study)["COMPLETE"] == 30
    assert any("repeats" in trial.user_attrs["why"] for trial in study.get_trials(states=(TrialState.PRUNED,)))


def test_a_budget_can_be_a_budget() -> None:
    study = nas.search(space, Evaluation(), cost=cost, budget=Budget(latency_ms=3), n_trials=5)
    assert nas.winner(study)[0] <= 2


def test_failures_are_kept_with_their_cause_and_counted() -> None:
    study = nas.search(space, Evaluation(lambda pair: pair[0] % 2 == 0), cost=cost, n_trials=8)
    failed = study.get_trials(states=(TrialState.FAIL,))
    assert failed
    assert len(failed) + states(study)["COMPLETE"] == 8
    assert failed[0].user_attrs["cause"].startswith("RuntimeError: no (")


def test_where_all_fail_the_search_ends_in_an_error_that_has_the_study() -> None:
    with pytest.raises(
        UserFunctionError, match=r"every candidate .2 tried.* InputError: .* between 0 and 1, got nan"
    ) as caught:
        nas.search(space, lambda found, fidelity: math.nan, cost=cost, n_trials=2)
    study = caught.value.study
    assert study is not None
    assert states(study) == {"FAIL": 2}
    assert "accuracy between 0 and 1, got nan" in study.trials[0].user_attrs["cause"]


def test_what_evaluate_raises_is_named_as_its_own() -> None:
    with pytest.raises(
        UserFunctionError, match=r"evaluate failed for every candidate .3 tried.* ZeroDivisionError: division by zero"
    ):
        nas.search(space, lambda found, fidelity: 1 / 0, cost=cost, n_trials=3)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyError, TypeError, AttributeError])
def test_what_cost_raises_is_named_as_its_own(error: type[Exception]) -> None:
    def broken(found: Pair) -> dict[str, float]:
        raise error("of the user")

    with pytest.raises(
        UserFunctionError, match=rf"cost raised {error.__name__}: .*of the user.* for the candidate \("
    ) as caught:
        nas.search(space, Evaluation(), cost=broken, n_trials=3)
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize(("value", "said"), [(97.5, "got 97.5; a percentage must be divided by 100"), (-1, "got -1")])
def test_a_first_accuracy_in_percent_ends_the_search_at_once(value: float, said: str) -> None:
    asked = []

    def evaluate(found: Pair, fidelity: float) -> float:
        asked.append(found)
        return value

    with pytest.raises(InputError, match=f"evaluate must return an accuracy between 0 and 1, {said}"):
        nas.search(space, evaluate, cost=cost, n_trials=8)
    assert len(asked) == 1


def test_a_wrong_accuracy_after_right_ones_fails_alone() -> None:
    asked: list[Pair] = []

    def evaluate(found: Pair, fidelity: float) -> float:
        asked.append(found)
        return 55.0 if len(asked) == 3 else 0.5

    study = nas.search(space, evaluate, cost=cost, n_trials=6)
    assert states(study)["FAIL"] == 1
    assert states(study)["COMPLETE"] == 5


def test_rounding_puts_no_accuracy_above_one() -> None:
    study = nas.search(space, lambda found, fidelity: np.float32(1.0000001), cost=cost, n_trials=1)
    assert study.best_value == 1.0


@dataclass
class Mutable:
    widths: list[int]
    options: dict[str, Any]


MAKERS: dict[str, Callable[[int], Any]] = {
    "dict": lambda x: {"x": x},
    "nested dict": lambda x: {"layers": [{"width": x}, {"width": 3}], "set": {x}},
    "list": lambda x: [x, 1],
    "set": lambda x: {x},
    "array": lambda x: np.array([x, 1]),
    "tuple with a list": lambda x: (x, [x]),
    "dataclass": lambda x: Mutable([x], {"x": x}),
    "namespace": lambda x: SimpleNamespace(x=x),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("sampler", ["random", "surrogate"])
def test_candidates_without_a_hash_are_told_apart_by_their_content(kind: str, sampler: str) -> None:
    make = MAKERS[kind]
    seen: list[Any] = []
    number = {repr(make(x)): x for x in range(6)}

    def evaluate(found: Any, fidelity: float) -> float:
        x = number[repr(found)]
        seen.append(x)
        if isinstance(found, dict | set):
            found.clear()  # what a user does to it changes nothing
        return x / 10

    study = nas.search(
        lambda trial: make(trial.suggest_int("x", 0, 5)), evaluate, n_trials=20, sampler=sampler, rungs=(0.5, 1),
        cost=lambda found: {"size": number[repr(found)]}, budget={"size": 4},
    )  # fmt: skip
    assert set(seen) == set(range(5))
    assert len(seen) <= 10
    assert repr(nas.winner(study)) == repr(make(4))
    assert states(study)["COMPLETE"] + states(study)["PRUNED"] == len(study.trials)


def test_dicts_of_another_order_are_one_candidate() -> None:
    def either(trial: Any) -> dict[str, int]:
        pairs = [("a", 1), ("b", trial.suggest_int("b", 1, 2))]
        return dict(pairs if trial.suggest_categorical("turned", (False, True)) else reversed(pairs))

    study = nas.search(either, lambda found, fidelity: 0.5, cost=lambda found: {}, n_trials=10)
    assert states(study)["COMPLETE"] == 2


def test_a_study_of_dicts_goes_on(tmp_path: Path) -> None:
    where: dict[str, Any] = {"storage": tmp_path / "s.db", "cost": lambda found: {"size": found["x"]}}
    for n in (2, 5):
        study = nas.search(lambda t: {"x": t.suggest_int("x", 0, 9)}, lambda c, f: c["x"] / 9, n_trials=n, **where)
    assert states(study)["COMPLETE"] == 5
    assert len({trial.params["x"] for trial in study.get_trials(states=(TrialState.COMPLETE,))}) == 5


def test_two_objectives_give_a_front() -> None:
    study = nas.search(space, Evaluation(), cost=cost, objectives=("accuracy", "latency_ms"), n_trials=20)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    front = nas.pareto_front(study)
    assert front
    for trial in front:
        assert not any(
            other.values[0] >= trial.values[0] and other.values[1] < trial.values[1]
            for other in study.get_trials(states=(TrialState.COMPLETE,))
        )
    best = max(study.get_trials(states=(TrialState.COMPLETE,)), key=lambda trial: trial.values[0])
    assert nas.winner(study) == nas.candidate(study, best)


def test_the_same_seed_is_the_same_search_and_another_is_not() -> None:
    def proposals(seed: int) -> list[dict[str, Any]]:
        study = nas.search(space, Evaluation(), cost=cost, budget={"size": 9}, n_trials=8, seed=seed)
        return [trial.params for trial in study.trials]

    assert proposals(1) == proposals(1)
    assert proposals(1) != proposals(2)


def test_early_rungs_stop_what_shows_no_promise() -> None:
    evaluate = Evaluation()
    study = nas.search(space, evaluate, cost=cost, n_trials=20, rungs=(0.25, 1.0))
    stopped = [t for t in study.get_trials(states=(TrialState.PRUNED,)) if "fidelity 0.25" in t.user_attrs["why"]]
    assert len(stopped) + states(study)["COMPLETE"] == 20
    assert {fidelity for _, fidelity in evaluate.asked} == {0.25, 1.0}
    assert len(stopped) > 5


def test_n_trials_counts_what_the_storage_holds(tmp_path: Path) -> None:
    first, second = Evaluation(), Evaluation()
    where = {"storage": tmp_path / "s.db", "study_name": "s", "cost": cost, "seed": 3, "budget": {"size": 9}}
    nas.search(space, first, n_trials=4, **where)
    study = nas.search(space, second, n_trials=9, **where)
    assert len(first.asked) == 4
    assert len(second.asked) == 5
    assert not {found for found, _ in first.asked} & {found for found, _ in second.asked}
    whole = nas.search(space, Evaluation(), n_trials=9, cost=cost, seed=3, budget={"size": 9})
    assert [t.params for t in study.trials] == [t.params for t in whole.trials]


def test_a_storage_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "50% or 100%20? #1 {x} ß"
    folder.mkdir()
    nas.search(space, Evaluation(), cost=cost, n_trials=1, storage=folder / "s.db", study_name="s")
    assert [path.name for path in folder.iterdir()] == ["s.db"]
    assert len(optuna.load_study(study_name="s", storage=sqlite_url(folder / "s.db")).trials) == 1


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.array, torch.tensor])
def test_numbers_of_numpy_and_torch_are_stored_as_plain_ones(kind: Callable[[int], Any], tmp_path: Path) -> None:
    study = nas.search(
        lambda trial: trial.suggest_int("x", 0, 1), lambda x, fidelity: kind(x), cost=lambda x: {"size": kind(x)},
        budget={"size": kind(2)}, objectives=("accuracy", "size"), n_trials=2, storage=tmp_path / "s.db", study_name="s",
    )  # fmt: skip
    assert states(study)["COMPLETE"] == 2
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        assert trial.user_attrs["cost"] == {"size": trial.params["x"]}
        assert trial.values == [trial.params["x"]] * 2


@pytest.mark.parametrize("value", ["1", None, True, 1j, np.bool_(True), np.ones(2), math.nan])
def test_what_is_no_real_number_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"cost 'size' must be a number, got {value!r}")):
        nas.search(space, Evaluation(), cost=lambda found: {"size": value}, n_trials=1)
    with pytest.raises(ValueError, match=re.escape(f"evaluate must return an accuracy between 0 and 1, got {value!r}")):
        nas.search(space, lambda found, fidelity: value, cost=cost, n_trials=1)


SCRIPT = """
import sys, os, signal, optuna
sys.path.insert(0, {root!r})
import nas
from pathlib import Path
def space(trial):
    return trial.suggest_int("x", 0, 9), trial.suggest_categorical("y", (1, 2, 3))
def cost(found):
    return {{"size": found[0] * found[1], "latency_ms": 1 + found[0]}}
optuna.logging.set_verbosity(optuna.logging.ERROR)
asked = 0
def evaluate(found, fidelity):
    global asked
    asked += 1
    if asked == 4: os.kill(os.getpid(), signal.SIGKILL)
    return found[0] / 10
nas.search(space, evaluate, cost=cost, budget={{"size": 9}}, n_trials=9, seed=3, storage=Path({db!r}), study_name="s")
"""


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    db = tmp_path / "s.db"
    script = textwrap.dedent(SCRIPT).format(root=str(Path(__file__).parents[3]), db=str(db))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    asked: list[Pair] = []

    def evaluate(found: Pair, fidelity: float) -> float:
        asked.append(found)
        return found[0] / 10

    arguments = {"cost": cost, "budget": {"size": 9}, "n_trials": 9, "seed": 3}
    study = nas.search(space, evaluate, storage=db, study_name="s", **arguments)
    assert len(asked) == 6
    whole = nas.search(space, lambda found, fidelity: found[0] / 10, **arguments)
    assert [(t.params, t.state, t.values) for t in study.trials] == [
        (t.params, t.state, t.values) for t in whole.trials
    ]


@pytest.mark.parametrize(
    ("name", "number"),
    quick(
        # The surrogate proposes no repeat, so that it comes to twelve trials here.
        [(name, number) for name in SAMPLERS for number in ((3, 11) if name == "surrogate" else (3, 12, 20))],
        [("tpe", 3)],
    ),
)
def test_a_proposal_cut_short_gets_the_values_it_would_have_had(name: str, number: int, tmp_path: Path) -> None:
    """Every sampler: in its first random draws, later, and after ten repeats in a row."""
    cut = [number]

    def interrupted(trial: Any) -> Pair:
        x = trial.suggest_int("x", 0, 3)
        if trial.number in cut and isinstance(trial, optuna.Trial):
            cut.clear()
            raise KeyboardInterrupt
        return x, trial.suggest_categorical("y", (1, 2, 3))

    arguments = {"cost": cost, "n_trials": 12, "seed": 5, "sampler": SAMPLERS[name]}
    where = {"storage": tmp_path / "s.db", "study_name": "s"}
    with pytest.raises(KeyboardInterrupt):
        nas.search(interrupted, Evaluation(), **arguments, **where)
    study = nas.search(interrupted, Evaluation(), **arguments, **where)
    whole = nas.search(interrupted, Evaluation(), **arguments)
    assert len(whole.trials) > number
    assert [t.params for t in study.trials] == [t.params for t in whole.trials]


def test_an_incomplete_proposal_is_not_stored(tmp_path: Path) -> None:
    """A kill among the parameters of a trial leaves no half of it."""

    def interrupted(trial: Any) -> Pair:
        trial.suggest_int("x", 0, 3)
        raise KeyboardInterrupt

    where = {"storage": tmp_path / "s.db", "study_name": "s"}
    with pytest.raises(KeyboardInterrupt):
        nas.search(interrupted, Evaluation(), cost=cost, n_trials=1, **where)
    assert optuna.load_study(study_name="s", storage=sqlite_url(tmp_path / "s.db")).trials == []


def test_a_sampler_that_is_an_object_survives_an_interruption_too(tmp_path: Path) -> None:
    cut = [3]

    def interrupted(trial: Any) -> Pair:
        found = space(trial)
        if trial.number in cut and isinstance(trial, optuna.Trial):
            cut.clear()
            raise KeyboardInterrupt
        return found

    sampler = optuna.samplers.TPESampler(seed=1, multivariate=True, n_startup_trials=2)
    arguments = {"cost": cost, "n_trials": 6, "sampler": sampler, "storage": tmp_path / "s.db", "study_name": "s"}
    with pytest.raises(KeyboardInterrupt):
        nas.search(interrupted, Evaluation(), **arguments)
    assert states(nas.search(interrupted, Evaluation(), **arguments))["COMPLETE"] == 6


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_repeats_itself_for_a_seed(name: str) -> None:
    def proposals(seed: int) -> list[dict[str, Any]]:
        study = nas.search(space, Evaluation(), cost=cost, n_trials=8, seed=seed, sampler=sampler_named(name))
        return [trial.params for trial in study.trials]

    assert proposals(1) == proposals(1)
    assert proposals(1) != proposals(2)


def test_an_unknown_sampler_gets_a_hint() -> None:
    with pytest.raises(
        ValueError, match=r"unknown sampler 'randm'; did you mean 'random'\? \(valid: tpe, random, surrogate\)"
    ):
        sampler_named("randm")


def test_a_trial_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    where = {"storage": tmp_path / "s.db", "study_name": "s", "cost": cost}
    study = nas.search(space, Evaluation(), n_trials=1, **where)
    other = study.ask()
    other.set_user_attr("worker", new_worker())
    again = nas.search(space, Evaluation(), n_trials=3, **where)
    assert again.trials[other.number].state == TrialState.RUNNING


def test_where_nobody_else_works_a_trial_of_another_host_is_taken_up(tmp_path: Path) -> None:
    """A container that is started again has another name."""
    where = {"storage": tmp_path / "s.db", "study_name": "s", "cost": cost}
    study = nas.search(space, Evaluation(), n_trials=1, **where)
    other = study.ask()
    other.set_user_attr("worker", "another-host:1")
    again = nas.search(space, Evaluation(), n_trials=3, alone=True, **where)
    assert again.trials[other.number].state.is_finished()


def test_a_study_of_other_objectives_is_refused(tmp_path: Path) -> None:
    where = {"storage": tmp_path / "s.db", "study_name": "s", "cost": cost, "n_trials": 1}
    nas.search(space, Evaluation(), **where)
    said = "the study 's' has the objectives maximize accuracy, not maximize accuracy, minimize size"
    with pytest.raises(ValueError, match=said):
        nas.search(space, Evaluation(), objectives=("accuracy", "size"), **where)
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), study_name="theirs")
    with pytest.raises(ValueError, match="has the objectives minimize accuracy, not maximize accuracy"):
        nas.search(space, Evaluation(), cost=cost, storage=study._storage)


def test_without_a_name_the_same_call_goes_on_with_the_only_study(tmp_path: Path) -> None:
    first, second = Evaluation(), Evaluation()
    nas.search(space, first, cost=cost, n_trials=3, storage=tmp_path / "s.db")
    nas.search(space, second, cost=cost, n_trials=5, storage=tmp_path / "s.db")
    assert (len(first.asked), len(second.asked)) == (3, 2)
    optuna.create_study(storage=sqlite_url(tmp_path / "s.db"), study_name="other")
    with pytest.raises(ValueError, match="study_name must be one of other, search"):
        nas.search(space, second, cost=cost, n_trials=5, storage=tmp_path / "s.db")


def test_queued_trials_are_taken_first() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    for x, y in ((7, 1), (9, 3), (7, 1), (2, 3)):
        study.enqueue_trial({"x": x, "y": y})
    evaluate = Evaluation()
    nas.search(space, evaluate, cost=cost, budget={"size": 9}, n_trials=5, storage=storage, study_name="s")
    assert [found for found, _ in evaluate.asked[:2]] == [(7, 1), (2, 3)]
    assert [trial.state.name for trial in study.trials[:4]] == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    assert study.trials[2].user_attrs["why"] == "repeats an earlier candidate"
    assert len(evaluate.asked) == 5


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.GridSampler({"x": range(4), "y": [1, 2, 3]}, seed=0),
        optuna.samplers.BruteForceSampler(seed=0),
    ],
)
def test_samplers_that_list_everything_end_the_search(sampler: optuna.samplers.BaseSampler) -> None:
    evaluate = Evaluation()
    study = nas.search(
        lambda trial: (trial.suggest_int("x", 0, 3), trial.suggest_categorical("y", (1, 2, 3))), evaluate, cost=cost,
        n_trials=40, sampler=sampler,
    )  # fmt: skip
    assert len(evaluate.asked) == 12
    assert study.user_attrs["ended"] in {
        "sampler exhausted",
        "the space is exhausted: 500 draws found no new candidate within the budget",
    }


def test_a_space_may_write_into_its_trial() -> None:
    def writes(trial: Any) -> Pair:
        found = space(trial)
        trial.set_user_attr("product", found[0] * found[1])
        return found

    study = nas.search(writes, Evaluation(), cost=cost, budget={"size": 9}, n_trials=14)
    assert states(study)["COMPLETE"] == 14


@pytest.mark.parametrize(
    ("sampler", "name"),
    [
        (optuna.samplers.RandomSampler(seed=1), "instance"),
        (lambda seed: optuna.samplers.RandomSampler(seed), "factory"),
        (optuna.samplers.TPESampler, "class"),
    ],
)
def test_other_samplers_are_taken(sampler: Any, name: str) -> None:
    assert states(nas.search(space, Evaluation(), cost=cost, n_trials=4, sampler=sampler))["COMPLETE"] == 4


def test_timeout_ends_a_search() -> None:
    study = nas.search(
        lambda t: t.suggest_float("x", 0, 1), lambda x, f: x, cost=lambda x: {}, n_trials=None, timeout=0.3
    )
    assert states(study)["COMPLETE"] > 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives": ("latency_ms",)}, "objectives must include 'accuracy'"),
        ({"objectives": "accuracy"}, "objectives must .* be a list of distinct names, got 'accuracy'"),
        ({"objectives": ("accuracy", "accuracy")}, "objectives must .* be a list of distinct names"),
        ({"objectives": ("accuracy", ["size"])}, "objectives must .* be a list of distinct names"),
        ({"objectives": None}, "objectives must .* be a list of distinct names, got None"),
        ({"warm_start": None}, "warm_start must be a list of parameters by name, got None"),
        ({"warm_start": [optuna.trial.create_trial(value=1.0)]}, "warm_start must hold .*, got FrozenTrial"),
        ({"on_trial": 5}, "on_trial must be a function, got 5"),
        ({"objectives": ("accuracy", "weight")}, "cost must return 'weight'"),
        ({"budget": {"weight": 1}}, "cost must return 'weight'"),
        ({"budget": {"size": True}}, "budget 'size' must be a number above 0, got True"),
        ({"budget": {"size": 0}}, "budget 'size' must be a number above 0, got 0"),
        ({"budget": {"size": -1}}, "budget 'size' must be a number above 0, got -1"),
        ({"budget": {"size": None}}, "budget 'size' must be a number above 0, got None"),
        ({"budget": {"size": "5kB"}}, "budget 'size' must be a number above 0, got '5kB'"),
        ({"cost": lambda found: None}, "cost must return a mapping of numbers by name, got None"),
        ({"n_trials": 0}, "n_trials must be a whole number of at least 1 or None, got 0"),
        ({"n_trials": True}, "n_trials must be a whole number of at least 1 or None, got True"),
        ({"n_trials": 2.5}, "n_trials must be a whole number of at least 1 or None, got 2.5"),
        ({"n_trials": None}, "either n_trials or timeout is required"),
        ({"timeout": -1}, "timeout must be a number of seconds above 0 or None, got -1"),
        ({"timeout": True}, "timeout must be a number of seconds above 0 or None, got True"),
        ({"timeout": "1h"}, "timeout must be a number of seconds above 0 or None, got '1h'"),
        *(
            ({"seed": s}, f"seed must be an integer between 0 and 4294967295, got {s!r}")
            for s in (True, 1.5, "1", None, -1)
        ),
        ({"rungs": (0.5,)}, "rungs must increase"),
        ({"rungs": 0.5}, "rungs must increase from above 0 to 1, got 0.5"),
        ({"rungs": ("a",)}, "rungs must increase"),
        ({"budget": 5}, "budget must be a Budget or a mapping of limits by name, got 5"),
        ({"sampler": 3}, "sampler must be a sampler of Optuna, a name or a function of a seed, got 3"),
        ({"sampler": "tp"}, "unknown sampler 'tp'; did you mean 'tpe'"),
        ({"storage": 5}, "storage must be FILE.db"),
        ({"executor": 5}, "executor must have the methods"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"evaluation_timeout": 0}, "evaluation_timeout must be a number of seconds above 0 or None, got 0"),
        ({"cost": None}, "cost must be a function, got None"),
        ({"cost": lambda found: 3}, "cost must return a mapping of numbers by name, got 3"),
        ({"rungs": (0.5, 0.2, 1)}, "rungs must increase"),
        ({"cost": lambda found: {"size": math.nan}}, "cost 'size' must be a number"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        nas.search(space, Evaluation(), **{"cost": cost, "n_trials": 2, **changes})


def test_spaces_that_give_no_candidate_are_refused() -> None:
    def prunes(trial: Any) -> Pair:
        raise optuna.TrialPruned("no such block")

    with pytest.raises(ValueError, match=r"it raised TrialPruned\(no such block\)"):
        nas.search(prunes, Evaluation(), cost=cost, n_trials=2)
    with pytest.raises(ValueError, match="space must return a candidate, got None"):
        nas.search(lambda trial: (trial.suggest_int("x", 0, 9), None)[1], Evaluation(), cost=cost, n_trials=2)
    with pytest.raises(
        ValueError, match="hashable or made of dicts, lists, sets and arrays: unhashable type: 'bytearray'"
    ):
        nas.search(lambda trial: [bytearray(trial.suggest_int("x", 0, 9))], Evaluation(), cost=cost, n_trials=2)


def test_the_sampler_learns_which_choices_a_space_orders() -> None:
    seen = []

    class Ordered:
        ordered = frozenset({"y"})

        def __call__(self, trial: Any) -> Pair:
            return space(trial)

    class Sampler(optuna.samplers.RandomSampler):
        def with_problem(self, problem: Any) -> Any:
            seen.append(problem.space.ordered)
            return self

    nas.search(Ordered(), Evaluation(), cost=cost, n_trials=1, sampler=Sampler(seed=0))
    assert seen == [frozenset({"y"})]


def test_candidates_need_a_study_of_ours() -> None:
    with pytest.raises(ValueError, match=r"one that nas.search returned"):
        nas.candidate(optuna.create_study(), optuna.trial.create_trial(value=1.0))


def test_winners_and_fronts_are_those_of_a_search_and_of_its_costs() -> None:
    with pytest.raises(ValueError, match=r"was not made by nas\.search"):
        nas.winner(optuna.create_study())
    study = nas.search(space, Evaluation(), cost=cost, n_trials=2)
    with pytest.raises(ValueError, match=r"pareto_front: unknown cost 'sise'; did you mean 'size'\? \(valid: size"):
        nas.pareto_front(study, "sise")


def test_what_the_space_raises_is_named_as_its_own() -> None:
    def broken(trial: optuna.Trial) -> int:
        return trial.suggest_int("w", 1, 8) // 0

    with pytest.raises(UserFunctionError, match=r"space raised ZeroDivisionError: .*by zero"):
        nas.search(broken, Evaluation(), cost=cost, n_trials=3)
