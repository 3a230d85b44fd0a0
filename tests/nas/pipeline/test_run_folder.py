"""What a run's folder is resumed with, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.config import Config
from nas.errors import InputError
from nas.pipeline.run_folder import check_config, open_folder


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
