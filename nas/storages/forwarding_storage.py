"""The base class of storages that wrap another storage."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.study._study_direction import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class ForwardingStorage(BaseStorage):
    """Hands every call on to ``backend``; subclasses say by ``_call`` how, or define what they do themselves.

    >>> from optuna.storages import InMemoryStorage
    >>> ForwardingStorage(InMemoryStorage()).get_all_studies()
    []
    """

    def __init__(self, backend: BaseStorage) -> None:
        self.backend = backend

    def _call(self, name: str, *args: Any) -> Any:
        return getattr(self.backend, name)(*args)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """As the backend."""
        return int(self._call("create_new_study", directions, study_name))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """As the backend."""
        self._call("set_study_user_attr", study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """As the backend."""
        self._call("set_study_system_attr", study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """As the backend."""
        return int(self._call("get_study_id_from_name", study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """As the backend."""
        return str(self._call("get_study_name_from_id", study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As the backend."""
        directions: list[StudyDirection] = self._call("get_study_directions", study_id)
        return directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As the backend."""
        attributes: dict[str, Any] = self._call("get_study_user_attrs", study_id)
        return attributes

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As the backend."""
        attributes: dict[str, Any] = self._call("get_study_system_attrs", study_id)
        return attributes

    def get_all_studies(self) -> list[FrozenStudy]:
        """As the backend."""
        studies: list[FrozenStudy] = self._call("get_all_studies")
        return studies

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """As the backend."""
        self._call("set_trial_param", trial_id, param_name, param_value_internal, distribution)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """As the backend."""
        return int(self._call("get_trial_id_from_study_id_trial_number", study_id, trial_number))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As the backend."""
        self._call("set_trial_intermediate_value", trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As the backend."""
        self._call("set_trial_user_attr", trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As the backend."""
        self._call("set_trial_system_attr", trial_id, key, value)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As the backend."""
        trial: FrozenTrial = self._call("get_trial", trial_id)
        return trial

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As the backend."""
        trials: list[FrozenTrial] = self._call("get_all_trials", study_id, deepcopy, states)
        return trials

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """As the backend."""
        trial: FrozenTrial = self._call("get_best_trial", study_id)
        return trial

    def remove_session(self) -> None:
        """As the backend."""
        self.backend.remove_session()

    def delete_study(self, study_id: int) -> None:
        """As the backend."""
        self._call("delete_study", study_id)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As the backend."""
        return int(self._call("create_new_trial", study_id, template_trial))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As the backend."""
        return bool(self._call("set_trial_state_values", trial_id, state, values))
