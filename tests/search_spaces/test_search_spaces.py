"""Archs, spaces and presets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis

from search_spaces import SPACES, Arch, Space, build_model, list_presets, load_space, preset, sample
from search_spaces.presets import mobilenetv2
from tests.contracts import check_arch, check_space, with_random_statistics

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 96, 64), (3, 224, 224), (1, 16, 16)]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_space_keeps_the_contract(name: str, shape: tuple[int, int, int]) -> None:
    check_space(load_space(name, input_shape=shape, num_classes=7), 7)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(6))
def test_samples_are_what_torch_exports(name: str, seed: int) -> None:
    check_arch(sample(name, seed=seed, input_shape=(3, 40, 32), num_classes=5))


@pytest.mark.parametrize("name", list_presets())
def test_presets_are_what_torch_exports(name: str) -> None:
    check_arch(preset(name, input_shape=(3, 64, 64), num_classes=4))


@pytest.mark.parametrize(
    "arch", [preset("resnet8"), preset("mobilenetv2_100"), sample("mobilenet", seed=3)], ids=lambda arch: arch.id
)
def test_macs_are_fvcores(arch: Arch) -> None:
    counted = FlopCountAnalysis(build_model(arch).eval(), torch.zeros(1, *arch.input_shape))
    counted.unsupported_ops_warnings(False)
    counted.uncalled_modules_warnings(False)
    by_operator = counted.by_operator()
    assert arch.workload().macs == by_operator["conv"] + by_operator["linear"]


@pytest.mark.parametrize("name", [name for name in list_presets() if timm.is_model(name)])
def test_mobilenetv2_is_timms(name: str) -> None:
    theirs = with_random_statistics(timm.create_model(name, num_classes=10))
    ours = build_model(preset(name, num_classes=10)).eval()
    values = [v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")]
    names = [k for k in ours.state_dict() if not k.endswith("num_batches_tracked")]
    ours.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


def test_resnet8_has_the_published_size() -> None:
    """2106.07597: 12.5 M MACs; 78,666 values with unfolded batch normalisation are 77,706 folded."""
    workload = preset("resnet8").workload()
    assert (workload.macs, workload.weight_count) == (12_501_632, 77_706)


def test_mobilenetv2_takes_any_width() -> None:
    assert preset("mobilenetv2_060", input_shape=(3, 64, 64)) == mobilenetv2(0.6, (3, 64, 64), 1000)


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


def test_archs_that_cannot_be_are_refused() -> None:
    arch = preset("resnet8")
    with pytest.raises(ValueError, match=r"stem.in_channels must be 1, got 3"):
        replace(arch, input_shape=(1, 32, 32))
    with pytest.raises(ValueError, match="schema must be 1, got 99"):
        Arch.from_json(json.dumps({**arch.to_dict(), "schema": 99}))
    with pytest.raises(ValueError, match="not JSON"):
        Arch.from_json("{")
    with pytest.raises(ValueError, match="not the JSON of an architecture"):
        Arch.from_dict({"schema": 1})


def test_names_that_do_not_exist_get_a_hint() -> None:
    with pytest.raises(ValueError, match="did you mean 'mobilenet'"):
        load_space("mobilenett", input_shape=(3, 32, 32), num_classes=2)
    with pytest.raises(ValueError, match="did you mean 'resnet8'"):
        preset("resnet9")
    with pytest.raises(ValueError, match="no preset"):
        preset("mobilenetv2_000")
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
