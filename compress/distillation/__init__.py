"""Distillation: a network trained with what its teachers make of the images."""
