"""`nas compare` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from compress.data.dataset import Dataset, load_data
from compress.data.preprocessing import METADATA_KEY
from compress.fnz import encode_onnx
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from nas.commands.main import main
from search_spaces import preset

ARCH = preset("resnet8", input_shape=(1, 32, 32))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    """A float file, the same with another last layer, and the same in int8."""
    workload = ARCH.workload()
    record = {METADATA_KEY: load_data("digits").preprocessing.to_json()}
    weights = random_weights(workload)
    changed = {**weights, "classifier.weight": -weights["classifier.weight"]}
    (tmp_path / "a.onnx").write_bytes(write_onnx(workload, weights, metadata=record))
    (tmp_path / "b.onnx").write_bytes(write_onnx(workload, changed, metadata=record))
    scales = fixed_quantization(workload)
    (tmp_path / "c.onnx").write_bytes(write_onnx(workload, weights, quantization=scales, metadata=record))
    return str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), str(tmp_path / "c.onnx")


def test_a_table_says_where_two_files_part(files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", files[0], files[1], "--data", "digits"]) == 0
    told = capsys.readouterr()
    assert "layers: classifier (Gemm) is the first whose relative error exceeds 0.1" in told.out
    assert f"{Path(files[0]).stat().st_size:,}" in told.out
    assert main(["compare", files[0], files[0], "--data", "digits"]) == 0
    told = capsys.readouterr()
    assert f"same prediction for 100.00% of {len(load_data('digits').test)} test images" in told.out
    assert "layers: no relative error above 0.1 in 22 layers" in told.out


def test_json_holds_every_layer_and_what_was_measured(
    files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", "digits", "--json", "--measure", "--threshold", "0.5"]
    assert main(["compare", files[0], files[2], *options]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in facts["layers"]] == [op.name for op in ARCH.workload().ops]
    assert facts["file_bytes"] == [Path(files[0]).stat().st_size, Path(files[2]).stat().st_size]
    low, high = facts["latency"]["ratio"][1:]
    assert 0 < low <= facts["latency"]["ratio"][0] <= high
    assert facts["threshold"] == 0.5


def test_a_coded_file_has_the_bytes_that_it_takes_and_json_has_no_nan(
    files: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = ARCH.workload()
    weights = random_weights(workload)
    weights["classifier.bias"] = weights["classifier.bias"] * np.float32("nan")
    (tmp_path / "nan.onnx").write_bytes(write_onnx(workload, weights))
    (tmp_path / "a.fnz").write_bytes(encode_onnx(Path(files[0]).read_bytes()))
    both = [str(tmp_path / name) for name in ("a.fnz", "nan.onnx")]
    assert main(["compare", *both, "--data", "digits", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert facts["file_bytes"] == [Path(path).stat().st_size for path in both]
    assert facts["largest_difference"] is None


def test_a_run_is_compared_by_its_folder_on_its_own_test_images(
    files: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.int8.onnx").write_bytes(Path(files[2]).read_bytes())
    (run / "metrics.json").write_text(json.dumps({"deployed": "model.int8.onnx"}))
    (run / "config.toml").write_text('data = "digits"\nseed = 5\ntrials = 1\n')
    assert main(["compare", files[0], str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["data"], facts["seed"]) == ("digits", 5)
    test = load_data("digits", seed=5).test
    x = load_data("digits", seed=0).preprocessing.tensor(test.images)
    logits = onnxruntime.InferenceSession(files[0]).run(None, {"input": x})[0]
    assert facts["accuracies"][0] == np.mean(logits.argmax(1) == test.labels)


def test_bad_input_is_told_in_one_line(
    files: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    (tmp_path / "cut.fnz").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    (tmp_path / "escaping").mkdir()
    (tmp_path / "escaping" / "metrics.json").write_text(json.dumps({"deployed": "../a.onnx"}))
    for arguments, said in (
        ([files[0], files[1]], "--data is required: the dataset that the models were trained on"),
        ([files[0], str(tmp_path / "no.onnx"), "--data", "digits"], "which is missing"),
        ([files[0], str(tmp_path / "empty"), "--data", "digits"], "which has no metrics.json"),
        ([files[0], str(tmp_path / "escaping"), "--data", "digits"], "deployed file '../a.onnx' is missing"),
        ([files[0], str(tmp_path / "broken.onnx"), "--data", "digits"], "not an ONNX file"),
        ([files[0], str(tmp_path / "cut.fnz"), "--data", "digits"], "fnz"),
        ([files[0], files[1], "--data", "nowhere"], "--data: 'nowhere' does not exist"),
        ([files[0], files[1], "--data", "digits", "--seed", "-1"], "error: --seed must be at least 0, got -1"),
        ([files[0], files[1], "--data", "digits", "--threshold", "0"], "threshold must be above 0"),
        ([files[0], files[1], "--data", "digits", "--measure", "--device", "nothing"], "nothing"),
    ):
        assert main(["compare", *arguments]) == 2, arguments
        error = capsys.readouterr().err.strip()
        assert said in error
        assert len(error.splitlines()) == 1


def run_folder(tmp_path: Path, file: str, **config: object) -> str:
    folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(Path(file).read_bytes())
    (folder / "metrics.json").write_text(json.dumps({"deployed": "model.onnx"}))
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in {"trials": 1, **config}.items()]
    (folder / "config.toml").write_text("".join(lines))
    return str(folder)


def test_images_are_read_as_the_run_read_them(
    files: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {}

    def load(source: str, **how: object) -> Dataset:
        asked.update(how)
        return load_data(source, **how)

    monkeypatch.setattr("compress.data.dataset.load_data", load)
    run = run_folder(tmp_path, files[0], data="digits", seed=3, size=24, unreadable="skip")
    assert main(["compare", run, files[0]]) == 0
    assert asked == {"seed": 3, "size": 24, "unreadable": "skip"}


@pytest.mark.slow
def test_two_runs_are_not_judged_on_images_that_one_was_trained_on(
    files: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_npz(tmp_path / "own_split.npz")
    zero, one = (run_folder(tmp_path, files[0], data="digits", seed=seed) for seed in (0, 1))
    other = run_folder(tmp_path, files[0], data=str(tmp_path / "own_split.npz"))
    write_photos(tmp_path / "photos")
    folders = [run_folder(tmp_path, files[0], data=str(tmp_path / "photos"), seed=seed) for seed in (0, 1)]
    for arguments, said in (
        ([zero, one], "the seeds 0 and 1 choose different test images of digits"),
        ([zero, one, "--data", "digits"], "the seeds 0 and 1 choose different test images"),
        ([zero, files[0], "--seed", "4"], "the seeds 4 and 0 choose different test images"),
        ([zero, other], "the runs were trained on different data, digits and"),
        ([*folders, "--data", f"{tmp_path}/./photos/"], "the seeds 0 and 1 choose different test images"),
    ):
        assert main(["compare", *arguments]) == 2, arguments
        assert said in capsys.readouterr().err
    # What has test images of its own is split alike by every seed.
    alike = [run_folder(tmp_path, files[0], data=str(tmp_path / "own_split.npz"), seed=seed) for seed in (0, 1)]
    assert main(["compare", *alike]) == 0
    assert main(["compare", zero, one, "--data", str(tmp_path / "own_split.npz")]) == 0


def write_photos(folder: Path) -> None:
    """Ten folders of twelve images of one color each."""
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (16, 16), 20 * label + i).save(folder / str(label) / f"{i}.png")


def write_npz(path: Path) -> None:
    """The digits with test images of their own."""
    train, test = (digits := load_data("digits", seed=9)).train, digits.test
    np.savez(path, x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels)


def test_pictures_without_labels_compare_two_files(
    files: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    assert main(["compare", files[0], files[1], "--data", str(tmp_path / "pictures")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "no labels" in told
    assert "of 6 test images" in told
    assert "signal-to-noise ratio" in told
    assert main(["compare", files[0], files[0], "--data", str(tmp_path / "pictures"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["accuracies"] is None
    assert facts["agreement"] == 1.0
