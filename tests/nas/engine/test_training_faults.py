"""Trainings that cannot go on: a candidate fails with the cause, a command ends with one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

import nas
import nas.commands.main
from blocks.spec import BlockSpec
from compress.data.in_memory import arrays_dataset
from compress.training.faults import DivergedError, too_large
from compress.training.loop import Recipe
from nas.engine.candidate_evaluation import ShortTraining
from nas.errors import UserFunctionError
from search_spaces.arch import Arch

DATA = arrays_dataset(np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), np.uint8), np.arange(100) % 2)


def space(trial: Any) -> Arch:
    width = trial.suggest_categorical("width", (8, 16))
    stem = BlockSpec(kind="conv", in_channels=3, out_channels=width)
    return Arch(input_shape=(3, 8, 8), stem=stem, stages=(), head=None, num_classes=2)


@pytest.mark.parametrize("isolated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_candidate_whose_training_diverges_fails_and_says_why(isolated: bool) -> None:
    training = ShortTraining(DATA, Recipe(epochs=4, learning_rate=1e30), seed=0)
    with pytest.raises(UserFunctionError, match="DivergedError: the training diverged") as caught:
        nas.search(space, training, cost=lambda arch: {"size": 1}, n_trials=1, isolated=isolated)
    study = caught.value.study
    assert study is not None
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs["cause"].startswith("DivergedError: the training diverged")
    assert "lower learning rate" in study.trials[0].user_attrs["cause"]


@pytest.mark.parametrize("error", [DivergedError("the training diverged"), too_large(MemoryError())])
def test_a_command_ends_with_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(parsed: Any) -> int:
        raise error

    monkeypatch.setitem(nas.commands.main._COMMANDS, "list", fail)
    assert nas.commands.main.main(["list"]) == 2
    assert capsys.readouterr().err == f"nas: error: {error}\n"
