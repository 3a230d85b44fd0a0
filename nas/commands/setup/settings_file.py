"""``nas init``: a TOML file with every setting of a run, a description and its default."""

from __future__ import annotations

import shlex
import textwrap
from argparse import Namespace
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import tomli_w

from compress.atomic_files import write_text
from nas.commands.output.text_table import printable
from nas.config import Config, default_text, load_config, settings
from nas.errors import InputError, user_input

_WIDTH = 110
_HEAD = "Settings of `nas run`. Uncomment a line to change a setting; otherwise the default given above it applies."


def run_init(parsed: Namespace, given: Mapping[str, Any]) -> None:
    """Write the file, with the settings that are given as lines in force.

    Raises:
        InputError: the file exists and ``--force`` is off, or a setting is wrong.
    """
    path, set_here = Path(parsed.file), {name: value for name, value in given.items() if value is not None}
    with user_input():
        load_config(None, set_here)
        if path.exists() and not parsed.force:
            raise InputError(f"{path} already exists; choose another name or use --force to overwrite it")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {str(path.parent)!r}")
        write_text(path, settings_text(set_here))
    print(f"wrote {printable(path)}; to use it: nas run {shlex.quote(printable(path))}")


def settings_text(given: Mapping[str, Any]) -> str:
    """All settings as TOML: those that are given, and the others behind a ``#`` with their default or an example.

    >>> settings_text({}).splitlines()[-2:]
    ['# fine-tuning epochs of every other compression step that involves training (default: 5)', '#stage_epochs = 5.0']
    """
    parts = [_comment(_HEAD)]
    for section, group in groupby(settings().items(), key=lambda item: item[1].section):
        parts.append(f"# ---- {section} ----\n")
        parts += [_entry(name, given) for name, _ in group]
    return "\n".join(parts)


def _entry(name: str, given: Mapping[str, Any]) -> str:
    setting, default = settings()[name], getattr(Config(), name)
    value = given.get(name, setting.example if default is None else default)
    line = tomli_w.dumps({name: value})
    return _comment(f"{setting.text} (default: {default_text(name)})") + ("" if name in given else "#") + line


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False))
