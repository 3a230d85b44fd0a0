"""Labeled images: where they come from, how they are decoded, split and preprocessed."""
