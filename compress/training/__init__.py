"""The one training loop, evaluation, and the teacher networks of distillation."""
