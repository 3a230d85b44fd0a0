"""Comparison and quantization of networks that are no classifiers of images: judged by their outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import compress
from compress import Quantize, load_data
from compress.data.dataset import Split
from compress.file_comparison import compare_files
from compress.networks.as_artifact import as_artifact
from compress.networks.calibration_data import calibration_dataset
from compress.networks.onnx_export import onnx_bytes
from hw_profiles.errors import InputError
from nas.commands.main import main
from tests.onnx_forms import BODY, WEIGHTS, model
from tests.several_inputs import CALLS, recurrent_file


def outputs(file: bytes, call: Mapping[str, Any]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(call)), strict=True))


def decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    return float(10 * np.log10(np.square(signal.astype(np.float64)).sum() / np.square(noise.astype(np.float64)).sum()))


def test_each_output_of_several_inputs_is_compared() -> None:
    one, other = recurrent_file(), recurrent_file(1.5)
    found = compare_files(one, other, calibration_dataset(CALLS))
    made = [[outputs(file, call)["speech"] for call in CALLS] for file in (one, other)]
    before, after = (np.concatenate(each) for each in made)
    assert found.images == len(CALLS)
    assert found.accuracies is None
    assert found.outputs["stateN"].snr_db == float("inf")
    assert found.outputs["speech"].snr_db == pytest.approx(decibels(before, after - before), abs=1e-4)
    assert found.snr_db == found.outputs["speech"].snr_db
    assert found.largest_difference == pytest.approx(np.abs(after - before).max(), rel=1e-5)
    assert found.diverges_at is not None
    assert found.diverges_at.name == "speech"


class Segmenter(nn.Module):
    """Of images: a class for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.stem(x)))


def segmenters() -> tuple[bytes, bytes]:
    """One, and the same with another last layer."""
    one, other = Segmenter().eval(), Segmenter().eval()
    with torch.no_grad():
        other.head.weight += 0.1
    files = [onnx_bytes(as_artifact(module, load_data("digits"))) for module in (one, other)]
    return files[0], files[1]


def test_a_segmenter_is_compared_on_images_with_labels() -> None:
    whole = load_data("digits")
    data = replace(whole, test=whole.test.some(24, 0))
    one, other = segmenters()
    found = compare_files(one, other, data)
    assert found.agreement is found.accuracies is None
    x = data.preprocessing.tensor(data.test.images)
    before, after = (outputs(file, {"input": x})["output"] for file in (one, other))
    assert found.snr_db == pytest.approx(decibels(before, after - before), abs=1e-4)
    assert found.diverges_at is not None


