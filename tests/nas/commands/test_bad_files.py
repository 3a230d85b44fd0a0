"""Broken files and impossible places end in one line and exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compress import Artifact, load_data
from hw_profiles.errors import InputError
from nas.commands.main import main
from search_spaces import build_model, preset

DEEP = "[" * 100_000


def assert_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2, arguments
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("nas: error: ")
    assert said in lines[-1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    arch = preset("resnet8", input_shape=(1, 16, 16))
    bare = Artifact(source=arch, weights={}, preprocessing=load_data("digits", size=16).preprocessing)
    bare.with_model(build_model(arch)).save(folder)
    return folder


def changed(**entries: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        record = json.loads((folder / "artifact.json").read_text())
        (folder / "artifact.json").write_text(json.dumps({**record, **entries}))

    return change


@pytest.mark.parametrize(
    "spoil",
    [
        changed(quantization=5),
        changed(quantization={"activations": {"x": ["a", 0]}, "signed": False, "in_float": []}),
        changed(weight_formats={"w": {"unheard": 1}}),
        changed(history=5),
        changed(preprocessing="{}"),
        lambda folder: (folder / "artifact.json").write_text('{"schema": 3}'),
        lambda folder: (folder / "artifact.json").write_bytes(b"\xff"),
        lambda folder: (folder / "weights.safetensors").write_bytes(b"no tensors"),
        lambda folder: (folder / "weights.safetensors").unlink(),
        lambda folder: (folder / "arch.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "arch.json").unlink(),
    ],
)
def test_a_broken_artifact_is_named(spoil: Callable[[Path], object], saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    Artifact.load(folder)
    spoil(folder)
    with pytest.raises(InputError, match="broken"):
        Artifact.load(folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    run = ["run", "--data", "digits", "--trials", "1", "--out", str(tmp_path / "file" / "run")]
    assert_refused(run, "file", capsys)
    assert_refused(["devices", "measure", "--time", "1s", "--out", str(tmp_path / "file" / "my.toml")], "file", capsys)


def test_text_that_is_nested_too_deeply_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep.toml").write_text(f"seed = {DEEP}")
    (tmp_path / "deep.json").write_text(DEEP)
    assert_refused(["run", str(tmp_path / "deep.toml")], "deep.toml", capsys)
    assert_refused(["run", "--trials", "1", f"--set=seed={DEEP}"], "seed must be", capsys)
    assert_refused(["profile", str(tmp_path / "deep.json")], "not JSON", capsys)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"num_classes": float("inf")}, "num_classes must be integers between 1 and 65536"),
        ({"num_classes": "abc"}, "num_classes must be integers between 1 and 65536"),
        ({"input_shape": [1, 10**30, 8]}, "input_shape must be integers between 1 and 65536"),
        ({"stem": {"kind": ["zz"]}}, "kind"),
    ],
)
def test_an_architecture_of_impossible_sizes_is_refused(
    entries: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = preset("resnet8").to_dict()
    data |= {name: {**data[name], **value} if isinstance(value, dict) else value for name, value in entries.items()}
    (tmp_path / "arch.json").write_text(json.dumps(data))
    assert_refused(["profile", str(tmp_path / "arch.json")], said, capsys)


def test_seeds_and_threads_have_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(["run", "--trials", "1", "--seed", str(2**32)], "seed must be", capsys)
    assert_refused(
        ["devices", "measure", "--threads", "99999999999", "--out", str(tmp_path / "my.toml")], "--threads", capsys
    )


@pytest.mark.parametrize(("source", "how"), [(5, {}), (None, {}), ("digits", {"seed": -1}), ("digits", {"seed": "a"})])
def test_data_and_seeds_of_other_kinds_are_refused(source: object, how: dict[str, object]) -> None:
    with pytest.raises(InputError, match="must be"):
        load_data(source, **how)  # type: ignore[arg-type]
    assert np.array_equal(load_data("digits", seed=3).test.labels, load_data("digits", seed=np.int64(3)).test.labels)


def test_a_space_that_builds_nonsense_or_leaves_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd_spaces.py").write_text(
        "import sys\n"
        "from blocks import BlockSpec\n"
        "from search_spaces import Space\n"
        "def wide(shape, classes):\n"
        "    build = lambda width: BlockSpec(kind='conv', in_channels=1, out_channels=width)\n"
        "    return Space(name='wide', choices={'width': (0,)}, build=lambda params: build(params['width']))\n"
        "def leaves(shape, classes):\n"
        "    sys.exit(0)\n"
    )
    monkeypatch.chdir(tmp_path)
    for name, said in (("wide", "out_channels"), ("leaves", "SystemExit")):
        assert_refused(["run", "--data", "digits", "--trials", "1", "--space", f"odd_spaces:{name}"], said, capsys)
