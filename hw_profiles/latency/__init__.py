"""Latency estimated from the costs of a device."""
