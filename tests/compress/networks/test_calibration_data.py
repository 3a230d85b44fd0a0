"""Calibration needs pictures, not classes: whatever people have calibrates, is never rounded, and no label is invented."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor, nn

import compress
from compress import Cluster, Prune, Quantize, Sparsify
from compress.data.given_batches import MOST_READ
from compress.file_comparison import compare_files
from compress.networks.calibration_data import calibration_dataset
from compress.networks.onnx_export import onnx_bytes
from compress.networks.torch_export import export_module
from compress.training.evaluation import signal_to_noise_db
from hw_profiles.onnx_io.session import open_session
from search_spaces import preset
from tests.benchmarks.runtime_quantizer import quantized_by_runtime

MINMAX = Quantize(calibration="minmax")
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
FLOATS = RANDOM.standard_normal((40, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Small, and of 1,000 classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 1000),
    ).eval()  # fmt: skip


@pytest.mark.slow
def test_a_network_of_timm_is_calibrated_without_labels() -> None:
    """As well as ONNX Runtime's own quantizer does it. Of random weights the two largest of 1,000 logits are often a
    tenth of a deviation apart, so that the class is decided by chance: the seed is fixed."""
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050").eval()
    after = compress.quantize(network, PIXELS)
    x = after.preprocessing.tensor(PIXELS)
    before = export_module(network, (3, 32, 32))
    calls = [{"input": x[i : i + 1]} for i in range(len(x))]
    sessions = [open_session(file) for file in (before, quantized_by_runtime(before, calls))]
    exact, theirs = (np.concatenate([session.run(None, call)[0] for call in calls]) for session in sessions)
    assert after.metrics["val_snr_db"] >= signal_to_noise_db(exact, theirs) - 1
    assert after.metrics["val_same_class"] > 0.8


def loader(*tensors: Tensor) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), batch_size=16)


FORMS: dict[str, tuple[Callable[[], Any], int]] = {
    "bytes": (lambda: PIXELS, 40),
    "floats": (lambda: FLOATS, 40),
    "tensor": (lambda: torch.from_numpy(FLOATS), 40),
    "half floats": (lambda: FLOATS.astype(np.float16), 40),
    "loader without labels": (lambda: loader(torch.from_numpy(FLOATS)), 40),
    "generator": (lambda: (FLOATS[i : i + 7] for i in range(0, 40, 7)), 40),
    "batches of bytes": (lambda: [PIXELS[:30], PIXELS[30:]], 40),
    "batches by name": (lambda: [{"pixel_values": torch.from_numpy(FLOATS[:20])}], 20),
    "one input by name": (lambda: {"x": FLOATS}, 40),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_thousand_classes_are_calibrated_without_labels(form: str, network: nn.Module) -> None:
    make, count = FORMS[form]
    after = compress.quantize(network, make(), MINMAX)
    assert after.precision == "int8"
    assert after.metrics["images_given"] == after.metrics["calibration_images"] == count
    assert "val_accuracy" not in after.metrics
    assert 0 <= after.metrics["val_same_class"] <= 1
    assert after.metrics["val_snr_db"] > 3


def test_a_folder_without_classes_is_read_at_the_size_of_the_network(tmp_path: Path, network: nn.Module) -> None:
    for i in range(9):
        Image.fromarray(PIXELS[i]).resize((320, 240)).save(tmp_path / f"{i}.jpg")
    data = calibration_dataset(str(tmp_path), input_shape=(3, 224, 224))
    assert data.train.images.shape == (9, 224, 224, 3)
    assert not data.train.is_labeled
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images found"):
        calibration_dataset(str(tmp_path / "empty"))


def test_a_folder_whose_classes_are_too_small_gives_all_its_images(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"class {i}").mkdir()
        Image.fromarray(PIXELS[i]).save(tmp_path / f"class {i}" / "0.png")
    data = calibration_dataset(str(tmp_path))
    assert data.train.labels.tolist() == list(range(6))
    assert data.preprocessing.class_names == tuple(f"class {i}" for i in range(6))


def test_a_table_of_labels_tells_the_numbers_of_the_networks_classes(tmp_path: Path, network: nn.Module) -> None:
    with torch.inference_mode():
        record = calibration_dataset(PIXELS).preprocessing
        said = network(torch.from_numpy(record.tensor(PIXELS))).argmax(1).numpy()
    rows = ["file,label"]
    for i, label in enumerate(said):
        Image.fromarray(PIXELS[i]).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{label}")
    rows.append("")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    after = compress.quantize(network, str(tmp_path), MINMAX)
    assert after.metrics["val_accuracy_before"] == 1.0
    assert after.metrics["images_given"] == 40


def test_a_folder_with_other_classes_than_the_networks_is_judged_without_labels(
    tmp_path: Path, network: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(12):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(PIXELS[i]).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    with caplog.at_level(logging.WARNING, "fitnas"):
        after = compress.quantize(network, str(tmp_path), MINMAX)
    assert "val_accuracy" not in after.metrics
    assert any("evaluating without labels" in message for message in caplog.messages)


@pytest.mark.parametrize("batches", [False, True])
def test_labels_are_numbers_of_the_networks_classes(network: nn.Module, batches: bool) -> None:
    with torch.inference_mode():
        said = network(torch.from_numpy(FLOATS)).argmax(1)
    data = loader(torch.from_numpy(FLOATS), said) if batches else (FLOATS, said.numpy())
    after = compress.quantize(network, data, MINMAX)
    assert after.metrics["val_accuracy_before"] == 1.0
    assert after.metrics["val_accuracy"] == after.metrics["val_same_class"]


def test_floats_reach_the_network_as_they_are(network: nn.Module) -> None:
    """One number among small ones decides a range: by bytes the small ones would all be zero."""
    values = 1e-3 * RANDOM.standard_normal((8, 3, 16, 16)).astype(np.float32)
    values[0, 0, 0, 0] = 100.0
    data = calibration_dataset(values)
    assert np.array_equal(data.preprocessing.tensor(data.train.images), values)
    given = calibration_dataset((values, np.arange(8) % 2)).train.images
    rows = {row.tobytes() for row in values}
    assert all(row.tobytes() in rows for row in given)


MLP = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
AUDIO = nn.Sequential(
    nn.Conv1d(1, 8, 9, stride=4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 1)
)  # fmt: skip
SEGMENTER = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1))


@pytest.mark.parametrize(
    ("module", "data"),
    [(MLP, RANDOM.standard_normal((60, 12))), (AUDIO, RANDOM.standard_normal((30, 1, 200))), (SEGMENTER, PIXELS)],
)
def test_any_rank_and_any_output(module: nn.Module, data: Any) -> None:
    after = compress.quantize(module, data)
    assert after.metrics["val_snr_db"] > 15
    assert ("val_same_class" in after.metrics) == (module is MLP)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(3, 16), nn.Linear(16, 4)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.a(a) + self.b(b))
        return self.c(hidden), hidden


def test_several_inputs_are_given_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "two.onnx"
    axes = {name: {0: "N"} for name in ("a", "b", "y", "h")}
    torch.onnx.export(
        Two().eval(), (torch.zeros(1, 6), torch.zeros(1, 3)), path, dynamo=False, dynamic_axes=axes,
        input_names=["a", "b"], output_names=["y", "h"],
    )  # fmt: skip
    inputs = {"a": RANDOM.standard_normal((60, 6)).astype(np.float32), "b": RANDOM.standard_normal((60, 3))}
    after = compress.quantize(path, inputs)
    assert after.metrics["val_snr_db"] == min(after.metrics["val_snr_db_of_outputs"].values()) > 15
    assert set(after.metrics["val_snr_db_of_outputs"]) == {"y", "h"}
    feeds = {name: array.astype(np.float32) for name, array in inputs.items()}
    expected = onnxruntime.InferenceSession(path).run(["y"], feeds)[0]
    got = onnxruntime.InferenceSession(onnx_bytes(after)).run(["y"], feeds)[0]
    assert np.square(expected - got).sum() < 0.02 * np.square(expected).sum()
    batches = [{name: array[i : i + 20] for name, array in inputs.items()} for i in range(0, 60, 20)]
    assert onnx_bytes(compress.quantize(path, batches)) == onnx_bytes(after)
    for wrong, said in (
        ({"a": inputs["a"]}, "inputs must be given for a, b, got a"),
        (inputs["a"], "the network has the inputs a, b: arrays for all must be given by name"),
        ({"a": inputs["a"], "b": inputs["b"][:5]}, r"arrays \(N, ...\) with the same N, got a \(60, 6\), b \(5, 3\)"),
        ({"a": inputs["b"], "b": inputs["a"]}, r"must have the shape \(N, 6\), got \(1, 3\)"),
    ):
        with pytest.raises(ValueError, match=said):
            compress.quantize(path, wrong)


def test_what_trains_nothing_needs_no_labels(network: nn.Module) -> None:
    for after in (
        compress.quantize(network, PIXELS, precision="int4"),
        compress.sparsify(network, PIXELS, Sparsify(recipe=None), amount=0.3),
        compress.cluster(network, PIXELS, Cluster(recipe=None), clusters=64),
        compress.prune(network, PIXELS, Prune(recipe=None, criterion="l1"), amount=0.1),
    ):
        assert "val_snr_db" in after.metrics
        assert "val_accuracy" not in after.metrics
    for needs in (
        lambda: compress.quantize(network, PIXELS, precision="qat"),
        lambda: compress.sparsify(network, PIXELS),
        lambda: compress.prune(network, PIXELS, amount=0.1),
    ):
        with pytest.raises(ValueError, match="for what trains, which needs labels; got ndarray"):
            needs()


@pytest.mark.parametrize("data", [PIXELS[:, :16, :16], FLOATS[:, :, :16, :16]])
def test_an_arch_is_calibrated_without_labels(data: np.ndarray) -> None:
    arch = preset("resnet8", input_shape=(3, 16, 16))
    after = compress.quantize(arch, data, Quantize(calibration="minmax", equalize="none", bias_correction=False))
    assert after.quantization is not None
    assert after.metrics["val_snr_db"] > 15
    assert after.metrics["quantization"]["points_lost"] == pytest.approx(
        100 * (1 - after.metrics["quantization"]["agreement"])
    )


@pytest.mark.slow
def test_without_labels_nothing_is_mixed() -> None:
    """Which layers to keep in float takes two files for each layer, and no accuracy is known to be lost."""
    after = compress.quantize(preset("resnet8", input_shape=(3, 16, 16)), PIXELS[:8, :16, :16])
    assert after.quantization is not None
    assert "mixed" not in after.metrics
    assert not after.quantization.in_float


def test_a_network_of_ours_keeps_its_record_where_floats_calibrate(tmp_path: Path) -> None:
    data = compress.load_data("digits", size=16)
    first = compress.quantize(preset("resnet8", input_shape=(1, 16, 16)), data, precision="fp16")
    compress.export_onnx(first, tmp_path / "m.onnx")
    inputs = data.preprocessing.tensor(data.train.images[:60])
    after = compress.quantize(tmp_path / "m.onnx", inputs, MINMAX)
    assert after.preprocessing == first.preprocessing


def test_an_endless_iterable_is_read_in_part(caplog: pytest.LogCaptureFixture) -> None:
    def endless() -> Any:
        while True:
            yield np.zeros((500, 3), np.float32)

    with caplog.at_level(logging.WARNING, "fitnas"):
        data = calibration_dataset(endless())
    assert MOST_READ <= len(data.train) < MOST_READ + 500
    assert "it yields more" in caplog.text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "the iterable of batches is empty"),
        ([FLOATS[:2], FLOATS[:2, :, :8]], "batches must be of one form"),
        ([(FLOATS[:2], [0, 1]), FLOATS[:2]], "labels or none, got both"),
        ([Image.new("RGB", (8, 8))], "got a single image"),
        (PIXELS[0], r"got a single one \(32, 32, 3\): stack them"),
        (list(PIXELS), "got a single one"),
        ([(FLOATS[:2], np.arange(2), ["a.png", "b.png"])], "got a tuple of 3"),
        (FLOATS * np.nan, "finite numbers, got NaN or infinity in 40 of 40"),
        (np.array(["a"]), "inputs must be numbers"),
        (FLOATS[:0], "inputs must be numbers"),
        ((FLOATS, np.array(["cat"] * 40)), "labels must be the numbers of the network's classes"),
        ((FLOATS, np.arange(39)), "one for each of 40 images"),
        (7, "an iterable of batches, got int"),
        ("nowhere", "does not exist"),
    ],
)
def test_what_is_no_input_is_named(data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        calibration_dataset(data)
    assert "\n" not in str(caught.value)


def test_labeled_images_that_judge_do_not_calibrate() -> None:
    data = calibration_dataset((FLOATS, np.arange(40) % 2))
    calibrating, judging = ({row.tobytes() for row in split.images} for split in (data.train, data.val))
    assert not calibrating & judging
    assert len(calibrating) + len(judging) == 40


def images_file(data_type: int, *, channels_last: bool) -> bytes:
    """A network that reads images in another way than torch's: as TensorFlow's, in bytes, or both."""
    shape = ["N", 8, 8, 3] if channels_last else ["N", 3, 8, 8]
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2] if channels_last else [0, 1, 2, 3]),
        helper.make_node("Conv", ["t", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info("x", data_type, shape), helper.make_tensor_value_info("y", 1, ["N", 4])]
    weight = numpy_helper.from_array(np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize(
    ("data_type", "channels_last"), [(TensorProto.FLOAT, True), (TensorProto.UINT8, True), (TensorProto.UINT8, False)]
)
def test_images_are_laid_out_as_the_network_reads_them(tmp_path: Path, data_type: int, channels_last: bool) -> None:
    pixels = RANDOM.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    file = images_file(data_type, channels_last=channels_last)
    (tmp_path / "m.onnx").write_bytes(file)
    stage = Quantize(calibration="minmax", equalize="none", bias_correction=False, least_squares=False, adaround=False)
    done = compress.quantize(tmp_path / "m.onnx", pixels, stage)
    assert done.metrics["val_snr_db"] > 30
    assert compare_files(file, onnx_bytes(done), calibration_dataset(pixels)).snr_db > 30
    x = pixels if channels_last else pixels.transpose(0, 3, 1, 2)
    if data_type == TensorProto.UINT8:  # bytes are fed as they are: their own range was calibrated
        before, after = (open_session(each).run(None, {"x": x})[0] for each in (file, onnx_bytes(done)))
        assert signal_to_noise_db(before, after) > 30


def test_bytes_in_the_layout_of_a_network_of_floats_are_fed_as_numbers(network: nn.Module) -> None:
    found = compress.quantize(network, PIXELS.transpose(0, 3, 1, 2)[:8], MINMAX)
    assert found.metrics["val_snr_db"] > 20


def test_a_file_of_one_array_of_images_is_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=PIXELS)
    assert calibration_dataset(tmp_path / "d.npz").preprocessing.input_shape == (3, 32, 32)


def test_truth_values_may_come_out(tmp_path: Path) -> None:
    found = compress.quantize(Above(), FLOATS[:4], MINMAX)
    assert onnxruntime.InferenceSession(onnx_bytes(found)).get_outputs()[0].type == "tensor(bool)"


class Above(nn.Module):
    """Which pixels are above a limit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) > 0.1
