"""What proposes the next candidate: Optuna's samplers and those of this project."""
