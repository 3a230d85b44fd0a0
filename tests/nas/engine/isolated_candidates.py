"""Candidates that do harm, for evaluations in processes of their own."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import numpy as np

HARM = ("none", "no", "not any", "abort", "memory", "sleep", "nan", "raise")


def space(trial: Any) -> tuple[str, int]:
    return trial.suggest_categorical("harm", HARM), trial.suggest_int("x", 0, 1)


def cost(found: tuple[str, int]) -> dict[str, float]:
    return {"size": found[1]}


def evaluate(found: tuple[str, int], fidelity: float) -> float:
    harm, x = found
    if harm == "abort":
        os.abort()
    elif harm == "memory":
        held = []
        while True:
            held.append(np.empty(50_000_000, np.uint8))  # untouched memory counts as well, and takes no time
    elif harm == "sleep":
        time.sleep(600)
    elif harm == "nan":
        return math.nan
    elif harm == "raise":
        raise RuntimeError("no such kernel")
    return 0.5 + x / 10
