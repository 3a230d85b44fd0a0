"""The attributes that the search stores in addition to the parameters and values of a trial."""

from __future__ import annotations

from optuna.trial import FrozenTrial

ACCURACY = "accuracy"
# Attributes of a trial. WHY it was rejected or stopped; the CAUSE of a failure; its COST; whether that is FEASIBLE;
# whether its evaluation was STARTED, how often one was begun (ATTEMPTS, where a process died), and after what failure
# it was RETRIED in another format.
WHY, CAUSE, COST, FEASIBLE = "why", "cause", "cost", "feasible"
# For people who look at the study: the candidate as its ``summary()`` says it, and its costs beside their limits.
NETWORK, LIMITS = "network", "limits"
STARTED, ATTEMPTS, RETRIED = "evaluation_started", "attempts", "retried_after"
# Its accuracies on two HALVES of the validation images, and the STANDARD_ERROR of the whole.
HALVES, STANDARD_ERROR = "halves", "standard_error"
# Attributes of a study: the names of its OBJECTIVES, why its search ENDED, costs met without a trial (PROBED), and the
# accuracies of the best candidates when they were scored again, by the number of the trial.
OBJECTIVES, ENDED, PROBED, REPEATED_SCORES = "objectives", "ended", "probed", "repeated_scores"

REPEATS = "repeats an earlier candidate"
_AT_RUNG = "accuracy_at_"


def rung_key(rung: float) -> str:
    """The attribute that holds a trial's accuracy at a fidelity.

    >>> rung_key(0.25)
    'accuracy_at_0.25'
    """
    return f"{_AT_RUNG}{rung:g}"


def rung_of(key: str) -> float | None:
    """The fidelity whose accuracy an attribute holds; None for any other attribute.

    >>> rung_of("accuracy_at_0.25"), rung_of("cost")
    (0.25, None)
    """
    return float(key.removeprefix(_AT_RUNG)) if key.startswith(_AT_RUNG) else None


def started(trial: FrozenTrial) -> bool:
    """Whether a trial counts as one of ``n_trials``."""
    return bool(trial.user_attrs.get(STARTED))


def rejected(trial: FrozenTrial) -> bool:
    """Whether a trial was rejected without an evaluation."""
    return WHY in trial.user_attrs and not started(trial)


def repeated(trial: FrozenTrial) -> bool:
    """Whether a trial proposed a candidate that had been there before."""
    return str(trial.user_attrs.get(WHY, "")).startswith(REPEATS)
