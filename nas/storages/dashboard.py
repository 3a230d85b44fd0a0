"""What optuna-dashboard shows of a study: its names, limits and a note; the dashboard itself is not needed for it.

Of a trial it shows the user attributes, so a network or a cost is a readable text there. It grays out what breaks a
constraint, but knows only the form that constraints had before Optuna 5; a search needs none of that, for it gives
values to feasible trials only.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import optuna

_NOTE_VERSION, _NOTE_PART = "dashboard:note_ver", "dashboard:note_str:"
_PART_LENGTH = 2045  # characters of a note in one attribute: the dashboard's own


def describe(study: optuna.Study, objectives: Sequence[str], note: str) -> None:
    """Name the objectives and write the note of a study, in Markdown; one that a user has written there is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))
    storage, study_id = study._storage, study._study_id
    if _NOTE_VERSION in storage.get_study_system_attrs(study_id):
        return
    for number, begin in enumerate(range(0, len(note), _PART_LENGTH)):
        storage.set_study_system_attr(study_id, f"{_NOTE_PART}{number}", note[begin : begin + _PART_LENGTH])
    storage.set_study_system_attr(study_id, _NOTE_VERSION, 1)


def limits_text(costs: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """A candidate's costs beside their limits, the most used first.

    >>> limits_text({"latency_ms": 0.45, "flash_bytes": 250, "macs": 7}, {"flash_bytes": 1000, "latency_ms": 0.3})
    'latency_ms 0.45 of 0.3 (150%); flash_bytes 250 of 1000 (25%)'
    """
    shares = sorted(((costs[name] / limit, name) for name, limit in limits.items()), reverse=True)
    return "; ".join(f"{name} {costs[name]:g} of {limits[name]:g} ({share:.0%})" for share, name in shares)
