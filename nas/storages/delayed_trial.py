"""A new trial stays in memory until its proposal is complete, and is then written as a whole."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.storages.forwarding_storage import ForwardingStorage

_NOT_WRITTEN = -1


class DelayedTrial(ForwardingStorage):
    """Hands every call on to ``backend``, but those of the newest trial until :meth:`write`.

    Databases write each parameter and each attribute in a transaction of its own, which takes longer than to propose
    them; and a process that dies among them leaves a trial with half of its values. Here a proposal is one
    transaction. Until then its number is the one that it will get if no other process is faster.
    """

    def __init__(self, backend: BaseStorage) -> None:
        super().__init__(backend)
        self._trial: FrozenTrial | None = None

    def write(self, trial_id: int, state: TrialState = TrialState.RUNNING) -> FrozenTrial:
        """Write the newest trial in this state; the trial as it is now stored.

        One that was queued before (``Study.enqueue_trial``) is written already, and gets its state.
        """
        if trial_id != _NOT_WRITTEN:
            if state.is_finished():
                self.backend.set_trial_state_values(trial_id, state)
            return self.backend.get_trial(trial_id)
        assert self._trial is not None
        trial, self._trial = self._trial, None
        trial.state = state
        if state.is_finished():
            trial.datetime_complete = datetime.now()
        return self.backend.get_trial(self.backend.create_new_trial(self._study_id, trial))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """A trial in memory; one that was there before and not written is forgotten."""
        self._study_id = study_id
        trial = copy.deepcopy(template_trial) or create_trial(state=TrialState.RUNNING)
        trial._trial_id = _NOT_WRITTEN
        trial.number = self.backend.get_n_trials(study_id)
        trial.datetime_start = datetime.now()
        self._trial = trial
        return _NOT_WRITTEN

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As the backend."""
        if trial_id != _NOT_WRITTEN:
            return self.backend.get_trial(trial_id)
        assert self._trial is not None
        return copy.deepcopy(self._trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """As the backend."""
        if trial_id != _NOT_WRITTEN:
            self.backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)
            return
        assert self._trial is not None
        self._trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        self._trial.distributions[param_name] = distribution

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As the backend, for a trial that is written."""
        assert trial_id != _NOT_WRITTEN
        return self.backend.set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As the backend."""
        if trial_id != _NOT_WRITTEN:
            self.backend.set_trial_intermediate_value(trial_id, step, intermediate_value)
            return
        assert self._trial is not None
        self._trial.intermediate_values[step] = intermediate_value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As the backend."""
        if trial_id != _NOT_WRITTEN:
            self.backend.set_trial_user_attr(trial_id, key, value)
            return
        assert self._trial is not None
        self._trial.user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As the backend."""
        if trial_id != _NOT_WRITTEN:
            self.backend.set_trial_system_attr(trial_id, key, value)
            return
        assert self._trial is not None
        self._trial.system_attrs[key] = value

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """As the backend."""
        if trial_id != _NOT_WRITTEN or self._trial is None:
            attributes: dict[str, Any] = self.backend.get_trial_system_attrs(trial_id)
            return attributes
        return self._trial.system_attrs

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As the backend, and the newest trial while it is not written: samplers look for their own."""
        trials = self.backend.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        if self._trial is None or (states is not None and TrialState.RUNNING not in states):
            return trials
        return [*trials, copy.deepcopy(self._trial) if deepcopy else self._trial]
