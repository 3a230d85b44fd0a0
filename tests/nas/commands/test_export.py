"""`nas export` on a file that was written as a run writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images
from compress.data.dataset import load_data
from compress.data.preprocessing import METADATA_KEY
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import write_onnx
from nas.commands.main import main
from search_spaces import preset


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """As a finished run on the digits leaves it, with random weights."""
    preprocessing = load_data("digits").preprocessing
    workload = preset("resnet8", input_shape=preprocessing.input_shape).workload()
    data = write_onnx(
        workload, quantization=fixed_quantization(workload), metadata={METADATA_KEY: preprocessing.to_json()}
    )
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.int8.onnx").write_bytes(data)
    (folder / "metrics.json").write_text(json.dumps({"deployed": "model.int8.onnx"}))
    return folder


def test_a_run_is_written_as_a_program_and_verified(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.commands.export._TEST_IMAGES", 20)
    out = tmp_path / "program"
    assert main(["export", str(run_folder), "--out", str(out), "--data", "digits", "--verify"]) == 0
    assert "**verified**" in capsys.readouterr().out
    assert (out / "model.c").is_file()
    assert main(["export", str(run_folder), "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["export", str(run_folder), "--out", str(out), "--force"]) == 0
    assert "not verified" in capsys.readouterr().out


def test_without_data_it_is_verified_on_random_inputs_and_says_so(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.c99.verification._RANDOM_INPUTS", (2, 2))
    assert main(["export", str(run_folder), "--out", str(tmp_path / "program"), "--verify"]) == 0
    told = capsys.readouterr().out
    assert "**verified**" in told
    assert "The images were random numbers" in told


def test_the_images_of_a_run_are_those_that_its_seed_left_for_testing(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "config.toml").write_text('data = "digits"\nseed = 5\ntrials = 1\n')
    out = tmp_path / "program"
    assert main(["export", str(run_folder), "--out", str(out), "--data", "digits"]) == 0
    text = (out / "test_vectors.h").read_text()
    numbers = re.search(r"test_inputs\[.*?\{\n\{\n(.*?)\n\}", text, re.DOTALL)
    assert numbers is not None
    network = read_network(run_folder / "model.int8.onnx")
    preprocessing = load_data("digits").preprocessing  # as the file has it
    for seed, alike in ((5, True), (0, False)):
        images = load_data("digits", seed=seed).test.images[:1]
        expected = quantize_images(network, preprocessing.tensor(images))
        assert ([int(n) for n in numbers[1].split(",")] == expected.reshape(-1).tolist()) is alike


def test_what_cannot_be_exported_is_told(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "program")
    floating = tmp_path / "float.onnx"
    floating.write_bytes(write_onnx(preset("resnet8").workload()))
    for source, options, said in (
        (tmp_path / "nowhere", [], "a finished run's folder"),
        (floating, [], "not quantized to 8-bit integers"),
    ):
        assert main(["export", str(source), "--out", out, *options]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.strip().splitlines()) == 1
    assert not Path(out).exists()
