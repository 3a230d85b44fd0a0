"""Classes have names: a network and the data may have them in different orders."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.data.class_order import in_order_of
from compress.data.dataset import Dataset, Split, load_data
from compress.data.preprocessing import METADATA_KEY, Preprocessing
from compress.file_comparison import compare_files
from compress.networks.as_artifact import as_artifact, fitted
from compress.networks.calibration_data import fitted_inputs
from compress.networks.onnx_export import predict_onnx
from compress.training.teachers import OnnxTeacher, pixels_of
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from search_spaces import preset

WORKLOAD = preset("resnet8", input_shape=(1, 16, 16)).workload()
WEIGHTS = random_weights(WORKLOAD)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits", size=16)


def turned(record: Preprocessing) -> Preprocessing:
    return replace(record, class_names=record.class_names[::-1])


def written(path: Path, record: Preprocessing) -> Path:
    path.write_bytes(write_onnx(WORKLOAD, WEIGHTS, metadata={METADATA_KEY: record.to_json()}))
    return path


def test_labels_follow_the_names_of_the_network(data: Dataset, tmp_path: Path) -> None:
    artifact = as_artifact(written(tmp_path / "model.onnx", turned(data.preprocessing)), data)
    for found in (fitted(data, artifact), fitted_inputs(data, artifact)):
        assert found.preprocessing.class_names == tuple("9876543210")
        for split in ("train", "val", "test"):
            assert np.array_equal(getattr(found, split).labels, 9 - getattr(data, split).labels)


def test_files_are_compared_by_the_names_of_their_classes(data: Dataset, tmp_path: Path) -> None:
    file = written(tmp_path / "model.onnx", turned(data.preprocessing))
    predictions = predict_onnx(file, data.test, data.preprocessing)
    named = replace(data, test=Split(data.test.images, 9 - predictions))
    assert compare_files(file.read_bytes(), file.read_bytes(), named).accuracies == (1.0, 1.0)


def test_a_teacher_answers_in_the_order_of_the_data(data: Dataset, tmp_path: Path) -> None:
    pixels = pixels_of(data.val.images[:3])
    usual = OnnxTeacher(written(tmp_path / "usual.onnx", data.preprocessing), data)(pixels)
    other = OnnxTeacher(written(tmp_path / "other.onnx", turned(data.preprocessing)), data)(pixels)
    assert torch.equal(other, usual.flip(1))


def test_other_classes_are_told(data: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fitnas"):
        assert in_order_of(tuple("abcdefghij"), data, "net.onnx") is data
        assert in_order_of(("a", "b"), data, "net.onnx") is data
    [message] = caplog.messages
    assert message == (
        "net.onnx has other classes (a, b, c, d, e, ...) than digits (0, 1, 2, 3, 4, ...): they are matched by their order"
    )
