"""Weights in fewer bits, activations in float: fp16, int4, binary."""
