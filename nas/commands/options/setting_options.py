"""Options that are settings of a run: their names, types and help come from the Config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nas.config import default_text, settings, type_of

RUN_OPTIONS = {
    f"--{name.replace('_', '-')}": f"{setting.text} (default: {default_text(name)})"
    for name, setting in settings().items()
    if setting.option
}
"""The options of ``nas run``, with their help."""
JSON = "print JSON instead of text (default: off)"


def setting_name(option: str) -> str:
    """
    >>> setting_name("--max-accuracy-drop")
    'max_accuracy_drop'
    """
    return option[2:].replace("-", "_")


def add_option(parser: argparse._ActionsContainer, option: str, text: str | None = None) -> None:
    """Add the option of a setting, with a ``text`` of its own where the verb takes it otherwise."""
    name = setting_name(option)
    parser.add_argument(option, type=type_of(name), metavar=settings()[name].metavar, help=text or RUN_OPTIONS[option])


def add_settings(parser: argparse.ArgumentParser, options: Sequence[str]) -> None:
    """Add the options of settings, in groups, and ``--set`` for the others."""
    sections = {setting.section: parser.add_argument_group(setting.section) for setting in settings().values()}
    for option in options:
        add_option(sections[settings()[setting_name(option)].section], option)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override any other setting, e.g. train_epochs=50; can be repeated; `nas init` writes a file with all of "
        "them (default: none)",
    )
