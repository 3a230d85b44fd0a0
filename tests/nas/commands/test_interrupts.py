"""Ctrl-C at any moment ends a command."""

from __future__ import annotations

import sys
import time

import pytest

from nas.commands import main as command
from nas.commands.interrupts import no_interrupt_lost


class InterruptedFinalizer:
    def __del__(self) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_inside_a_finalizer_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(parsed: object) -> None:
        InterruptedFinalizer()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            time.sleep(0.01)

    monkeypatch.setitem(command._COMMANDS, "list", interrupted)
    assert command.main(["list"]) == 130
    assert capsys.readouterr().err.strip() == "nas: interrupted. To resume, run: nas list"


def test_other_errors_of_finalizers_are_shown_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise RuntimeError("broken")

    seen: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(str(unraisable.exc_value)))
    before = sys.unraisablehook
    with no_interrupt_lost():
        Broken()
    assert seen == ["broken"]
    assert sys.unraisablehook is before
