"""The ladder: what is tried when a stage loses too much, the cheapest first, until one holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from compress import Artifact, Cluster, Context, MixedPrecision, Prune, Quantize, Recipe, Sparsify, run_stages
from compress.networks.network_source import OnnxFile
from compress.networks.onnx_export import onnx_bytes
from compress.quantization.mixed_precision import mixed_precision
from compress.quantization.mixed_precision.precision_sensitivity import Sensitivity
from compress.stage_interface import Stage
from compress.stages import attempts
from compress.stages.acceptance import accuracy_reason
from compress.stages.accuracy_change import AccuracyChange
from compress.stages.tolerance_ladder import FullLadder, Int8Ladder, Rung

PLAIN = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False, images=64)
BLINK = Recipe(epochs=0.02)


@pytest.fixture(scope="module")
def uneven(learnt: Artifact) -> Artifact:
    """The same function, but one channel of a block carries numbers a thousand times as large, and the layer that reads
    it has as much smaller weights: one scale for all channels leaves nothing of the others."""
    weights = {name: value.clone() for name, value in learnt.weights.items()}
    for stage in range(3):
        weights[f"stages.{stage}.0.conv1.norm.weight"][0] *= 1000
        weights[f"stages.{stage}.0.conv1.norm.bias"][0] *= 1000
        weights[f"stages.{stage}.0.conv2.conv.weight"][:, 0] /= 1000
    changed = replace(learnt, weights=weights)
    x = torch.rand(4, 1, 16, 16)
    torch.testing.assert_close(changed.model()(x), learnt.model()(x), atol=1e-3, rtol=1e-3)
    return changed


def test_the_first_rung_that_holds_ends_the_ladder(uneven: Artifact, context: Context, tmp_path: Path) -> None:
    done = run_stages(uneven, [PLAIN], context, tmp_path, ladder=Int8Ladder(qat=None))
    (record,) = done.history
    tried = record["tried"]
    assert [each["rung"] for each in tried][:2] == ["as planned", "calibrators"]
    assert not tried[0]["accepted"]
    assert "accuracy drop" in tried[0]["rejection_reason"]
    assert [each["accepted"] for each in tried] == [False] * (len(tried) - 1) + [True]
    assert tried[-1]["rung"] in ("calibrators", "equalization", "bias correction")
    assert all(each["seconds"] > 0 for each in tried)
    assert record["accepted"]
    assert record["folder"] == tried[-1]["folder"]
    assert done.precision == "int8"
    assert done.metrics["val_accuracy"] > tried[0]["val_accuracy"] + 0.01
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.onnx")}
    again = run_stages(uneven, [PLAIN], context, tmp_path, ladder=Int8Ladder(qat=None))
    assert again.history == done.history
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.onnx")}


def test_a_stage_that_holds_is_not_followed_by_others(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    allowed = replace(context, max_accuracy_drop=50.0)
    done = run_stages(learnt, [PLAIN], allowed, tmp_path, ladder=Int8Ladder())
    assert [each["rung"] for each in done.history[0]["tried"]] == ["as planned"]
    assert done.history[0]["accepted"]


@dataclass(frozen=True)
class Hopeless:
    """Rungs that ruin a network as well."""

    seconds: float | None = None

    def __call__(self, stage: Stage, artifact: Artifact, context: Context) -> list[Rung]:
        return [Rung(name=f"{amount}", stage=zeros(amount)) for amount in (0.98, 0.97)]

    def faster(self, stage: Stage, context: Context) -> list[Rung]:
        return []


def zeros(amount: float) -> Sparsify:
    return Sparsify(amount=amount, schedule="iterative", recipe=None)


def test_a_stage_is_rejected_when_no_rung_holds(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    done = run_stages(learnt, [zeros(0.99)], context, tmp_path, ladder=Hopeless())
    (record,) = done.history
    assert [each["rung"] for each in record["tried"]] == ["as planned", "0.98", "0.97"]
    assert not record["accepted"]
    assert "accuracy drop" in record["rejection_reason"]
    assert record["folder"] == "01_sparsify"
    assert onnx_bytes(done) == onnx_bytes(learnt)


@pytest.mark.slow
def test_a_rung_that_is_still_to_come_is_left_out(uneven: Artifact, context: Context, tmp_path: Path) -> None:
    ladder = Int8Ladder(qat=None, seconds=None)
    wanted = replace(PLAIN, bias_correction=None, equalize=None, calibration=None)
    done = run_stages(
        uneven, [replace(wanted, images=8), MixedPrecision(images=8)], replace(context, max_accuracy_drop=0.0),
        tmp_path, ladder=ladder,
    )  # fmt: skip
    assert "mixed" not in [each["stage"] for each in done.history[0]["tried"]]


def test_no_rung_begins_after_the_time(uneven: Artifact, context: Context, tmp_path: Path) -> None:
    done = run_stages(uneven, [PLAIN], context, tmp_path, ladder=Int8Ladder(seconds=0.0))
    assert [each["rung"] for each in done.history[0]["tried"]] == ["as planned"]


def test_the_interval_decides_where_there_are_images_enough(context: Context) -> None:
    asked = replace(context, confidence=0.9)
    before = {"arch": "a", "precision": "fp32", "val_accuracy": 0.9}
    after = {"arch": "a", "precision": "int8", "val_accuracy": 0.892}
    many = AccuracyChange(lost=12, gained=4, images=1000)
    why = accuracy_reason(before, after, before, asked, many)
    assert why is not None
    assert (
        "may be up to 1.34 points (observed 0.80 on 1000 images, 90% confidence), which exceeds the limit of 1.00"
        in why
    )
    assert accuracy_reason(before, after, before, context, many) is None  # by the estimate
    few = AccuracyChange(lost=1, gained=1, images=125), AccuracyChange(lost=1, gained=0, images=125)
    assert accuracy_reason(before, after, before, asked, few[0]) is None
    assert "(observed 0.80 on 125 images, 74% confidence)" in str(accuracy_reason(before, after, before, asked, few[1]))
    assert accuracy_reason(before, after, before, replace(asked, max_accuracy_drop=1.5), many) is None


def test_the_rungs_of_int8_are_those_that_it_does_not_try_itself(learnt: Artifact, context: Context) -> None:
    assert [rung.name for rung in Int8Ladder()(PLAIN, learnt, context)] == [
        "calibrators", "equalization", "bias correction", "AdaRound", "sensitive layers in float", "training in int8"
    ]  # fmt: skip
    assert Int8Ladder()(replace(PLAIN, levels=40), learnt, context)[:3] == (
        Rung(name="80 levels", stage=replace(PLAIN, levels=80)),
        Rung(name="160 levels", stage=replace(PLAIN, levels=160)),
        Rung(name="all levels", stage=PLAIN),
    )
    assert [rung.name for rung in Int8Ladder()(Quantize(), learnt, context)] == [
        "AdaRound", "sensitive layers in float", "training in int8"
    ]  # fmt: skip
    file = OnnxFile(data=onnx_bytes(learnt), stated_shape=(1, 16, 16))
    untrainable = replace(learnt, source=file, weights={})
    assert [rung.name for rung in Int8Ladder()(Quantize(), untrainable, context)][-1] == "sensitive layers in float"
    assert not Int8Ladder()(Prune(amount=0.5), learnt, context)


def test_stages_with_a_strength_have_weaker_ones(learnt: Artifact, context: Context) -> None:
    rungs = FullLadder()(Sparsify(amount=0.8, recipe=BLINK), learnt, context)
    assert [rung.name for rung in rungs] == ["amount 0.6", "amount 0.4", "amount 0.2"]
    assert all(rung.stage.recipe == BLINK for rung in rungs)  # type: ignore[attr-defined]
    assert [rung.name for rung in FullLadder()(Cluster(clusters=16), learnt, context)] == [
        "32 clusters", "64 clusters", "256 clusters"
    ]  # fmt: skip
    assert not FullLadder()(Prune(latency_ms=1.0), learnt, context)


@pytest.mark.slow
def test_layers_that_int8_makes_slower_stay_in_float(
    learnt: Artifact, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device on which int8 is slow at the entrance: by the table of estimates, which is made up here."""
    slow_first = [
        Sensitivity(name=op, divergence=0.0, saved_bytes=10, saved_ms=-1.0 if op == "stem" else 0.1)
        for op in ("stem", "classifier")
    ]
    monkeypatch.setattr(mixed_precision, "sensitivity", lambda *given, **more: tuple(slow_first))
    monkeypatch.setattr(attempts, "cost_reason", lambda before, after, context: _slower_at_the_stem(after))
    done = run_stages(learnt, [PLAIN], replace(context, max_accuracy_drop=20.0), tmp_path, ladder=Int8Ladder())
    tried = done.history[0]["tried"]
    assert [each["rung"] for each in tried] == ["as planned", "only layers that int8 makes faster"]
    assert done.history[0]["accepted"]
    assert done.quantization is not None
    assert "stem" in done.quantization.in_float
    assert "classifier" not in done.quantization.in_float


def _slower_at_the_stem(after: Mapping[str, object]) -> str | None:
    return None if "mixed" in after else "slower: 2.0 times as long as before"
