"""The search: trials of an Optuna study, samplers, early stopping, the choice of the winner."""
