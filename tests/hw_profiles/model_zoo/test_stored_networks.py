"""Traced models are stored without loss, and what is stored agrees with timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles import Workload, load_device
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import estimate
from hw_profiles.memory.planner import plan
from hw_profiles.model_zoo import trace_models
from hw_profiles.model_zoo.accuracies import published_accuracies
from hw_profiles.model_zoo.stored_workloads import FILE, StoredNetwork, stored_networks, untraceable, write_networks
from hw_profiles.model_zoo.workload_records import from_records, to_records
from hw_profiles.model_zoo.zoo_features import read_features, work_out_features, write_features, zoo_features
from hw_profiles.network.workload import WorkloadBuilder
from hw_profiles.runtimes.fusion import fuse
from search_spaces import preset, sample

ARCHS = [preset("mobilenetv3_small_100", input_shape=(3, 64, 64)), sample("efficientnet", seed=3), preset("resnet8")]


def attention() -> Workload:
    """Inputs from far back, a product of two tensors, and views."""
    b = WorkloadBuilder("image", (1, 16, 24))
    query, key = b.linear("q", "image", 24), b.linear("k", "image", 24, bias=False)
    scores = b.activation("softmax", b.matmul("qk", query, b.append(_transposed(key), (1, 24, 16))), "softmax")
    b.binary("sum", "add", b.matmul("av", scores, query), "image")
    return b.build()


def _transposed(name: str) -> Any:
    from hw_profiles.network.workload import Op

    return Op("kt", "transpose", (name,))


@pytest.mark.parametrize("workload", [*(arch.workload() for arch in ARCHS), attention()], ids=lambda w: w.output)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_stored_workload_costs_what_the_workload_costs(workload: Workload, precision: str) -> None:
    records = json.loads(json.dumps(to_records(workload)))
    again = from_records(workload.shapes[workload.input], records).with_precision(precision)
    workload = workload.with_precision(precision)
    kernels, kernels_again = fuse(workload), fuse(again)
    assert [k.kind for k in kernels_again] == [k.kind for k in kernels]
    assert (again.macs, again.weight_amounts()) == (workload.macs, workload.weight_amounts())
    assert plan(again, kernels_again).arena_bytes == plan(workload, kernels).arena_bytes
    device = load_device("host")
    assert estimate(again, kernels_again, device).ms == pytest.approx(estimate(workload, kernels, device).ms, rel=1e-12)


def test_a_network_of_two_outputs_is_refused() -> None:
    b = WorkloadBuilder("image", (1, 16))
    first = b.linear("a", "image", 4)
    b.linear("b", "image", 4)
    with pytest.raises(InputError, match="last operation"):
        to_records(b.build(first))


def lines() -> list[dict[str, Any]]:
    return [
        {"architecture": f"net{i}", "image_size": size, "params": i, "operations": to_records(workload)}
        for i, (size, workload) in enumerate((arch.input_shape[1], arch.workload()) for arch in ARCHS)
    ]


def test_a_file_of_networks_reads_back_and_names_those_that_could_not_be_traced(tmp_path: Path) -> None:
    file = tmp_path / "w.json.xz"
    write_networks([{"architecture": "odd", "image_size": 7, "error": "too odd"}, *lines()], file)
    found = list(stored_networks(file))
    assert [(n.architecture, n.params, n.workload.macs) for n in found] == [
        (f"net{i}", i, arch.workload().macs) for i, arch in enumerate(ARCHS)
    ]
    assert untraceable(file) == {"odd@7": "too odd"}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_features_read_back_as_they_were(precision: str, tmp_path: Path) -> None:
    networks = [
        StoredNetwork(architecture=f"n{i}", image_size=32, params=i, workload=arch.workload())
        for i, arch in enumerate(ARCHS)
    ]
    made = work_out_features(networks, "ort", precision)
    write_features(made, tmp_path / "f.npz.xz")
    read = read_features(tmp_path / "f.npz.xz")
    assert set(read.features) == set(made.features)
    assert (read.architectures, read.peak_bytes.tolist()) == (made.architectures, made.peak_bytes.tolist())
    for zoo in (made, read):
        macs = np.array([f.quantities[-1] for f in zoo.features])  # any number of each feature
        assert zoo.totals(macs) == pytest.approx(made.totals(np.array([f.quantities[-1] for f in made.features])))


def test_tracing_resumes_after_a_line_that_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def traced(architecture: str, image_size: int, model: str) -> dict[str, Any]:
        calls.append(architecture)
        if architecture == "b":
            return {"architecture": architecture, "image_size": image_size, "error": "no"}
        return {"architecture": architecture, "image_size": image_size, "seconds": 0.0}

    monkeypatch.setattr(trace_models, "traced", traced)
    monkeypatch.setattr(trace_models, "tasks", lambda: {(name, 8): f"{name}.x" for name in "abcd"})
    out = tmp_path / "lines.jsonl"
    assert trace_models.main(["--out", str(out), "--count", "2"]) == 4
    out.write_text(out.read_text() + '{"architecture":"c","ima')
    assert trace_models.main(["--out", str(out)]) == 0
    assert calls == ["a", "b", "c", "d"]
    assert trace_models.main(["--out", str(out), "--again"]) == 0
    assert calls[4:] == ["b"]
    assert [line["architecture"] for line in trace_models.read_lines(out)] == ["a", "c", "d"]


def stored_params() -> dict[tuple[str, int], int]:
    zoo = zoo_features("ort", "fp32")
    return dict(zip(zip(zoo.architectures, zoo.image_sizes.tolist(), strict=True), zoo.params.tolist(), strict=True))


def test_at_most_one_in_a_hundred_models_could_not_be_traced_and_no_published_one_is_missing() -> None:
    failed = untraceable()
    published = {(row.architecture, row.image_size) for row in published_accuracies()}
    named = {(key.partition("@")[0], int(key.partition("@")[2])) for key in failed}
    assert published == set(stored_params()) | named
    assert len(failed) <= 0.01 * len(published)


def test_traced_parameters_are_those_that_timm_published() -> None:
    """The table of accuracies has them in millions with two digits."""
    stored = stored_params()
    rows = [row for row in published_accuracies() if (row.architecture, row.image_size) in stored]
    assert len(rows) > 1500
    for row in rows:
        params = stored[row.architecture, row.image_size] / 1e6
        assert params == pytest.approx(row.params_millions, rel=0.005, abs=0.01), row.model


def test_the_data_are_small_enough_for_a_package() -> None:
    sizes = [path.stat().st_size for path in FILE.parent.iterdir() if path.suffix in (".xz", ".csv")]
    assert len(sizes) >= 4
    assert sum(sizes) <= 3_000_000


def test_a_runtime_whose_features_are_stored_under_another_name_has_the_same() -> None:
    networks = [network for network, _ in zip(stored_networks(), range(2), strict=False)]
    torch, ncnn = (work_out_features(networks, runtime, "fp32") for runtime in ("torch", "ncnn"))
    assert torch.features == ncnn.features
    assert (torch.counts == ncnn.counts).all()
    assert (torch.peak_bytes == ncnn.peak_bytes).all()
    assert zoo_features("torch", "fp32").features == zoo_features("ncnn", "fp32").features
