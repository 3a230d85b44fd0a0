"""The arguments of a search, and the numbers that a user's functions return, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import optuna

from compress.argument_checks import LARGEST_SEED, is_number, is_whole
from hw_profiles.budget import Budget
from hw_profiles.errors import InputError
from nas.engine.unhashable_candidates import hashable, plain
from nas.errors import UserFunctionError
from nas.samplers.trial_attributes import ACCURACY

_ROUNDING = 1e-5  # of a mean of float32
_FAULTS = (ArithmeticError, AttributeError, LookupError, NameError, TypeError)
"""What functions of users raise by mistake."""


def check_arguments(objectives: Sequence[str], n_trials: int | None, timeout: float | None, seed: int) -> None:
    """Refuse what cannot be.

    Raises:
        InputError: with the name of the argument, what must hold, and what came.
    """
    listed = isinstance(objectives, Sequence) and not isinstance(objectives, str)
    if not listed or not all(isinstance(name, str) for name in objectives) or len({*objectives}) != len(objectives):
        raise InputError(f"objectives must include 'accuracy' and be a list of distinct names, got {objectives!r}")
    if ACCURACY not in objectives:
        raise InputError(f"objectives must include 'accuracy' and be a list of distinct names, got {objectives!r}")
    if n_trials is None and timeout is None:
        raise InputError("either n_trials or timeout is required")
    if n_trials is not None and not is_whole(n_trials, 1):
        raise InputError(f"n_trials must be a whole number of at least 1 or None, got {n_trials!r}")
    check_seconds("timeout", timeout)
    if not is_whole(seed, 0, LARGEST_SEED):
        raise InputError(f"seed must be an integer between 0 and {LARGEST_SEED}, got {seed!r}")


def check_callables(**functions: object) -> None:
    """Refuse what cannot be called."""
    for name, function in functions.items():
        if not callable(function):
            raise InputError(f"{name} must be a function, got {function!r}")


def check_warm_start(warm_start: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what is no list of parameters by name."""
    if not isinstance(warm_start, Sequence) or isinstance(warm_start, str):
        raise InputError(f"warm_start must be a list of parameters by name, got {warm_start!r:.100}")
    for each in warm_start:
        if not isinstance(each, Mapping):
            raise InputError(f"warm_start must hold parameters by name, as trial.params does, got {each!r:.100}")


def checked_space(space: Callable[[Any], Any]) -> Callable[[Any], Hashable]:
    """``space``, or an InputError where it gives what cannot be a candidate, a UserFunctionError where it fails."""

    def checked(trial: Any) -> Hashable:
        try:
            candidate = space(trial)
            found = hashable(candidate)
        except optuna.TrialPruned as error:
            raise InputError(
                f"space must return a candidate, it raised TrialPruned({error}): exclude invalid candidates from the "
                "space, or report a cost above the limit"
            ) from None
        except _FAULTS as error:
            if not isinstance(error, TypeError) or "unhashable" not in str(error):
                raise UserFunctionError(f"space raised {type(error).__name__}: {error}") from error
            raise InputError(
                f"space must return a candidate that is hashable or made of dicts, lists, sets and arrays: {error}"
            ) from None
        if candidate is None:
            raise InputError("space must return a candidate, got None")
        return found

    checked.ordered = getattr(space, "ordered", None)  # type: ignore[attr-defined]  # which choices have an order
    return checked


def check_seconds(name: str, value: float | None) -> None:
    """Refuse what is neither None nor a number of seconds above 0."""
    if value is not None and not is_number(value, 0):
        raise InputError(f"{name} must be a number of seconds above 0 or None, got {value!r}")


def limits_of(budget: Budget | Mapping[str, float] | None) -> dict[str, float]:
    """The limits of a budget by the name of the cost.

    >>> limits_of({"latency_ms": 5})
    {'latency_ms': 5}
    """
    if isinstance(budget, Budget):
        return budget.limits()
    if not isinstance(budget, Mapping | None):
        raise InputError(f"budget must be a Budget or a mapping of limits by name, got {budget!r}")
    limits = {}
    for name, limit in (budget or {}).items():
        number = plain_number(limit)
        if number is None or not 0 < number < math.inf:
            raise InputError(f"budget {name!r} must be a number above 0, got {limit!r}")
        limits[name] = number
    return limits


def checked_costs(costs: Mapping[str, Any], needed: Iterable[str]) -> dict[str, float]:
    """What ``cost`` returned as plain numbers; it must tell what is ``needed``."""
    if not isinstance(costs, Mapping):
        raise InputError(f"cost must return a mapping of numbers by name, got {costs!r}")
    checked = {}
    for name, value in costs.items():
        number = plain_number(value)
        if number is None or math.isnan(number):
            raise InputError(f"cost {name!r} must be a number, got {value!r}")
        checked[name] = number
    for name in needed:
        if name not in checked:
            raise InputError(
                f"cost must return {name!r}, which is limited or an objective; it returns {', '.join(checked)}"
            )
    return checked


def returned_costs(
    cost: Callable[[Any], Mapping[str, Any]], found: Hashable, needed: Iterable[str]
) -> dict[str, float]:
    """What ``cost`` returns for a candidate, checked.

    Raises:
        InputError: it returned no numbers, or not those that are needed.
        UserFunctionError: it failed.
    """
    try:
        returned = cost(plain(found))
    except _FAULTS as error:
        raise UserFunctionError(
            f"cost raised {type(error).__name__}: {error} for the candidate {plain(found)!r:.200}"
        ) from error
    return checked_costs(returned, needed)


def checked_accuracy(value: Any) -> float:
    """What ``evaluate`` returned as a number in 0..1; what rounding put above 1 is 1."""
    accuracy = plain_number(value)
    if accuracy is not None and 1 < accuracy < 1 + _ROUNDING:
        return 1.0
    if accuracy is None or not 0 <= accuracy <= 1:
        percent = "; a percentage must be divided by 100" if accuracy is not None and 1 < accuracy <= 100 else ""
        raise InputError(f"evaluate must return an accuracy between 0 and 1, got {value!r}{percent}")
    return float(accuracy)


def may_be_chance(value: Any) -> bool:
    """Whether a wrong accuracy may come of one training, such as NaN, and not of how ``evaluate`` is written."""
    accuracy = plain_number(value)
    return accuracy is not None and not math.isfinite(accuracy)


def plain_number(value: Any) -> float | None:
    """A number of Python, numpy or torch as one of Python, the only ones that storages take; None for anything else."""
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if not isinstance(number, Real) or isinstance(number, bool):
        return None
    return int(number) if isinstance(number, Integral) else float(number)
