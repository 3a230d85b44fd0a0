"""The best networks of an earlier run, to be tried first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from hw_profiles.errors import InputError
from nas.config import Config, load_config
from nas.engine.search import ranked_trials
from nas.pipeline.run_folder import FOLDERS_STUDY
from nas.storages.open_storage import open_storage

_BEST = 5


def best_of_earlier_run(config: Config) -> list[Mapping[str, Any]]:
    """Parameters of the five most accurate candidates of the run ``config.warm_start``, the best first.

    Raises:
        InputError: not the folder of a run, or one of another space.
    """
    if config.warm_start is None:
        return []
    folder = Path(config.warm_start)
    if not (folder / "config.toml").is_file() or not (folder / "study.db").is_file():
        raise InputError(f"--warm-start {folder}: must be a run folder that contains study.db")
    earlier = load_config(folder / "config.toml")
    if (earlier.space, earlier.init) != (config.space, config.init):
        mine, theirs = config.init or config.space, earlier.init or earlier.space
        raise InputError(f"--warm-start {folder}: the run used the space {theirs!r}, expected {mine!r}")
    storage = open_storage(folder / "study.db")
    assert storage is not None
    try:
        study = optuna.load_study(study_name=FOLDERS_STUDY, storage=storage)
    except KeyError:
        raise InputError(f"--warm-start {folder}: its study.db holds no study {FOLDERS_STUDY!r}") from None
    return [trial.params for trial in ranked_trials(study)[:_BEST]]
