"""The options of ``nas run``, ``init``, ``search`` and ``worker``."""

from __future__ import annotations

from typing import Any

from nas.commands.options.setting_options import JSON, RUN_OPTIONS, add_option, add_settings

# Options of `nas run` that `nas search` does not have.
_NOT_OF_A_SEARCH = ("--max-accuracy-drop", "--teacher", "--baseline")
WORKER_OPTIONS = ("--workers", "--artifacts", "--executor", "--address", "--cpus", "--gpus")
_WORKER_HELP = {"--workers": "number of candidates trained in parallel, each in its own process (default: 1)"}


def add_search_verbs(verbs: Any) -> None:
    """Add ``run``, ``init``, ``search`` and ``worker``."""
    run = verbs.add_parser("run", help="search for, train, compress and test a model")
    run.add_argument("config", nargs="?", help="TOML settings file, as written by `nas init` (default: none)")
    add_settings(run, tuple(RUN_OPTIONS))
    run.add_argument("--json", action="store_true", help="print metrics.json instead of the table (default: off)")
    init = verbs.add_parser("init", help="write a commented TOML file with all settings of `nas run`")
    init.add_argument("file", nargs="?", default="fitnas.toml", help=".toml file to write (default: fitnas.toml)")
    init.add_argument("--force", action="store_true", help="overwrite an existing file (default: off)")
    add_settings(init, tuple(RUN_OPTIONS))
    searched = verbs.add_parser("search", help="run the search only and print the Pareto front")
    searched.add_argument("config", nargs="?", help="TOML settings file, as written by `nas init` (default: none)")
    add_settings(searched, tuple(option for option in RUN_OPTIONS if option not in _NOT_OF_A_SEARCH))
    searched.add_argument("--json", action="store_true", help=JSON)
    worker = verbs.add_parser("worker", help="join a search started with --storage and train its candidates")
    worker.add_argument("study", help="name of the study")
    worker.add_argument(
        "--storage", required=True, help="storage that the study was started with, e.g. search.journal (required)"
    )
    worker.add_argument("--data", required=True, help="dataset that the study was started with (required)")
    for option in WORKER_OPTIONS:
        add_option(worker, option, _WORKER_HELP.get(option))
