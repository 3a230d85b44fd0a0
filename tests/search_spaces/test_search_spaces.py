"""Archs and spaces."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hw_profiles.errors import InputError
from search_spaces import SPACES, Arch, Space, build_model, load_space, preset, sample
from tests.contracts import check_arch, check_space
from tests.parameters import quick

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 96, 64), (3, 224, 224), (1, 16, 16)]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_space_keeps_the_contract(name: str, shape: tuple[int, int, int]) -> None:
    space = load_space(name, input_shape=shape, num_classes=7)
    check_space(space, 7)
    assert space.size > 1000


def test_a_space_of_one_network_keeps_the_contract() -> None:
    arch = preset("resnet8")
    check_space(Space(name="one", choices={"resolution": (32,)}, build=lambda params: arch), 10)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", quick(range(6), range(2)))
def test_samples_are_what_torch_exports(name: str, seed: int) -> None:
    check_arch(sample(name, seed=seed, input_shape=(3, 40, 32), num_classes=5))


def test_equal_specs_have_equal_ids_and_others_do_not() -> None:
    arch = preset("resnet8")
    assert arch.id == preset("resnet8").id
    assert arch.id != replace(arch, num_classes=11).id
    assert len({sample("mobilenet", seed=s).id for s in range(50)}) > 45


def test_a_change_of_depth_moves_no_other_weights() -> None:
    space = load_space("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    params = {**space.sample_params(0), "stage1.depth": 1}
    shallow = build_model(space.build(params)).state_dict()
    deep = build_model(space.build({**params, "stage1.depth": 3})).state_dict()
    assert set(shallow) < set(deep)
    assert {key.split(".")[1] for key in set(deep) - set(shallow)} == {"1"}


@pytest.mark.parametrize("name", SPACES)
def test_the_image_shrinks_to_about_four_positions_and_is_never_lost(name: str) -> None:
    for side in (8, 32, 96, 224):
        space = load_space(name, input_shape=(3, side, side), num_classes=2)
        for seed in range(10):
            arch = space.sample(seed)
            _, _, height, width = arch.workload().shapes[arch.workload().ops[-4].name]
            assert 2 <= min(height, width) <= 7, (side, arch.input_shape)


def test_tiny_networks_are_what_a_microcontroller_runs() -> None:
    for seed in range(20):
        workload = sample("tiny", seed=seed, input_shape=(3, 224, 224), num_classes=2).workload()
        assert {op.function for op in workload.ops} == {"none", "relu6"}
        assert not any(op.kind == "mul" for op in workload.ops)
        assert max(workload.shapes["input"]) <= 96


def test_fused_networks_have_relu_only_and_no_depthwise_convolution_early() -> None:
    for seed in range(20):
        workload = sample("fused", seed=seed).workload()
        assert {op.function for op in workload.ops} == {"none", "relu"}
        assert not any(op.depthwise for op in workload.ops if op.name.startswith(("stages.0", "stages.1")))


def test_efficientnet_at_full_size_is_efficientnet_b0() -> None:
    space = load_space("efficientnet", input_shape=(3, 224, 224), num_classes=1000)
    b0 = {"resolution": 224, "width": 1.0, "depth": 1.0}
    b0 |= {f"stage{i}.expansion": 6 for i in range(1, 7)}
    b0 |= {f"stage{i}.kernel": 5 if i in (2, 4, 5) else 3 for i in range(1, 7)}
    assert space.build(b0) == preset("efficientnet_b0")


def test_archs_that_cannot_be_are_refused() -> None:
    arch = preset("resnet8")
    with pytest.raises(ValueError, match=r"stem.in_channels must be 1, got 3"):
        replace(arch, input_shape=(1, 32, 32))
    with pytest.raises(ValueError, match="schema must be 1, got 99"):
        Arch.from_json(json.dumps({**arch.to_dict(), "schema": 99}))
    with pytest.raises(ValueError, match=r"stages.0.0.kind must not pool before the head, got 'pooled_conv'"):
        replace(arch, stages=((replace(arch.stages[0][0], kind="pooled_conv"),), *arch.stages[1:]))
    for text in ("{", "1" * 5000):
        with pytest.raises(InputError, match="not JSON"):
            Arch.from_json(text)
    with pytest.raises(ValueError, match="not the JSON of an architecture"):
        Arch.from_dict({"schema": 1})


def test_names_that_do_not_exist_get_a_hint() -> None:
    with pytest.raises(ValueError, match="did you mean 'mobilenet'"):
        load_space("mobilenett", input_shape=(3, 32, 32), num_classes=2)
    with pytest.raises(ValueError, match="no_such_module"):
        load_space("no_such_module:space", input_shape=(3, 32, 32), num_classes=2)


def my_space(input_shape: tuple[int, int, int], num_classes: int) -> Space:
    ours = load_space("mobilenet", input_shape=input_shape, num_classes=num_classes)
    return Space(name="mine", choices=ours.choices, build=ours.build)


def not_a_space(input_shape: tuple[int, int, int], num_classes: int) -> int:
    return 3


def test_a_space_of_ones_own_is_found_by_module_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "my_module", sys.modules[__name__])
    check_space(load_space("my_module:my_space", input_shape=(3, 32, 32), num_classes=3), 3)
    with pytest.raises(ValueError, match=r"must return a search_spaces.Space, got int"):
        load_space("my_module:not_a_space", input_shape=(3, 32, 32), num_classes=3)
