"""What a user may ask for, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.atomic_files import write_text
from nas.config import Config, load_config, parse_assignment, quantity


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("latency", "5ms", 5.0),
        ("latency", "0.5 ms", 0.5),
        ("latency", "250us", 0.25),
        ("latency", ".5ms", 0.5),
        ("latency", "1e-3s", 1.0),
        ("latency", "2.5e+2us", 0.25),
        ("ram", "256kB", 256_000),
        ("ram", "1KiB", 1024),
        ("flash", "1MB", 1_000_000),
        ("energy", "2mJ", 2.0),
        ("time", "40min", 2400.0),
    ],
)
def test_quantities_have_units(name: str, text: str, value: float) -> None:
    assert quantity(name, text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"latency": "fast"}, "latency must be a number with a unit \\(us, ms, s\\), got 'fast'"),
        ({"latency": "5"}, "latency must be a number with a unit"),
        ({"latency": "5kB"}, "latency must be a number with a unit"),
        ({"latency": "0ms"}, "latency must be above 0, got '0ms'"),
        ({"time": "-3min"}, "time must be above 0"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"trials": "many"}, "trials must be of type int, got 'many'"),
        ({"max_accuracy_drop": 101}, "max_accuracy_drop must be between 0 and 100 \\(percentage points\\)"),
        ({"latncy": "5ms"}, "unknown setting 'latncy'; did you mean 'latency'"),
        ({"prune_amount": 1.0}, "prune_amount must be between 0 and 1"),
        ({"prune_steps": 0}, "prune_steps must be at least 1"),
        ({"unreadable": "delete"}, "unreadable must be one of refuse, skip"),
        ({"latency_from": "guessed"}, "latency_from must be one of auto, measured, estimated"),
        ({"train_epochs": 0}, "train_epochs must be above 0"),
        ({"seed": True}, "seed must be of type int"),
        ({"train_epochs": 10**400}, "train_epochs must be above 0, got inf"),
        ({"device": 5}, "device must be of type str, got 5"),
        ({"data": "caf\udce9"}, r"data must be text that UTF-8 can hold, got 'caf\\udce9'"),
    ],
)
def test_mistakes_are_named(entries: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_config(None, entries)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"trials": True}, "trials must be of type int, got True"),
        ({"learning_rate": True}, "learning_rate must be of type float, got True"),
        ({"prune_steps": 1.5}, "prune_steps must be of type int, got 1.5"),
        ({"seed": None}, "seed must be of type int, got None"),
        ({"data": 5}, "data must be of type str, got 5"),
    ],
)
def test_keyword_arguments_are_checked_as_a_file_is(entries: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(**entries)
    assert Config(learning_rate=1, out=Path("x")) == Config(learning_rate=1.0, out="x")


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('latency = "5ms"\ntrials = 7\nlearning_rate = 1\n')
    config = load_config(path, {"latency": "2ms", "trials": None})
    assert (config.budget.latency_ms, config.trials, config.learning_rate) == (2.0, 7, 1.0)
    assert config.seconds is None
    assert load_config().seconds == 1800


@pytest.mark.parametrize(
    "data",
    ['a "b" \\ c', "'" * 3, '"' * 3, "".join(map(chr, range(32))) + "\x7f\x85", "ß 猫 \u2028 \U0001f408", "a\r\nb\r"],
)
def test_a_config_is_what_it_wrote(data: str, tmp_path: Path) -> None:
    config = load_config(None, {"data": data, "ram": "3kB", "trials": 2, "out": "x", "prune_amount": 1e-7})
    write_text(tmp_path / "c.toml", config.to_toml())
    assert load_config(tmp_path / "c.toml") == config


def test_configs_differ_by_name_but_not_by_folder() -> None:
    one, other = Config(trials=3, out="a"), Config(trials=4, out="b", latency="1ms")
    assert one.differing(other) == ["latency", "trials"]
    assert not Config(data="photos/").differing(Config(data="photos"))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('latency = "5ms"\n', encoding="utf-8-sig")
    assert load_config(tmp_path / "c.toml").latency == "5ms"


def test_a_folder_of_images_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a TOML file, but it is a folder; images are given by --data"):
        load_config(tmp_path)


@pytest.mark.parametrize(("text", "said"), [("x = = 1", "config"), (None, "config file not found")])
def test_files_that_are_no_config(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_config(tmp_path / "c.toml")


def test_assignments() -> None:
    assert parse_assignment("space=my:space") == ("space", "my:space")
    assert parse_assignment("prune_amount=0.5") == ("prune_amount", 0.5)
    assert parse_assignment(f"seed={'1' * 5000}") == ("seed", "1" * 5000)
    with pytest.raises(ValueError, match="--set must be key=value"):
        parse_assignment("trials")
