"""The README's Python examples run, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from compress.data.dataset import load_data
from compress.data.preprocessing import METADATA_KEY
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from nas.commands.main import _parser, main
from search_spaces import preset

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_examples_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workload = preset("resnet8", input_shape=(1, 16, 16)).workload()
    (tmp_path / "model.onnx").write_bytes(write_onnx(workload, random_weights(workload)))
    exec(compile(code, "README.md", "exec"), {})


# What takes an hour in the README takes seconds here.
SHORT = ["--trials", "1", "--teacher", "none", "--baseline", "none", "--max-accuracy-drop", "100", *(
    f"--set={name}" for name in ("size=16", "latency_from=estimated", "search_epochs=0.1", "train_epochs=0.5", "prune_epochs=0.5", "prune_steps=1", "stages=prune")
)]  # fmt: skip

SHORT_SEARCH = ["--trials", "1", "--set=size=16", "--set=latency_from=estimated", "--set=search_epochs=0.1"]

SHORT_COMPRESSION = ["--latency-from", "estimated", "--max-accuracy-drop", "100"]


def write_photos(folder: Path) -> None:
    digits = load_digits()
    for label in range(3):
        (folder / str(label)).mkdir(parents=True)
        for i in np.flatnonzero(digits.target == label)[:30]:
            picture = Image.fromarray((digits.images[i] * 15).astype(np.uint8)).resize((32, 32))
            picture.save(folder / str(label) / f"{i}.png")


COMMANDS = [shlex.split(command) for command in re.findall(r"^nas (.+)$", README, re.MULTILINE)]


def test_commands_exist() -> None:
    assert [_parser().parse_args(command).verb for command in COMMANDS] == [
        "run", "search", "worker", "compress", "select", "profile", "profile", "compare", "report",
    ]  # fmt: skip


@pytest.mark.slow
def test_commands_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    preprocessing = load_data(tmp_path / "photos", size=16).preprocessing
    workload = preset("resnet8", input_shape=preprocessing.input_shape, num_classes=3).workload()
    record, scales = {METADATA_KEY: preprocessing.to_json()}, fixed_quantization(workload)
    weights = random_weights(workload)
    (tmp_path / "model.onnx").write_bytes(write_onnx(workload, weights, metadata=record))
    (tmp_path / "model.int8.onnx").write_bytes(write_onnx(workload, weights, quantization=scales, metadata=record))
    for command in map(list, COMMANDS):
        if command[0] == "run":
            at = command.index("--time")
            command[at:] = [*command[at + 2 :], *SHORT]
        if command[0] == "search":
            command.extend(SHORT_SEARCH)
        if command[0] == "compress":
            command.extend(SHORT_COMPRESSION)
        assert main(command) == 0, command
        assert capsys.readouterr().out
    assert (tmp_path / "runs" / "photos" / "report.html").is_file()


def test_the_figures_of_the_first_screen_are_those_of_the_benchmarks() -> None:
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text()
    known = set(re.findall(r"\d[\d.,]*\d|\d", benchmarks))
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \| `(\w+\.py)` \|$", README, re.MULTILINE)
    assert len(rows) >= 5
    for what, ours, others, script in rows:
        assert f"tests/benchmarks/{script}" in benchmarks
        assert (ROOT / "tests" / "benchmarks" / script).is_file()
        for figure in re.findall(r"\d[\d.,]*\d", f"{ours} {others}"):
            assert figure in known, (what, figure)


def test_make_knows_the_targets_that_are_named() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z]+)", README))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
