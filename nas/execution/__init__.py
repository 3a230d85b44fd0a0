"""Where candidates are evaluated: in this process, in worker processes, or elsewhere."""
