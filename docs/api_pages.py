"""Writes the API reference from the docstrings into a folder; a warning of pdoc is an error."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import pdoc

PACKAGES = ("blocks", "hw_profiles", "search_spaces", "compress", "nas")


def load_lazy_names(package: str) -> None:
    """Put every public name of a package into its namespace, where pdoc looks for it."""
    module = importlib.import_module(package)
    for name in module.__all__:
        setattr(module, name, getattr(module, name))


if __name__ == "__main__":
    for package in PACKAGES:
        load_lazy_names(package)
    warnings.filterwarnings("error", module="pdoc")
    pdoc.pdoc(*PACKAGES, output_directory=Path(sys.argv[1]))
