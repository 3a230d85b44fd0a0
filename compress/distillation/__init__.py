"""Distillation: a network trained with the outputs of its teachers."""
