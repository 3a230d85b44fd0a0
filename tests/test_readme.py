"""The README's Python examples run, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nas.cli import _parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_examples_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("command", re.findall(r"^nas (.+)$", README, re.MULTILINE))
def test_commands_are_understood(command: str) -> None:
    arguments = command.partition(" #")[0].split()
    assert _parser().parse_args(arguments).verb == arguments[0]


def test_make_knows_the_targets_that_are_named() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z]+)", README))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
