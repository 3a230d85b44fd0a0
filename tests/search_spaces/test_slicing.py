"""Weights of a smaller network, taken out of those of a larger one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hw_profiles.errors import InputError
from hw_profiles.network.channel_groups import channel_groups
from hw_profiles.network.workload import WEIGHTED
from search_spaces import Arch, build_model, preset
from search_spaces.scaled import scaled
from search_spaces.trained_weights.slicing import sliced_weights
from search_spaces.trained_weights.weights_file import read_weights
from tests.contracts import with_random_statistics

State = dict[str, Tensor]
NAMES = ("tf_efficientnet_lite0", "mobilenetv3_small_100", "semnasnet_075", "mobilenetv1_100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights for each network."""
    folder = tmp_path_factory.mktemp("weights")
    for name in NAMES:
        model = with_random_statistics(timm.create_model(name))
        for parameter in model.parameters():  # biases too, which timm has at zero
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn(len(parameter), generator=torch.Generator().manual_seed(0))
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    return folder


def part(name: str, folder: Path, **scales: float) -> tuple[Arch, Arch]:
    """A preset with its file, and a part of it with the same one."""
    whole = preset(name, input_shape=(3, 64, 64), num_classes=5, weights=folder / f"{name}.safetensors")
    return whole, scaled(whole, **scales)  # type: ignore[arg-type]


def kept_channels(whole: nn.Module, smaller: nn.Module, small: Arch) -> dict[str, Tensor]:
    """Which channels of each group stayed, found again by numbers of which no two are alike."""
    groups = channel_groups(small.workload())
    found: dict[str, Tensor] = {}
    for op in small.workload().ops:
        if op.kind in WEIGHTED and op.name != "classifier":
            key = f"{op.name}.norm.running_var" if op.normalized else op.bias_name
            before, after = whole.state_dict()[key], smaller.state_dict()[key]
            numbers = (after[:, None] == before[None]).nonzero()[:, 1]
            assert len(numbers) == len(after)
            assert torch.equal(numbers, found.setdefault(groups.of[op.name], numbers)), op.name
    return found


