"""Structured pruning: channels, attention heads and blocks are removed."""
