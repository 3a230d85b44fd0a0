"""Lower precision: int8, weight-only formats, mixed precision, and int8 simulated in PyTorch."""
