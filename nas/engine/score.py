"""The values that an evaluation may return in addition to an accuracy, and whether they can rank candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import TrialState
from scipy.stats import spearmanr

from nas.samplers.trial_attributes import HALVES

_FEWEST_TRIALS = 6


@dataclass(frozen=True, slots=True)
class Score:
    """An accuracy in 0..1, those of two ``halves`` of the validation images, and the standard error of the first, which
    stand in the trial's attributes ``halves`` and ``standard_error``; ``evaluate`` may return it in place of a number.
    """

    accuracy: float
    halves: tuple[float, float]
    standard_error: float

    @classmethod
    def of(cls, right: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Score:
        """Of whether each image was classified right; every second one is one half.

        >>> Score.of(np.array([True, False, True, False]))
        Score(accuracy=0.5, halves=(1.0, 0.0), standard_error=0.25)
        """
        first, second = right[::2], right[1::2]
        halves = (float(first.mean()), float(second.mean() if len(second) else first.mean()))
        # As if two images more, one of them right, had been seen: none wrong of ten is no certainty.
        share = (right.sum() + 1) / (len(right) + 2)
        return cls(float(right.mean()), halves, round(float(np.sqrt(share * (1 - share) / len(right))), 6))


def agreement_of_halves(study: optuna.Study) -> float | None:
    """The rank correlation (Spearman) of the candidates' accuracies on the two halves of the validation images.

    Near 1 the ranking of the candidates is reliable; near 0 it is chance. None for fewer than six
    candidates, or where they are all alike.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    pairs = np.array([trial.user_attrs[HALVES] for trial in trials if HALVES in trial.user_attrs])
    if len(pairs) < _FEWEST_TRIALS or np.ptp(pairs, axis=0).min() == 0:
        return None
    return float(spearmanr(pairs[:, 0], pairs[:, 1])[0])
