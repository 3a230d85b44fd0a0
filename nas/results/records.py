"""Any result as rows for a table, such as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import optuna

from hw_profiles.errors import InputError
from nas.samplers.trial_attributes import CAUSE, COST, OBJECTIVES, WHY

_VALID = (
    "what nas.run, nas.compress, nas.search, nas.search_networks, nas.select, nas.compare, hw_profiles.profile, "
    "hw_profiles.profile_layers or hw_profiles.check_machine returned"
)


def records(result: object) -> list[dict[str, Any]]:
    """Convert a result to a list of flat dictionaries, e.g. for ``pandas.DataFrame(records(result))``.

    - ``nas.run``: one row for each network (winner, compression steps, teacher, baseline)
    - ``nas.compress``: for each step; the first row is the original model
    - ``nas.search``, ``nas.search_networks``: for each trial, with its objectives, costs and parameters
    - ``nas.select``: for each model
    - ``nas.compare``, ``hw_profiles.profile_layers``: for each layer
    - ``hw_profiles.check_machine``: for each measured network
    - ``hw_profiles.profile``: one row

    A row is a flat dictionary. The entries of a nested one get its name and a dot: ``cost.latency_ms``.

    Raises:
        InputError: ``result`` has another type.

    >>> import nas
    >>> [row["published_top1"] > 0.5 for row in records(nas.select("host", flash="3MB", precision="int8", top=2))]
    [True, True]
    >>> study = nas.search(lambda trial: trial.suggest_int("x", 1, 3), lambda x, fidelity: x / 4,
    ...                    cost=lambda x: {"size": x}, n_trials=1)
    >>> list(records(study)[0])
    ['trial', 'state', 'reason', 'accuracy', 'cost.size', 'params.x']
    """
    return [_flat(row) for row in _rows(result)]


def _rows(result: object) -> list[dict[str, Any]]:
    found = getattr(result, "rows", result)
    if isinstance(found, optuna.Study):
        return [_trial(trial, found) for trial in found.get_trials(deepcopy=False)]
    listed = found if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    return [_row(each) for each in listed]


def _row(found: object) -> dict[str, Any]:
    if isinstance(found, Mapping):
        return dict(found)
    if is_dataclass(found) and not isinstance(found, type):
        return asdict(found)
    raise InputError(f"records: the result must be {_VALID}, got {type(found).__name__}")


def _trial(trial: optuna.trial.FrozenTrial, study: optuna.Study) -> dict[str, Any]:
    attributes = trial.user_attrs
    names = study.user_attrs.get(OBJECTIVES, [f"value {i}" for i in range(len(study.directions))])
    return {
        "trial": trial.number,
        "state": trial.state.name,
        "reason": attributes.get(WHY) or attributes.get(CAUSE, ""),
        **dict(zip(names, trial.values or [None] * len(names), strict=True)),
        "cost": attributes.get(COST, {}),
        "params": trial.params,
    }


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
