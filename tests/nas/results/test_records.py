"""Any result as rows for a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nas
from hw_profiles import load_device, profile, profile_layers
from hw_profiles.device_kit.machine_check import CheckedTime, MachineCheck
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.writer import write_onnx
from nas.pipeline.search_alone import NetworkSearch
from search_spaces import preset
from tests.nas.report.pages import metrics_of, study_of

ARCH = preset("resnet8", input_shape=(1, 16, 16))
HERE = Path()
TIME = CheckedTime(network="a", precision="fp32", measured_ms=1.0, estimated_ms=1.1, low_ms=0.9, high_ms=1.2)


def compared(folder: Path) -> nas.Result | Any:
    (folder / "m.onnx").write_bytes(write_onnx(ARCH.workload()))
    return nas.compare(folder / "m.onnx", folder / "m.onnx", data="digits")


RESULTS = {
    "run": (lambda folder: nas.Result(HERE, HERE, True, metrics_of(["a", "b"])), 4, "test_accuracy"),
    "compress": (lambda folder: nas.Result(HERE, HERE, True, {"waterfall": [{"coded_bytes": 9}]}), 1, "coded_bytes"),
    "search": (lambda folder: study_of(3), 3, "cost.latency_ms"),
    "search_networks": (lambda folder: NetworkSearch(HERE, study_of(3), ARCH, None), 3, "accuracy"),
    "select": (lambda folder: nas.select("host", flash="3MB", precision="int8", top=3), 3, "published_top1"),
    "profile": (lambda folder: profile(ARCH, load_device("host")), 1, "macs"),
    "profile_layers": (lambda folder: profile_layers(ARCH, load_device("host"), "int8"), 18, "macs"),
    "check_machine": (lambda folder: MachineCheck(times=(TIME, TIME)), 2, "measured_ms"),
    "compare": (compared, 22, "error"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_each_result_is_a_table_of_plain_values(name: str, tmp_path: Path) -> None:
    make, count, column = RESULTS[name]
    rows = nas.records(make(tmp_path))
    frame = pd.DataFrame(rows)
    assert len(frame) == count
    assert pd.api.types.is_numeric_dtype(frame[column])
    assert not any(isinstance(cell, Mapping) or is_dataclass(cell) for row in rows for cell in row.values())


def test_a_row_of_a_trial_has_its_objectives_costs_and_parameters() -> None:
    (first, *_) = nas.records(study_of(3))
    assert first.keys() == {"trial", "state", "reason", "accuracy", "cost.latency_ms", "params.x"}
    assert first["accuracy"] == 0.5 + first["params.x"] / 100


@pytest.mark.parametrize("wrong", [3, "a", None, [1]])
def test_anything_else_is_rejected(wrong: object) -> None:
    with pytest.raises(InputError, match=r"records: the result must be what nas\.run"):
        nas.records(wrong)
