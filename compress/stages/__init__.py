"""The order of stages, what is accepted and what is reverted, and resuming."""
