"""Trained weights: files of them, their names, and slices of them."""
