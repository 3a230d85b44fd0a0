"""Unstructured and block sparsity: single weights become zero."""
