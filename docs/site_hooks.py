"""Hooks of mkdocs: the page on the command line gets the help of each command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

MARKER = "<!-- the help of each command is inserted below when the site is built -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marker by the help of each command."""
    return markdown.replace(MARKER, all_help()) if MARKER in markdown else markdown


def all_help() -> str:
    """The help of each command as Markdown, 80 columns wide on any terminal."""
    from nas.commands.main import _parser

    os.environ["COLUMNS"] = "80"
    parts = [f"## {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```" for parser in _below(_parser())]
    return "\n\n".join(parts)


def _below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield inner
                yield from _below(inner)
