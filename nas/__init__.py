"""The application: search, pipeline, report, command line. Importing it loads neither torch nor Optuna."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.compression.compress_model import compress
    from nas.config import Config
    from nas.engine.pareto import pareto_front
    from nas.engine.search import candidate, search, winner
    from nas.errors import CrashError, InputError, NothingFitsError, UserFunctionError
    from nas.model_selection.zoo_selection import SelectedModel, select
    from nas.pipeline.run import run

__all__ = [
    "Config",
    "CrashError",
    "InputError",
    "NothingFitsError",
    "SelectedModel",
    "UserFunctionError",
    "candidate",
    "compress",
    "pareto_front",
    "run",
    "search",
    "select",
    "winner",
]

_HOMES = {
    "Config": "config",
    "CrashError": "errors",
    "InputError": "errors",
    "NothingFitsError": "errors",
    "UserFunctionError": "errors",
    "SelectedModel": "model_selection.zoo_selection",
    "candidate": "engine.search",
    "compress": "compression.compress_model",
    "pareto_front": "engine.pareto",
    "run": "pipeline.run",
    "search": "engine.search",
    "select": "model_selection.zoo_selection",
    "winner": "engine.search",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"nas.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")
