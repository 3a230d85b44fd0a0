"""``nas --print-completion SHELL``: what a shell needs to complete verbs, options and file names."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import shtab

_FILES = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY, "TABLE.csv": shtab.FILE}
_ARGUMENTS_THAT_ARE_PATHS = ("config", "file", "run", "model", "source", "a", "b", "data", "device", "base", "init")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add ``--print-completion``, and have the shell complete the names of files where an argument can be one."""
    for action in _actions(parser):
        kind = _FILES.get(str(action.metavar)) or (shtab.FILE if action.dest in _ARGUMENTS_THAT_ARE_PATHS else None)
        if kind is not None:
            action.complete = kind  # type: ignore[attr-defined]
    shtab.add_argument_to(parser, "--print-completion", help="print a shell completion script and exit")


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
        else:
            yield action
