"""Two files side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from torch import nn

from compress import Dataset, Preprocessing, load_data
from compress.data.dataset import Split
from compress.data.preprocessing import METADATA_KEY
from compress.file_comparison import compare_files
from compress.layer_errors import layer_errors
from compress.networks.as_artifact import as_artifact
from compress.networks.onnx_export import onnx_bytes
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from search_spaces import Arch, preset

ARCH = preset("resnet8", input_shape=(1, 32, 32))


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load_data("digits")
    return replace(whole, test=Split(whole.test.images[:120], whole.test.labels[:120]))


def written(
    arch: Arch,
    data: Dataset,
    changed: str | None = None,
    by: float = 0.0,
    *,
    int8: bool = False,
    record: Preprocessing | None = None,
) -> bytes:
    """A file with the record of the data; ``changed`` is a layer whose output is off by a share of itself."""
    workload = arch.workload()
    weights = random_weights(workload)
    if changed is not None:
        for name in (f"{changed}.weight", f"{changed}.bias"):
            weights[name] = weights[name] * np.float32(1 + by)
    scales = fixed_quantization(workload) if int8 else None
    metadata = {METADATA_KEY: (record or data.preprocessing).to_json()}
    return write_onnx(workload, weights, quantization=scales, metadata=metadata)


def test_numbers_are_those_of_both_files_run_alone(data: Dataset) -> None:
    dark = replace(data.preprocessing, mean=(0.9,), std=(0.3,))
    one, other = written(ARCH, data, record=dark), written(ARCH, data, "classifier", -2.0)
    logits = [
        onnxruntime.InferenceSession(file).run(None, {"input": record.tensor(data.test.images)})[0]
        for file, record in ((one, dark), (other, data.preprocessing))
    ]
    found = compare_files(one, other, data)
    assert found.images == 120
    for accuracy, each in zip(found.accuracies, logits, strict=True):
        assert accuracy == np.mean(each.argmax(1) == data.test.labels)
    assert found.agreement == np.mean(logits[0].argmax(1) == logits[1].argmax(1)) < 1
    assert found.largest_difference == pytest.approx(np.abs(logits[0] - logits[1]).max(), rel=1e-5)
    assert found.file_bytes == (len(one), len(other))


@pytest.mark.parametrize("layer", ["stem", "stages.1.0.conv2", "classifier"])
def test_the_first_layer_that_diverges_is_the_one_that_was_changed(layer: str, data: Dataset) -> None:
    found = compare_files(written(ARCH, data), written(ARCH, data, layer, 0.3), data)
    assert found.diverges_at is not None
    assert found.diverges_at.name == layer
    assert found.diverges_at.error == pytest.approx(0.3, rel=1e-3)
    before = found.layers[: found.layers.index(found.diverges_at)]
    assert all(each.error == 0 for each in before)


def test_the_error_of_a_layer_is_the_length_of_the_difference(data: Dataset) -> None:
    """Against onnx's own evaluator, which computes each node as the standard says, over all images together."""
    small = preset("resnet8", input_shape=(1, 8, 8))
    files = (written(small, data), written(small, data, "stem", 0.4, int8=True))
    x = data.preprocessing.tensor(data.test.images[:9, 8:16, 8:16])
    name = "stages.1.0.add"
    made = []
    for file in files:
        model = onnx.load_model_from_string(file)
        model.graph.output.append(onnx.ValueInfoProto(name=name))
        made.append(ReferenceEvaluator(model).run([name], {"input": x})[0])
    errors = {each.name: each.error for each in layer_errors(files, [({"input": x}, {"input": x})])}
    assert errors[name] == pytest.approx(np.linalg.norm(made[0] - made[1]) / np.linalg.norm(made[0]), rel=1e-4)


def test_an_int8_file_is_compared_layer_by_layer_with_its_float_file(data: Dataset) -> None:
    found = compare_files(written(ARCH, data), written(ARCH, data, int8=True), data, threshold=0.02)
    names = [each.name for each in found.layers]
    assert names == [op.name for op in ARCH.workload().ops]
    assert all(each.error > 0 for each in found.layers[1:])
    assert found.diverges_at in found.layers


def by_onnxruntime(file: bytes, images: np.ndarray, folder: Path) -> bytes:
    """What ONNX Runtime's own quantizer makes of a file."""

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"input": images}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    (folder / "float.onnx").write_bytes(file)
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Reader(), per_channel=True)
    return (folder / "int8.onnx").read_bytes()


def test_a_quantizer_that_lets_a_relu_go_is_not_taken_for_an_error(data: Dataset, tmp_path: Path) -> None:
    """It gives the name of what the ReLU made to what it read, and cuts off what is below zero in the integers."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    )  # fmt: skip
    float_file = onnx_bytes(as_artifact(module, data))
    int8_file = by_onnxruntime(float_file, data.preprocessing.tensor(data.train.images[:32]), tmp_path)
    kinds = [node.op_type for node in onnx.load_model_from_string(int8_file).graph.node]
    found = compare_files(float_file, int8_file, data)
    assert "Relu" not in kinds
    assert {layer.kind for layer in found.layers} >= {"Relu", "Gemm"}
    assert max(layer.error for layer in found.layers) < 0.05
    twice = [layer.name for layer in compare_files(int8_file, int8_file, data).layers]
    assert not [name for name in twice if "DequantizeLinear" in name and "weight" not in name]


def test_files_of_other_shapes_have_no_layers_in_common_but_predictions(data: Dataset) -> None:
    wide = preset("mobilenetv2_035", input_shape=(1, 48, 48), num_classes=10)
    bare = write_onnx(wide.workload())  # no record: it reads its own size as the other file's record says
    found = compare_files(written(ARCH, data), bare, data)
    assert [layer.name for layer in found.layers] == ["classifier"]
    again = compare_files(bare, written(ARCH, data), data)
    assert again.accuracies == found.accuracies[::-1]


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        (preset("resnet8", input_shape=(3, 32, 32)), r"must read images \(N, 1, H, W\) .*, one reads \(1, 3, 32, 32\)"),
        (
            preset("resnet8", input_shape=(1, 32, 32), num_classes=7),
            r"outputs of one shape, classifier is \(64, 10\) in the first and \(64, 7\)",
        ),
    ],
)
def test_files_for_other_images_are_refused(arch: Arch, said: str, data: Dataset) -> None:
    with pytest.raises(ValueError, match=said):
        compare_files(written(ARCH, data), write_onnx(arch.workload()), data)
    with pytest.raises(ValueError, match="threshold must be above 0"):
        compare_files(written(ARCH, data), written(ARCH, data), data, threshold=0)