def reading_only(numbers: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        read = torch.zeros_like(inputs[0])
        read[:, numbers] = inputs[0][:, numbers]
        return read

    return hook


@pytest.mark.parametrize("name", NAMES)
def test_a_narrower_network_computes_what_the_whole_one_does_without_the_other_channels(
    name: str, folder: Path
) -> None:
    arch, small = part(name, folder, width=0.5)
    whole, smaller = build_model(arch).eval(), build_model(small).eval()
    kept = kept_channels(whole, smaller, small)
    assert small.workload().macs < 0.5 * arch.workload().macs
    groups = channel_groups(small.workload())
    smaller.classifier.weight.data = whole.classifier.weight.data[:, kept[groups.of["flatten"]]]
    smaller.classifier.bias.data = whole.classifier.bias.data
    for op in small.workload().ops:
        if op.kind in WEIGHTED and groups.of[op.inputs[0]] in kept:
            whole.get_submodule(op.name).register_forward_pre_hook(reading_only(kept[groups.of[op.inputs[0]]]))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = whole(x)
        torch.testing.assert_close(smaller(x), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_network_gets_all_that_the_file_holds(name: str, folder: Path) -> None:
    arch, same = part(name, folder)
    path = folder / f"{name}.safetensors"
    sliced, whole = sliced_weights(same, path), read_weights(arch, path)
    assert sliced.keys() == whole.keys()
    assert all(torch.equal(sliced[key], whole[key]) for key in whole)


def changed(folder: Path, tmp_path: Path, change: Callable[[State], object], name: str = NAMES[0]) -> Path:
    state = load_file(folder / f"{name}.safetensors")
    change(state)
    save_file(state, tmp_path / "changed.safetensors")
    return tmp_path / "changed.safetensors"


def test_channels_of_a_large_scale_or_that_are_read_strongly_stay(folder: Path, tmp_path: Path) -> None:
    def change(state: State) -> None:
        state["blocks.3.1.bn1.weight"].fill_(0.5)
        state["blocks.3.1.bn2.weight"].fill_(0.5)
        state["blocks.3.1.bn2.weight"][400:] = 5.0  # 80 of the 480 inner channels are written strongly
        state["blocks.3.1.conv_pwl.weight"][:, 100:180] *= 100.0  # and 80 are read strongly

    path = changed(folder, tmp_path, change)
    _, small = part(NAMES[0], folder, width=0.3333)
    bias = load_file(path)["blocks.3.1.bn1.bias"]
    assert small.stages[3][1].mid_channels == 160
    kept = sliced_weights(small, path)["stages.3.1.expand.norm.bias"]
    assert torch.equal(kept, torch.cat([bias[100:180], bias[400:]]))


def test_the_center_of_a_kernel_and_the_first_blocks_of_a_stage_stay(folder: Path) -> None:
    arch, small = part(NAMES[0], folder, depth=0.5, largest_kernel=3)
    assert [len(stage) for stage in small.stages] == [1, 1, 1, 2, 2, 2, 1]
    theirs, ours = load_file(folder / f"{NAMES[0]}.safetensors"), build_model(small).state_dict()
    kernels = ours["stages.5.1.depthwise.conv.weight"]
    assert torch.equal(kernels, theirs["blocks.5.1.conv_dw.weight"][:, :, 1:4, 1:4])
    assert torch.equal(ours["stages.6.0.expand.conv.weight"], theirs["blocks.6.0.conv_pw.weight"])
    assert len(arch.stages[5]) == 4


def test_a_gray_network_takes_its_part_of_the_colors_sum(folder: Path) -> None:
    _, small = part(NAMES[0], folder, width=0.5)
    gray = replace(small, input_shape=(1, 64, 64), stem=replace(small.stem, in_channels=1))
    color = build_model(small).state_dict()["stem.conv.weight"]
    torch.testing.assert_close(build_model(gray).state_dict()["stem.conv.weight"], color.sum(1, keepdim=True))


def cut(state: State, key: str, dimension: int, size: int) -> None:
    state[key] = state[key].narrow(dimension, 0, size).contiguous()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("blocks.1.0.bn2.bias"), "must hold blocks.1.0.bn2.bias, which is missing"),
        (lambda s: s.update({"blocks.1.0.other": torch.zeros(1)}), "unexpected key blocks.1.0.other"),
        (lambda s: s.update({"blocks.7.0.x": torch.zeros(1)}), "unexpected key blocks.7.0.x"),
        (lambda s: s.update({"blocks.1.²": torch.zeros(1)}), "unexpected key blocks.1.²"),
        (lambda s: cut(s, "blocks.1.0.bn2.bias", 0, 95), r"blocks.1.0.bn2.bias must have a part of the shape"),
        (lambda s: cut(s, "blocks.1.0.conv_pwl.weight", 1, 95), r"blocks.1.0.conv_pwl.weight must have a part of"),
        (lambda s: cut(s, "conv_head.weight", 0, 600), r"conv_head.weight must have a part of the shape"),
        (lambda s: cut(s, "blocks.2.0.conv_dw.weight", 2, 4), r"blocks.2.0.conv_dw.weight must have a part of"),
        (
            lambda s: s.update({"bn1.bias": torch.zeros(())}),
            r"bn1.bias must have a part of the shape \(16,\), got \(\)",
        ),
        (
            lambda s: s.update({"conv_stem.weight": torch.zeros(32, 4, 3, 3)}),
            "conv_stem.weight must read 3 channels, got 4",
        ),
    ],
)
def test_a_file_of_another_network_is_refused_in_one_line(
    change: Callable[[State], object], said: str, folder: Path, tmp_path: Path
) -> None:
    path = changed(folder, tmp_path, change)
    _, small = part(NAMES[0], folder, width=0.5, largest_kernel=3)
    with pytest.raises(InputError, match=said) as raised:
        build_model(replace(small, weights=path))
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_classifier_of_other_classes_may_have_any_shape(folder: Path, tmp_path: Path) -> None:
    path = changed(folder, tmp_path, lambda s: s.update({"classifier.weight": torch.zeros(7)}))
    _, small = part(NAMES[0], folder, width=0.5)
    assert "classifier.weight" not in sliced_weights(small, path)


def test_nothing_wider_than_the_file_can_be_built(folder: Path) -> None:
    narrow, _ = part("semnasnet_075", folder)
    wide = replace(preset("semnasnet_100", num_classes=5), weights=narrow.weights)
    with pytest.raises(InputError, match="must have a part of the shape"):
        build_model(wide)


def test_a_part_adds_no_shortcut_and_is_nowhere_wider() -> None:
    arch = preset("efficientnet_b0")
    small = scaled(arch, width=0.25)
    for (name, whole), (_, spec) in zip(arch.blocks(), small.blocks(), strict=True):
        assert spec.shortcut == whole.shortcut, name
        assert (spec.out_channels, spec.mid_channels, spec.se_channels) <= (
            whole.out_channels, whole.mid_channels, whole.se_channels
        ), name  # fmt: skip
    assert small.stages[0][0].se_channels == 8 == arch.stages[0][0].se_channels
    assert small.stages[1][0].se_channels == 4 == arch.stages[1][0].se_channels
    assert scaled(arch) == arch
