"""The help of every verb: defaults, examples that parse and run, and the options that every command has."""

from __future__ import annotations

import argparse
import logging
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from compress.data.dataset import load_data
from compress.data.preprocessing import METADATA_KEY
from compress.progress import progress
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from nas.commands.main import _COMMANDS, _parser, main
from nas.commands.options.help_texts import EXAMPLES
from nas.commands.output.log_output import log_on_stderr
from search_spaces import preset

ROOT = Path(__file__).parents[3]


def parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser of each verb, and of what stands below a verb."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, inner in action.choices.items():
                yield f"{name} {verb}".strip(), inner
                yield from parsers(inner, f"{name} {verb}".strip())


VERBS = dict(parsers(_parser()))


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_states_its_default_or_that_it_is_required(verb: str) -> None:
    named = [a for a in VERBS[verb]._actions if not isinstance(a, argparse._SubParsersAction | argparse._HelpAction)]
    required = {a.dest for a in named if not a.option_strings and a.nargs in (None, "+")}  # as their place says
    unclear = [a.dest for a in named if "(default: " not in (a.help or "") and "(required)" not in (a.help or "")]
    assert set(unclear) <= required


@pytest.mark.parametrize("verb", VERBS)
def test_a_default_that_the_parser_knows_is_the_one_that_is_stated(verb: str) -> None:
    for action in VERBS[verb]._actions:
        if action.default not in (None, False, argparse.SUPPRESS, []):
            assert f"(default: {action.default})" in (action.help or ""), action.dest


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_ends_its_help_with_two_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLES[verb]) == 2
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.endswith("examples:\n  " + "\n  ".join(EXAMPLES[verb]) + "\n")
    for example in EXAMPLES[verb]:
        program, *arguments = shlex.split(example)
        assert program == "nas"
        assert example.startswith(f"nas {verb}")
        assert _parser().parse_args(arguments).verb == verb.split(maxsplit=1)[0]


def test_there_is_no_example_of_a_verb_that_does_not_exist() -> None:
    assert EXAMPLES.keys() == VERBS.keys()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the files that the examples name."""
    workload = preset("resnet8", input_shape=(1, 32, 32)).workload()
    record = {METADATA_KEY: load_data("digits").preprocessing.to_json()}
    weights = random_weights(workload)
    scales = fixed_quantization(workload)
    (tmp_path / "model.onnx").write_bytes(write_onnx(workload, weights, metadata=record))
    (tmp_path / "model.int8.onnx").write_bytes(write_onnx(workload, weights, quantization=scales, metadata=record))
    shutil.copy(ROOT / "hw_profiles" / "devices" / "host.toml", tmp_path / "my.toml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The others train or measure for minutes, or need the folder of a run or a database.
QUICK = [
    *EXAMPLES["list"],
    *EXAMPLES["devices"],
    *EXAMPLES["devices show"],
    *EXAMPLES["profile"],
    EXAMPLES["export"][0],
    EXAMPLES["compare"][0],
]


@pytest.mark.parametrize("example", QUICK)
def test_the_quick_examples_run(example: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(example)[1:]) == 0
    assert capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"fitnas {version('fitnas')}\n"


@pytest.mark.parametrize(("quiet", "shown"), [(False, True), (True, False)])
def test_quiet_hides_progress_and_log_but_no_warning(
    quiet: bool, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("fitnas")
    level = log.level
    log.setLevel(logging.INFO)
    with log_on_stderr(quiet=quiet), progress("a part") as report:
        report(0.5)
        log.info("a message")
        log.warning("a warning")
    log.setLevel(level)
    error = capsys.readouterr().err
    assert "nas: a warning\n" in error
    assert ("nas: a message\n" in error) is shown
    assert ("a part" in error) is shown


def test_the_reason_that_a_command_fails_with_is_not_logged_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    with log_on_stderr():
        logging.getLogger("fitnas").warning("the search ended: %s", "nothing fits: none of 500 candidates")
        logging.getLogger("fitnas").warning("the search ended: %s", "all 3 evaluations failed")
    assert capsys.readouterr().err == "nas: the search ended: all 3 evaluations failed\n"


def test_verbose_shows_what_libraries_log(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        with log_on_stderr(verbose=verbose):
            logging.getLogger("a.library").info("from a library")
        assert ("nas: from a library\n" in capsys.readouterr().err) is verbose


def test_verbose_and_quiet_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "-v", "-q"])
    assert ended.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_verbose_and_quiet(verb: str) -> None:
    shared = {option for action in VERBS[verb]._actions for option in action.option_strings}
    assert {"-v", "--verbose", "-q", "--quiet"} <= shared


@pytest.mark.parametrize("arguments", [["-q"], ["show", "host", "-q"], ["-q", "show", "host"]])
def test_quiet_stands_before_or_after_what_stands_below_a_verb(arguments: list[str]) -> None:
    parsed = _parser().parse_args(["devices", *arguments])
    assert parsed.quiet
    assert not parsed.verbose


@pytest.mark.parametrize(
    ("option", "fitnas", "library"), [([], True, False), (["-q"], False, False), (["-v"], True, True)]
)
def test_a_verb_that_does_not_train_obeys_verbose_and_quiet(
    option: list[str],
    fitnas: bool,
    library: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def profiled(parsed: argparse.Namespace) -> None:
        with progress("a part") as report:
            report(0.5)
        logging.getLogger("fitnas").info("from fitnas")
        logging.getLogger("fitnas").warning("a warning")
        logging.getLogger("a.library").info("from a library")

    monkeypatch.setitem(_COMMANDS, "profile", profiled)
    assert main(["profile", "resnet8", *option]) == 0
    error = capsys.readouterr().err
    assert error.count("nas: a warning\n") == 1
    assert error.count("nas: from fitnas\n") == fitnas
    assert error.count("nas: from a library\n") == library
    assert ("a part" in error) is fitnas


@pytest.mark.parametrize("columns", [80, 110])
@pytest.mark.parametrize(
    ("example", "hidden"),
    [
        ("nas devices", "core"),
        ("nas devices show host", "points"),
        ("nas select --device raspberry-pi-4 --latency 30ms --precision int8", "90% interval"),
    ],
)
def test_tables_fit_the_terminal(
    example: str, hidden: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(shlex.split(example)[1:]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert (f"not shown in 80 columns: {hidden} (use a wider terminal or --json)" in lines) is (columns == 80)
