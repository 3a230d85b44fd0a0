"""Which stages a run has, and how long each trains."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

import nas
from compress import STAGES, Distill, Prune, Quantize, QuantizeAware, Recipe, Sparsify
from compress.fnz import decode_onnx
from nas.config import Config
from nas.pipeline.stage_plan import planned_stages, recipe_for, stage_names, with_stage_weights

PHASES = {"teacher": 0.2, "search": 0.3, "train": 0.1, "distill": 0.1, "prune": 0.1, "baseline": 0.3}


def test_without_a_wish_a_network_is_taught_made_narrower_and_made_integers() -> None:
    assert stage_names(Config()) == ("distill", "prune", "int8")
    assert stage_names(Config(teacher="none")) == ("prune", "int8")


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("prun", "got 'prun'; did you mean 'prune'"),
        ("int8,prune", "stages must each be given once, in the order distill, prune, .*, got int8, prune"),
        ("prune,prune", "stages must each be given once"),
        ("int4,int8", "with one of int8, qat, mixed, which compute in 8-bit integers, got int4, int8"),
        ("distill,prune", "distill needs a teacher, got teacher 'none'"),
    ],
)
def test_stages_that_do_not_go_together_are_refused(stages: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stage_names(Config(stages=stages, teacher="none"))


def test_every_stage_can_be_wished_for_and_trains_as_long_as_was_said() -> None:
    config = Config(stages="prune, sparsify,int8,qat,mixed,cluster,encode", prune_amount=0.4, stage_epochs=3)
    stages = planned_stages(config, lambda phase: recipe_for(phase, config, None), has_teacher=True)
    assert [stage.name for stage in stages] == ["prune", "sparsify", "int8", "qat", "mixed", "cluster", "encode"]
    prune, sparsify, qat = (next(s for s in stages if isinstance(s, kind)) for kind in (Prune, Sparsify, QuantizeAware))
    assert (prune.amount, prune.recipe.epochs) == (0.4, config.prune_epochs)
    assert sparsify.recipe is not None
    assert (sparsify.recipe.epochs, qat.recipe.epochs) == (3, 3)
    assert sparsify.recipe.learning_rate > 5 * qat.recipe.learning_rate
    for name in STAGES:
        if name != "distill":
            assert planned_stages(Config(stages=name), lambda phase: Recipe(), has_teacher=True)[0].name == name


def test_a_limit_of_time_is_kept_by_each_and_integers_stay_exact() -> None:
    config = Config(stage_epochs=3)
    for phase in ("train", "distill", "prune", "sparsify", "binary", "qat", "cluster"):
        recipe = recipe_for(phase, config, 60.0)
        assert recipe.seconds == 60
        assert (recipe.bfloat16 is False) == (phase == "qat")
    assert QuantizeAware(recipe=recipe_for("qat", config, 60.0)).recipe.epochs > 3


def test_without_a_teacher_there_is_no_distillation() -> None:
    stages = planned_stages(Config(), lambda phase: Recipe(), has_teacher=False)
    assert [type(stage) for stage in stages] == [Prune, Quantize]
    assert isinstance(planned_stages(Config(), lambda phase: Recipe(), has_teacher=True)[0], Distill)


def test_time_is_shared_among_the_phases_that_there_are() -> None:
    assert with_stage_weights(PHASES, Config()) == PHASES
    shares = with_stage_weights(PHASES, Config(stages="int8,qat"))
    assert "prune" not in shares
    assert "distill" not in shares
    assert shares["qat"] > 0
    trained = sum(shares[phase] for phase in ("train", "qat"))
    before = sum(PHASES[phase] for phase in ("train", "distill", "prune"))
    assert shares["baseline"] - PHASES["baseline"] == pytest.approx(trained - before)


def test_a_run_ends_with_every_file_of_its_stages(tmp_path: Path) -> None:
    result = nas.run(
        data="digits", size=16, trials=1, space="tiny", teacher="none", baseline="none", latency_from="estimated", max_accuracy_drop=100,
        search_epochs=0.05, train_epochs=0.2, stages="fp16,encode", out=tmp_path / "run",
    )  # fmt: skip
    folder = tmp_path / "run"
    file = (folder / "model.onnx").read_bytes()
    assert decode_onnx((folder / "model.fnz").read_bytes()) == file
    rows = {row["label"]: row for row in result.metrics["rows"]}
    assert list(rows) == ["selected network", "fp16", "encode"]
    coded = (folder / "model.fnz").stat().st_size
    gzipped, xzipped = (len(each) for each in (gzip.compress(file, 9, mtime=0), lzma.compress(file, preset=9)))
    note = f"final model, compressed to {coded:,} bytes (gzip -9: {gzipped:,}, xz -9: {xzipped:,})"
    assert rows["encode"]["note"] == note
    assert rows["fp16"]["note"].startswith("compressed to ")
    assert "note" not in rows["selected network"]
    assert rows["fp16"]["latency_ms"] == rows["selected network"]["latency_ms"]
    assert note in (folder / "report.html").read_text()