def test_the_command_line_tells_each_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, scale in (("a", 1.0), ("b", 1.5)):
        (tmp_path / f"{name}.onnx").write_bytes(recurrent_file(scale))
    np.savez(tmp_path / "inputs.npz", **CALLS[0])
    arguments = ["compare", *(str(tmp_path / name) for name in ("a.onnx", "b.onnx")), "--data"]
    arguments.append(str(tmp_path / "inputs.npz"))
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "outputs for 1 test inputs" in told or "same prediction" in told
    assert main([*arguments, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["outputs"]) == {"speech", "stateN"}
    sides = "sound=1x64,state=1x12"
    (tmp_path / "open.onnx").write_bytes(recurrent_file(open_sides=True))
    assert main(["profile", str(tmp_path / "open.onnx"), "--input-shape", sides]) == 0
    assert "inputs: sound 1x64, state 1x12, rate 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            lambda: calibration_dataset([{"sound": call["sound"], "rate": call["rate"]} for call in CALLS]),
            "sound, state",
        ),
        (lambda: load_data("digits"), "must be given by name, got images"),
    ],
)
def test_other_inputs_are_refused(data: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        compare_files(recurrent_file(), recurrent_file(), data())


@pytest.mark.parametrize("masked", [False, True])
def test_what_calls_read_calibrates_int8(masked: bool, tmp_path: Path) -> None:
    """A state and a number are given as the network reads them, call by call."""
    path = tmp_path / "m.onnx"
    path.write_bytes(recurrent_file(masked=masked))
    done = compress.quantize(str(path), CALLS, Quantize(calibration="minmax"))
    after = [outputs(onnx_bytes(done), call)["speech"] for call in CALLS]
    before = [outputs(path.read_bytes(), call)["speech"] for call in CALLS]
    ratio = decibels(np.concatenate(before), np.concatenate(after) - np.concatenate(before))
    assert 15 < ratio < 60
    assert done.metrics["val_snr_db_of_outputs"]["speech"] == pytest.approx(ratio, abs=1e-3)
    assert done.metrics["images_given"] == len(CALLS)
    with pytest.raises(InputError, match=r"all calls must read inputs of the same shapes|must be of one form"):
        compress.quantize(str(path), [CALLS[0], {**CALLS[1], "sound": CALLS[1]["sound"][:, :, 1:]}])


def test_what_is_infinite_in_both_files_is_no_difference() -> None:
    """A mask of attention is minus infinity where nothing may look."""
    value = onnx.numpy_helper.from_array(np.array([1.0, -np.inf, np.nan, 2.0], np.float32), "m")
    node, ends = (
        onnx.helper.make_node,
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in "xy"],
    )
    files = []
    for scale in (1.0, 2.0):
        factor = onnx.numpy_helper.from_array(np.asarray(scale, np.float32), "f")
        nodes = [node("Add", ["x", "m"], ["a"]), node("Mul", ["a", "f"], ["y"])]
        graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [value, factor])
        files.append(onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)]))
    one, other = (file.SerializeToString() for file in files)
    data = calibration_dataset(np.ones((3, 4), np.float32))
    assert compare_files(one, one, data).snr_db == float("inf")
    assert compare_files(one, other, data).largest_difference == 3.0
    assert [layer.error for layer in compare_files(one, other, data).layers] == [0.0, 1.0]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: compress.sparsify(path, amount=0.5),
        lambda path: compress.cluster(path, clusters=8),
        lambda path: compress.quantize(path, precision="fp16"),
    ],
)
def test_weights_of_any_file_are_changed_without_inputs(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(recurrent_file())
    changed = onnx_bytes(change(str(path)))
    found = compare_files(path.read_bytes(), changed, calibration_dataset(CALLS))
    assert 3 < found.snr_db < 100


def test_a_network_of_tiny_outputs_keeps_them_in_int8() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        for layer in (module[0], module[4]):
            layer.weight *= 1e-6
            layer.bias *= 0
    images = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    done = compress.quantize(module, images, Quantize(calibration="minmax", equalize="none"))
    assert done.metrics["val_snr_db"] > 15


class Caching(nn.Module):
    """Keeps what it computed of its weights, as attention of timm does in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3)
        self.bias, self.head = nn.Parameter(torch.ones(1, 32, 1, 1)), nn.Linear(32, 4)
        self.cache: dict[str, torch.Tensor] = {}

    def train(self, mode: bool = True) -> Caching:
        self.cache = {}
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.bias * 2 if self.training else self.cache.setdefault("bias", self.bias * 2)
        return self.head(torch.relu(self.conv(torch.relu(self.stem(x))) + bias).mean((2, 3)))


def test_a_module_that_keeps_tensors_of_a_run_is_pruned_and_quantized() -> None:
    module = Caching().eval()
    module(torch.zeros(1, 3, 8, 8))
    assert module.cache["bias"].grad_fn is not None
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
    labeled = (images, np.arange(24) % 4)
    pruned = compress.prune(module, labeled, compress.Prune(recipe=compress.Recipe(epochs=1)), amount=0.5)
    assert pruned.model().stem.out_channels < 32
    assert compress.quantize(module, images, Quantize(calibration="minmax")).metrics["val_snr_db"] > 10


def test_control_flow_is_refused_with_the_node(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(recurrent_file())
    float32, helper = onnx.TensorProto.FLOAT, onnx.helper
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["speech"], [f"{kind}_out"])], kind, [], [helper.make_tensor_value_info(f"{kind}_out", float32, None)]
        )
        for kind in ("Relu", "Neg")
    ]  # fmt: skip
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([0.3], np.float32), "limit"))
    nodes = [
        helper.make_node("Less", ["rate", "limit"], ["low"]),
        helper.make_node("If", ["low"], ["chosen"], name="choice", then_branch=branches[0], else_branch=branches[1]),
    ]
    model.graph.node.extend(nodes)
    model.graph.output[0].name = "chosen"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    said = r"node 'choice' \(If\): control flow and sequences are not followed: only encode and decode"
    for verb in (
        lambda: compress.quantize(str(path), CALLS),
        lambda: compare_files(path.read_bytes(), path.read_bytes(), calibration_dataset(CALLS)),
    ):
        with pytest.raises(InputError, match=said):
            verb()
    assert compress.encode(str(path), tmp_path / "m.fnz").ratio > 0


def test_a_rest_that_is_no_whole_batch_is_left_out(tmp_path: Path) -> None:
    file = model(BODY, WEIGHTS, batch=5).SerializeToString()
    images = np.random.default_rng(0).standard_normal((12, 3, 16, 16)).astype(np.float32)
    assert compare_files(file, file, calibration_dataset(images)).snr_db == float("inf")


@pytest.mark.parametrize(("batch", "count"), [(5, 12), (70, 80)])
def test_labels_and_layers_of_files_for_batches_of_one_size(batch: int, count: int) -> None:
    one, other = model(BODY, WEIGHTS, batch=batch), model(BODY, {**WEIGHTS, "d": WEIGHTS["d"] + 9}, batch=batch)
    files = [each.SerializeToString() for each in (one, other)]
    images = np.random.default_rng(0).standard_normal((count, 3, 16, 16)).astype(np.float32)
    data = calibration_dataset(images)
    data = replace(data, test=Split(images, np.arange(count) % 3), train=Split(images, np.arange(count) % 3))
    found = compare_files(files[0], files[1], data)
    assert found.images == batch * (count // batch)
    assert found.accuracies is not None
    assert found.diverges_at is not None
    assert found.diverges_at.name == "y"


def test_fewer_examples_than_a_file_reads_at_once_are_refused() -> None:
    file = model(BODY, WEIGHTS, batch=8).SerializeToString()
    images = np.zeros((4, 3, 16, 16), np.float32)
    with pytest.raises(InputError, match="the files read 8 examples at once: as many must be given, got 4"):
        compare_files(file, file, calibration_dataset(images))


def test_outputs_of_text_are_left_out() -> None:
    node, helper = onnx.helper.make_node, onnx.helper
    ends = [helper.make_tensor_value_info(n, k, ["N", 4]) for n, k in (("x", 1), ("said", 8), ("y", 1))]
    nodes = [node("Cast", ["x"], ["said"], to=8), node("Relu", ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 13)]
    files = [
        helper.make_model(
            helper.make_graph(n, "g", ends[:1], e), opset_imports=opsets, ir_version=8
        ).SerializeToString()
        for n, e in ((nodes, ends[1:]), (nodes[:1], ends[1:2]))
    ]
    data = calibration_dataset(np.ones((3, 4), np.float32))
    assert list(compare_files(files[0], files[0], data).outputs) == ["y"]
    with pytest.raises(InputError, match="must make an output of numbers, got said of other types"):
        compare_files(files[1], files[1], data)
