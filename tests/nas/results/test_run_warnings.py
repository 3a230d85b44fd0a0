"""What is said of a run whose accuracies mean less than they seem to."""

from __future__ import annotations

from dataclasses import replace

import optuna

import nas
from compress import load_data
from nas.results.run_warnings import failed_candidates, run_warnings


def test_test_images_that_stand_in_training_too_are_told() -> None:
    data = load_data("digits")
    clean = replace(data, facts={"near_duplicates": {"val": 3, "test": 0, "pairs": []}})
    leaking = replace(data, facts={"near_duplicates": {"val": 0, "test": 2, "pairs": []}})
    assert run_warnings([], clean) == []
    assert run_warnings([], leaking) == [
        "2 of 359 test images are near-duplicates of a training or validation image, so the test accuracy is likely overestimated"
    ]


def test_only_trainings_that_were_cut_short_are_told() -> None:
    long = {"label": "winner", "training": {"epochs": 20.0, "steps": 760}}
    short = {"label": "pruned", "training": {"epochs": 2.5, "steps": 95}}
    few = {"label": "resnet8", "training": {"epochs": 9.0, "steps": 60}}
    said = run_warnings([long, short, few, {"label": "int8"}], load_data("digits"))
    assert [line.partition(":")[0] for line in said if "trained for" in line] == ["pruned", "resnet8"]


def test_candidates_that_could_not_be_trained_are_told() -> None:
    class Evaluate:
        def __call__(self, x: int, fidelity: float) -> float:
            if x > 1:
                raise RuntimeError("no such kernel")
            return 0.5

        def alternative(self, x: int, fidelity: float) -> float:
            if x > 2:
                raise MemoryError
            return 0.5

    study = nas.search(lambda trial: trial.suggest_int("x", 0, 3), Evaluate(), cost=lambda x: {}, n_trials=4)
    assert failed_candidates(study) == [
        "1 of 4 candidates failed to train; last error: MemoryError",
        "1 candidates were retrained in a different memory format; last reason: RuntimeError: no such kernel",
    ]
    assert failed_candidates(optuna.create_study()) == []
