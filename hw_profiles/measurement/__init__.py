"""Latency measured on this machine, and device files made from such measurements."""
