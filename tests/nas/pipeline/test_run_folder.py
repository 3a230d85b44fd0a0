"""What a run's folder is resumed with, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from compress.data.dataset import Split, load_data
from nas.config import Config
from nas.errors import InputError, NothingFitsError
from nas.pipeline.run_folder import check_config, check_data, check_files, open_folder


@pytest.mark.parametrize("environment", [None, {"packages": {"fitnas": "0.0.9"}}, {"schema": 99, "packages": {}}])
def test_a_folder_of_another_version_is_refused_and_left_as_it_is(
    environment: dict[str, object] | None, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    config = Config(out=str(folder), trials=1)
    with open_folder(config):
        pass
    check_config(config)
    if environment is None:
        (folder / "env.json").unlink()
    else:
        (folder / "env.json").write_text(json.dumps(environment))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    schema = (environment or {}).get("schema", 1)
    version = "0.0.9" if environment and "0.0.9" in str(environment) else "unknown"
    with pytest.raises(
        InputError, match=rf"was created by fitnas {version} \(schema {schema}\).* choose another --out"
    ):
        check_config(config)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_images_that_changed_under_the_same_labels_are_refused(split: str, tmp_path: Path) -> None:
    data = load_data("digits", size=8)
    check_data(tmp_path, data)
    check_data(tmp_path, data)
    before: Split = getattr(data, split)
    pixels = before.images.copy()
    pixels[3] = pixels[3][::-1]
    with pytest.raises(InputError, match="contains a run with different images"):
        check_data(tmp_path, replace(data, **{split: Split(pixels, before.labels)}))
    kept = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps({"sha256": kept["sha256"]}))
    check_data(tmp_path, data)  # as runs wrote it before


@pytest.mark.parametrize("refusal", [InputError, NothingFitsError])
def test_a_folder_in_which_nothing_was_done_takes_other_settings(refusal: type[Exception], tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def refused(seed: int, written: str) -> None:
        with open_folder(Config(out=str(folder), trials=1, seed=seed)):
            (folder / written).touch()
            raise refusal("too little time, or nothing fits")

    for seed, written in ((0, "data.json"), (1, "data.json"), (5, "study.db")):
        with pytest.raises(refusal):
            refused(seed, written)
    with pytest.raises(InputError, match=r"different settings \(seed\)"):
        check_config(Config(out=str(folder), trials=1, seed=6))


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(InputError, match="it holds other files"), open_folder(Config(out=str(tmp_path), trials=1)):
        pass
    assert (tmp_path / "data.json").read_text() == "{}"


@pytest.mark.parametrize("setting", ["device", "teacher", "init"])
def test_a_file_that_changed_since_the_run_began_is_named(setting: str, tmp_path: Path) -> None:
    file = tmp_path / "given.file"
    file.write_text("first")
    config = Config(trials=1, **{setting: str(file)})
    for _ in range(2):
        check_files(tmp_path, config)
    file.write_text("second")
    with pytest.raises(InputError, match=rf"a run with a different {setting}, the file .*given.file has changed"):
        check_files(tmp_path, config)
    check_files(tmp_path, Config(trials=1))
