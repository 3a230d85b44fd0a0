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
    from nas.pipeline.search_alone import NetworkSearch, join_search, search_networks
    from nas.report.report_file import write_report
    from nas.results.collect import Result
    from nas.results.compared_files import compare
    from nas.results.records import records

__all__ = [
    "Config",
    "CrashError",
    "InputError",
    "NetworkSearch",
    "NothingFitsError",
    "Result",
    "SelectedModel",
    "UserFunctionError",
    "candidate",
    "compare",
    "compress",
    "join_search",
    "pareto_front",
    "records",
    "run",
    "search",
    "search_networks",
    "select",
    "winner",
    "write_report",
]

_HOMES = {
    "Config": "config",
    "CrashError": "errors",
    "InputError": "errors",
    "NetworkSearch": "pipeline.search_alone",
    "NothingFitsError": "errors",
    "Result": "results.collect",
    "UserFunctionError": "errors",
    "SelectedModel": "model_selection.zoo_selection",
    "candidate": "engine.search",
    "compare": "results.compared_files",
    "compress": "compression.compress_model",
    "join_search": "pipeline.search_alone",
    "pareto_front": "engine.pareto",
    "records": "results.records",
    "run": "pipeline.run",
    "search": "engine.search",
    "search_networks": "pipeline.search_alone",
    "select": "model_selection.zoo_selection",
    "winner": "engine.search",
    "write_report": "report.report_file",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"nas.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")
