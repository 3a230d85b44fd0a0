"""Plans as TOML: what is written is read back, and what is wrong is named."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from compress import STAGES, Cluster, Distill, Encode, Int4, Prune, Quantize, QuantizeAware, Recipe, Sparsify
from compress.stage_interface import Stage
from compress.stages.plan_file import Plan, read_plan

CHANGED: list[Stage] = [
    Distill(layers=("a", "b"), teacher_layers=("c", "d"), recipe=Recipe(epochs=2, bfloat16=None, flip=True)),
    Prune(amount=0.3, recipe=None),
    Sparsify(amount={"conv": 0.5, "classifier": 0.9}, recipe=None),
    Quantize(equalize="none", adaround=False, calibration=None, levels={"conv": 63}),
    Cluster(bits=4, recipe=None),
    Int4(recipe=Recipe(epochs=1, seconds=3.0)),
]


@pytest.mark.parametrize("stage", [*(kind() for kind in STAGES.values()), *CHANGED], ids=repr)
def test_every_stage_is_read_back_as_it_was(stage: Stage, tmp_path: Path) -> None:
    plan = Plan(stages=[stage])
    (tmp_path / "plan.toml").write_text(plan.to_toml())
    assert read_plan(tmp_path / "plan.toml") == plan


def test_what_is_left_out_keeps_its_default() -> None:
    plan = Plan.from_toml('[[stages]]\nname = "prune"\namount = 0.5\nrecipe.epochs = 3\n[[stages]]\nname = "encode"\n')
    assert plan.stages == (Prune(amount=0.5, recipe=Recipe(epochs=3.0)), Encode())


def test_another_order_is_refused_unless_it_is_asked_for() -> None:
    wrong = [Quantize(), Prune(amount=0.2)]
    with pytest.raises(ValueError, match=r"got int8, prune: prune comes before int8, because channels that leave"):
        Plan(stages=wrong)
    asked = Plan(stages=wrong, any_order=True)
    assert Plan.from_toml(asked.to_toml()) == asked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[stages]]\nname = "prun"', "unknown stage 'prun'; did you mean 'prune'"),
        ('[[stages]]\nname = "prune"\namonut = 0.1', "prune: unknown key 'amonut'; did you mean 'amount'"),
        ('[[stages]]\nname = "prune"\nrecipe.epoch = 1', "prune.recipe: unknown key 'epoch'; did you mean 'epochs'"),
        ('[[stages]]\nname = "prune"\nrecipe = 3', 'prune.recipe must be a table of settings or "none", got 3'),
        ('[[stages]]\nname = "qat"\nrecipe = "none"', "qat.recipe must be a table of settings, got 'none'"),
        ('[[stages]]\nname = "prune"\namount = "much"', "prune.amount must be float | None, got 'much'"),
        ('[[stages]]\nname = "prune"\namount = true', "prune.amount must be float | None, got True"),
        ('[[stages]]\nname = "prune"\namount = 2', "prune: Prune.amount must be between 0 and 1, got 2"),
        ('[[stages]]\nname = "prune"\ncost_aware = 1', "prune.cost_aware must be bool, got 1"),
        ('[[stages]]\nname = "distill"\nlayers = [1]', "distill.layers must be tuple"),
        ('[[stages]]\nname = "sparsify"\namount = {conv = "x"}', "Sparsify.amount must be between 0 and 1, got 'x'"),
        ("[[stages]]\namount = 2", "each stage must have a name"),
        ('stage = "prune"', "unknown key 'stage'; did you mean 'stages'"),
        ("stages = 3", "must have one table"),
        ("stages = []", "1 to 100 stages, got 0"),
        ("schema = 9\nstages = []", "schema must be 1, got 9"),
        ("any_order = 1\nstages = []", "any_order must be true or false, got 1"),
        ('[[stages]]\nname = "int8"\n[[stages]]\nname = "int8"', "int8 is there twice"),
        ('[[stages]]\nname = "int4"\n[[stages]]\nname = "int8"', "must not combine one of fp16, int4, binary"),
        ("[[stages", "plan: "),
        (f'[[stages]]\nname = "prune"\namount = {10**400}', "prune.amount: int too large"),
        (f'[[stages]]\nname = "prune"\namount = {"1" * 5000}', "plan: Exceeds the limit"),
    ],
)
def test_what_is_wrong_with_a_plan_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("|", r"\|")):
        Plan.from_toml(text)


def test_files_that_are_no_plans_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plan file not found"):
        read_plan(tmp_path / "none.toml")
    (tmp_path / "plan.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="must be UTF-8 text"):
        read_plan(tmp_path / "plan.toml")
    (tmp_path / "plan.toml").write_bytes(b"#" * (1024**2 + 1))
    with pytest.raises(ValueError, match="must be at most 1048576 bytes"):
        read_plan(tmp_path / "plan.toml")


def test_every_kind_of_setting_is_known() -> None:
    """A setting of a new type would be refused when its plan is read."""
    for kind in STAGES.values():
        for field in fields(kind):
            assert set(str(field.type).replace(" ", "").split("|")) <= {
                "None", "bool", "int", "float", "str", "tuple[str,...]", "Amount", "Clusters", "Levels", "Recipe",
            }, field  # fmt: skip
    assert QuantizeAware().recipe.bfloat16 is False
