"""Compression: data, the training loop, and stages that turn an Artifact into a smaller one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.artifact import Artifact
    from compress.data import Dataset, load_data
    from compress.distill import Distill
    from compress.preprocessing import Preprocessing
    from compress.prune import Prune
    from compress.quantize import Quantize
    from compress.stage import Context
    from compress.stages import STAGES, run_stages
    from compress.train import Recipe

__all__ = [
    "STAGES",
    "Artifact",
    "Context",
    "Dataset",
    "Distill",
    "Preprocessing",
    "Prune",
    "Quantize",
    "Recipe",
    "load_data",
    "run_stages",
]

_HOMES = {
    "STAGES": "stages",
    "Artifact": "artifact",
    "Context": "stage",
    "Dataset": "data",
    "Distill": "distill",
    "Preprocessing": "preprocessing",
    "Prune": "prune",
    "Quantize": "quantize",
    "Recipe": "train",
    "load_data": "data",
    "run_stages": "stages",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"compress.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'compress' has no attribute {name!r}")
