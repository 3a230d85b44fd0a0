"""The command line as a whole: closed pipes, bugs, modules of the user's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import InputError
from nas.commands import main as command_line
from nas.commands.main import main

ROOT = Path(__file__).parents[3]


def nas(*arguments: str, cwd: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """The command as the installed script runs it: the current folder is not on the path."""
    code = "import sys; from nas.commands.main import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, text=True, check=False, **{"stderr": subprocess.PIPE} | how
    )


@pytest.mark.parametrize("arguments", [("devices", "show", "host", "--json"), ("list",)])
def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(arguments: tuple[str, ...], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = nas(*arguments, cwd=tmp_path, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_in_the_current_folder_never_takes_the_place_of_ours(tmp_path: Path) -> None:
    for name in ("compress", "json", "my_space"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} of the user was imported')")
    own = nas(
        "run", "--data", "digits", "--space", "my_space:make", "--trials", "1", cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert own.returncode == 2
    assert "my_space of the user was imported" in own.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--latency", "5"], "--latency must be a number with a unit (us, ms, s), got '5'"),
        (
            ["run", "--max-accuracy-drop=-1"],
            "--max-accuracy-drop must be between 0 and 100 (percentage points), got -1.0",
        ),
        (["run", "--set", "train_epochs=0"], "train_epochs must be above 0, got 0.0"),
    ],
)
def test_an_error_names_the_option_as_it_is_typed(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"nas: error: {said}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run --latancy=5ms", "--latancy=5ms; did you mean '--latency'? See `nas run --help`"),
        ("run --train-epochs=5", "--train-epochs=5; use --set train_epochs=VALUE; see `nas run --help`"),
        (
            "devices measure --thread-count 2",
            "--thread-count 2; did you mean '--threads'? See `nas devices measure --help`",
        ),
        ("profile resnet8 resnet9", "resnet9; see `nas profile --help`"),
    ],
)
def test_an_option_that_is_unknown_is_answered_with_one_that_exists(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"nas: error: unrecognized arguments: {said}\n"


@pytest.mark.parametrize(("arguments", "meant"), [("rnu", "run"), ("devices mesure", "measure"), ("nonsense", None)])
def test_a_command_that_is_unknown_is_answered_with_the_nearest(
    arguments: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert (f"; did you mean '{meant}'? See `nas" in capsys.readouterr().err) is (meant is not None)


@pytest.mark.parametrize(
    ("raised", "expected"), [(InputError("wrong"), 2), (ValueError("a bug"), ValueError), (KeyError("a bug"), KeyError)]
)
def test_only_wrong_input_is_exit_code_2(
    raised: Exception, expected: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(parsed: Any) -> None:
        raise raised

    commands: dict[str, Callable[[Any], Any]] = {"list": fails}
    monkeypatch.setattr(command_line, "_COMMANDS", commands)
    if expected == 2:
        assert main(["list"]) == 2
        assert capsys.readouterr().err == "nas: error: wrong\n"
    else:
        with pytest.raises(expected, match="a bug"):
            main(["list"])


def test_json_has_no_numbers_that_json_does_not_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"latency_ms": float("nan"), "layers": [{"share": float("inf")}], "macs": 3}
    monkeypatch.setattr("nas.commands.profile.profile_facts", lambda *model, **how: facts)
    assert main(["profile", "resnet8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "latency_ms": None, "layers": [{"share": None}], "macs": 3,
    }  # fmt: skip
