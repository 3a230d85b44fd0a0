"""Every stage is reachable, in a pipeline and after any other; and what of it is accepted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import compress
from compress import (
    STAGES,
    Artifact,
    Binarize,
    Context,
    Half,
    Int4,
    MixedPrecision,
    Prune,
    QuantizeAware,
    Recipe,
    Sparsify,
    Timm,
    run_stages,
)  # fmt: skip
from compress.networks.as_artifact import as_artifact
from compress.networks.onnx_export import folded_weights, onnx_bytes
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import TensorFormat
from tests.compress.model_kinds import BLINK, INTEGERS, bits, logits, of_timm


@dataclass(frozen=True, kw_only=True)
class Nudge:
    """Stands for any stage: moves the bias of class 3 by ``by`` and remembers what it was allowed to lose."""

    name: ClassVar[str] = "nudge"
    lossy: ClassVar[bool] = True

    by: float = 0.0
    told: list[float] = field(default_factory=list)

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        self.told.append(context.max_accuracy_drop)
        model = artifact.model()
        with torch.no_grad():
            model.classifier.bias[3] += self.by
        return artifact.with_model(model)


@dataclass(frozen=True, kw_only=True)
class Spoil(Nudge):
    """The same, as a stage that stores weights in another format does it."""

    name: ClassVar[str] = "spoil"

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        return Half()(Nudge.__call__(self, artifact, context), context)


def test_everything_is_found_where_users_look() -> None:
    for stage in STAGES.values():
        assert getattr(compress, stage.__name__) is stage
    assert all(getattr(compress, name) is not None for name in compress.__all__)
    assert list(STAGES) == [
        "distill", "prune", "sparsify", "fp16", "int4", "binary", "int8", "qat", "mixed", "cluster", "encode"
    ]  # fmt: skip


def test_training_in_the_same_form_is_kept_only_if_nothing_is_lost(
    learnt: Artifact, context: Context, tmp_path: Path
) -> None:
    """As learned integers after int8: no other precision, so any loss undoes it, however much is allowed."""
    loose = replace(context, max_accuracy_drop=100.0)
    done = run_stages(learnt, [INTEGERS, Nudge(by=1e-4), Nudge(by=100.0), Nudge()], loose, tmp_path)
    kept = {record["folder"]: record["rejection_reason"] for record in done.history}
    assert kept["01_int8"] is None
    assert kept["02_nudge"] is None
    assert "exceeds the limit of 0.00" in kept["03_nudge"]
    assert kept["04_nudge"] == "it changed neither the architecture nor the precision"
    assert done.metrics["val_accuracy"] > 0.5


def test_learned_integers_follow_int8_by_that_rule(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    stages = [INTEGERS, QuantizeAware(recipe=BLINK), MixedPrecision(images=8)]
    done = run_stages(learnt, stages, replace(context, max_accuracy_drop=100.0), tmp_path)
    int8, qat, mixed = done.history
    assert int8["accepted"]
    assert qat["accepted"] == (qat["after"]["val_accuracy"] >= int8["after"]["val_accuracy"])
    assert (
        mixed["rejection_reason"] == "it changed neither the architecture nor the precision"
    )  # nothing had to be in float
    assert (done.precision, done.metrics["file_bytes"]) == ("int8", int8["after"]["file_bytes"])


def test_formats_that_only_take_fewer_bytes_are_kept_and_called_no_faster(
    learnt: Artifact, context: Context, tmp_path: Path
) -> None:
    stages = [Half(), Int4(), Binarize(recipe=BLINK)]
    done = run_stages(learnt, stages, replace(context, max_accuracy_drop=100.0), tmp_path)
    assert [record["accepted"] for record in done.history] == [True] * 3
    for record in done.history:
        before, after = record["before"], record["after"]
        assert after["file_bytes"] < before["file_bytes"]
        assert after["weight_bytes"] < before["weight_bytes"]
        assert (after["latency_ms"], after["peak_ram_bytes"]) == (before["latency_ms"], before["peak_ram_bytes"])
        assert after["latency_ratio"] == [1.0, 1.0, 1.0]
        assert after["precision"] == "fp32"


def test_a_stage_is_told_what_is_left_to_lose(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    first, last = Spoil(by=2.0), Nudge()
    done = run_stages(learnt, [first, last], replace(context, max_accuracy_drop=90.0), tmp_path)
    record = done.history[0]
    lost = 100 * (record["before"]["val_accuracy"] - record["after"]["val_accuracy"])
    assert record["accepted"]
    assert lost > 1
    assert first.told == [90.0]
    assert last.told == [pytest.approx(90.0 - lost)]


def test_a_stage_that_cannot_be_applied_is_named_and_costs_nothing(
    learnt: Artifact, context: Context, tmp_path: Path
) -> None:
    context = replace(context, max_accuracy_drop=100.0)
    with pytest.raises(ValueError, match="stage fp16 cannot be applied: weights must be float32"):
        run_stages(learnt, [INTEGERS, Half()], context, tmp_path)
    made = (tmp_path / "01_int8" / "model.int8.onnx").stat()
    done = run_stages(learnt, [INTEGERS], context, tmp_path)
    assert done.history[0]["accepted"]
    assert (tmp_path / "01_int8" / "model.int8.onnx").stat() == made


def test_half_takes_what_has_more_bits(learnt: Artifact, context: Context) -> None:
    binary = Binarize(recipe=BLINK)(learnt, context)
    after = Half()(binary, context)
    ends = {"stem.weight", "classifier.weight"}
    assert {name for name, count in bits(after).items() if count == 16} >= ends
    assert {name: count for name, count in bits(after).items() if count == 1} == bits(binary)
    assert len(onnx_bytes(after)) < len(onnx_bytes(binary))
    everything = Int4()(learnt, context)
    assert Half()(everything, context).weight_formats == everything.weight_formats


def test_a_format_of_its_own_is_not_taken_for_wider(learnt: Artifact, context: Context) -> None:
    odd = replace(learnt, weight_formats={"stem.weight": TensorFormat(bits=4, per_channel=True)})
    assert Half()(odd, context).weight_formats["stem.weight"].bits == 4


def test_a_training_ends_the_formats_that_it_makes_untrue(learnt: Artifact, context: Context) -> None:
    half = Half()(learnt, context)
    assert set(bits(half).values()) == {16}
    assert set(bits(Binarize(recipe=BLINK)(half, context)).values()) == {1}
    sparse = Sparsify(amount=0.6, scope="layer", schedule="iterative", recipe=None)(learnt, context)
    binary = Binarize(recipe=BLINK)(sparse, context)
    assert all(stored.density == 1 for stored in binary.weight_formats.values())


LARGE_STEPS = Recipe(epochs=0.3, learning_rate=0.2)  # so large that weights come to other numbers of the grid


@pytest.mark.parametrize("stage", [Int4(recipe=LARGE_STEPS), QuantizeAware(recipe=LARGE_STEPS)], ids=["int4", "qat"])
def test_zeros_stay_zeros_while_bits_are_learned(stage: Any, learnt: Artifact, context: Context) -> None:
    sparse = Sparsify(amount=0.6, scope="layer", schedule="iterative", recipe=None)(learnt, context)
    after = stage(sparse, context)
    workload = learnt.arch.workload()
    before, found = (folded_weights(each.model(), workload) for each in (sparse, after))
    for name, stored in after.weight_formats.items():
        assert (found[name][before[name] == 0] == 0).all()
        assert np.mean(found[name] == 0) >= 0.59
        assert stored.density == pytest.approx(0.4, abs=0.01)
    assert len(after.weight_formats) == len(sparse.weight_formats)
    name = "stages.0.0.conv1.weight"
    assert not np.array_equal(found[name], before[name])


def test_heads_leave_a_transformer_in_a_pipeline_and_it_is_found_again(context: Context, tmp_path: Path) -> None:
    whole = as_artifact(of_timm(), context.data)
    loose = replace(context, max_accuracy_drop=100.0)
    run_stages(whole, [Prune(amount=0.6, criterion="l2", recipe=BLINK)], loose, tmp_path)
    pruned = Artifact.load(tmp_path / "01_prune")
    assert isinstance(pruned.source, Timm)
    heads = {name: numbers for name, numbers in pruned.source.kept.items() if name.endswith(":heads")}
    assert heads
    model, x = pruned.model(), torch.randn(3, 1, 16, 16)
    for name, numbers in heads.items():
        attention = model.get_submodule(name.removesuffix(":heads"))
        assert attention.num_heads == len(numbers) < 4
        assert attention.qkv.out_features == 3 * 16 * len(numbers)
    file = (tmp_path / "01_prune" / "model.onnx").read_bytes()
    with torch.inference_mode():
        np.testing.assert_allclose(logits(file, x.numpy()), model(x).numpy(), atol=1e-4, rtol=1e-3)
    # Numbers stay those of the network as timm makes it.
    again = Prune(amount=0.3, criterion="l2", recipe=BLINK)(pruned, context)
    for name, numbers in again.source.kept.items():
        assert set(numbers) <= set(pruned.source.kept.get(name, numbers))
    with torch.inference_mode():
        assert again.model()(x).shape == (3, 10)


def test_fewer_bits_of_a_model_of_timm_are_another_form(context: Context, tmp_path: Path) -> None:
    """So that a loss is held against what is allowed, and not against none."""
    whole = as_artifact(of_timm(), context.data)
    loose, forms = replace(context, max_accuracy_drop=100.0), {""}
    for stage in (Half(), Int4()):
        (record,) = run_stages(whole, [stage], loose, tmp_path / stage.name).history
        assert record["accepted"]
        assert record["before"]["weight_form"] == ""
        forms.add(record["after"]["weight_form"])
    assert len(forms) == 3


@dataclass(frozen=True, kw_only=True)
class Buggy(Nudge):
    """A stage in which something goes wrong that is not the user's doing."""

    name: ClassVar[str] = "buggy"

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        raise ValueError("a bug")


def test_a_bug_in_a_stage_is_not_taken_for_wrong_input(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^a bug$") as caught:
        run_stages(learnt, [Buggy()], context, tmp_path)
    assert not isinstance(caught.value, InputError)
    context = replace(context, max_accuracy_drop=100.0)
    with pytest.raises(InputError, match="stage fp16 cannot be applied"):
        run_stages(learnt, [INTEGERS, Half()], context, tmp_path / "other")
