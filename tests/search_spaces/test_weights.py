"""timm's weights: from a file into the preset, and which preset a file is of."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from search_spaces import Arch, build_model, identify_weights, preset, pretrained_space
from search_spaces.trained_weights import weights_file
from search_spaces.trained_weights.weights_file import file_of_weights
from tests.contracts import check_space, with_random_statistics

State = dict[str, Tensor]
NAME = "mobilenetv3_small_050"


def saved(name: str, path: Path, **options: object) -> nn.Module:
    """timm's network with random statistics, its weights in a file; the network is in evaluation mode."""
    model = with_random_statistics(timm.create_model(name, **options))
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return model


def assert_same(ours: nn.Module, theirs: nn.Module, channels: int = 3) -> None:
    x = torch.randn(1, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(x)
        torch.testing.assert_close(ours.eval()(x), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "timm.safetensors"
    saved(NAME, path)
    return path


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        (NAME, ".safetensors"),
        ("mobilenetv1_100", ".pth"),
        ("semnasnet_075", ".pt"),
        ("mobilenetv2_035", ".bin"),
        ("efficientnet_lite0", ".safetensors"),
        ("efficientnet_b0", ".pth"),
        ("mnasnet_050", ".safetensors"),
    ],
)
def test_a_file_of_timms_is_recognized_and_gives_its_outputs(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    theirs = saved(name, path)
    assert identify_weights(path) == name
    assert_same(build_model(preset(name, weights=path)), theirs)


def test_a_file_may_say_which_of_two_networks_of_equal_tensors_it_is_of(tmp_path: Path) -> None:
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    for noted, found in (
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0"),
        ("efficientnet_lite0", "efficientnet_lite0"),
        ("mobilenetv2_100", "efficientnet_lite0"),  # not true
        ("../other", "efficientnet_lite0"),
    ):
        (tmp_path / "w.safetensors").write_bytes(file_of_weights(noted, state))
        assert identify_weights(tmp_path / "w.safetensors") == found


def test_another_number_of_classes_keeps_all_but_the_classifier(file: Path) -> None:
    arch = preset(NAME, num_classes=7, weights=file)
    loaded, fresh = build_model(arch).state_dict(), build_model(preset(NAME, num_classes=7)).state_dict()
    assert torch.equal(loaded["classifier.weight"], fresh["classifier.weight"])
    thousand = build_model(preset(NAME, weights=file)).state_dict()
    for key in set(loaded) - {"classifier.weight", "classifier.bias"}:
        assert torch.equal(loaded[key], thousand[key]), key


def test_a_file_without_a_classifier_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "features.pth"
    features = saved(NAME, path, num_classes=0)
    assert identify_weights(path) == NAME
    ours = build_model(preset(NAME, num_classes=3, weights=path))
    ours.classifier = nn.Identity()
    assert_same(ours, features)


def test_a_gray_network_sees_what_the_color_network_sees_in_gray_images(file: Path) -> None:
    gray = build_model(preset(NAME, input_shape=(1, 64, 64), weights=file)).eval()
    color = build_model(preset(NAME, input_shape=(3, 64, 64), weights=file)).eval()
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = color(x.expand(-1, 3, -1, -1))
        torch.testing.assert_close(gray(x), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_a_gray_networks_own_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "gray.safetensors"
    theirs = saved(NAME, path, in_chans=1)
    assert identify_weights(path) == NAME
    assert_same(build_model(preset(NAME, input_shape=(1, 64, 64), weights=path)), theirs, channels=1)


def test_half_precision_is_read_as_float32(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save(timm.create_model(NAME).half().state_dict(), path)
    assert {p.dtype for p in build_model(preset(NAME, weights=path)).parameters()} == {torch.float32}


def test_the_weights_are_no_part_of_the_architecture(file: Path) -> None:
    arch, plain = preset(NAME, weights=file), preset(NAME)
    assert (arch, arch.id, arch.to_json()) == (plain, plain.id, plain.to_json())
    assert hash(arch) == hash(plain)
    assert Arch.from_json(arch.to_json()).weights is None


@pytest.mark.parametrize(
    ("side", "resolutions"), [(28, (28, 56)), (32, (32, 64)), (64, (64, 48, 32, 128)), (224, (224, 168, 112))]
)
def test_a_pretrained_space_opens_resolution_width_depth_and_kernel(
    file: Path, side: int, resolutions: tuple[int, ...]
) -> None:
    space = pretrained_space(NAME, file, (3, side, side), 5)
    check_space(space, 5)
    assert space.choices["resolution"] == resolutions
    whole = space.build({"resolution": side, "width": 1.0, "depth": 1.0, "kernel": 5})
    assert whole == preset(NAME, input_shape=(3, side, side), num_classes=5)
    for name in ("width", "depth", "kernel"):
        values = space.choices[name]
        smaller = [space.build({"resolution": side, "width": 1.0, "depth": 1.0, "kernel": 5, name: v}) for v in values]
        costs = [arch.workload().macs for arch in smaller]
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] < costs[0]
        assert {arch.weights for arch in smaller} == {file}


def test_where_no_kernel_is_large_there_is_no_choice_of_it(tmp_path: Path) -> None:
    saved("mobilenetv2_035", tmp_path / "w.pth")
    assert "kernel" not in pretrained_space("mobilenetv2_035", tmp_path / "w.pth", (3, 64, 64), 5).choices


def test_a_pretrained_space_keeps_the_aspect_ratio(file: Path) -> None:
    space = pretrained_space(NAME, file, (3, 64, 128), 5)
    params = {"resolution": 32, "width": 0.5, "depth": 1.0, "kernel": 3}
    assert space.build(params).input_shape == (3, 32, 64)


def without(key: str) -> Callable[[State], object]:
    return lambda state: {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("blocks.1.0.conv_dw.weight"), r"must hold blocks.1.0.conv_dw.weight, which is missing"),
        (without("classifier.bias"), r"must hold classifier.bias, which is missing"),
        (lambda s: s | {"blocks.9.weight": torch.zeros(1)}, r"unexpected key blocks.9.weight"),
        (lambda s: s | {"bn1.bias": torch.zeros(9)}, r"bn1.bias must have the shape \(16,\), got \(9,\)"),
        (lambda s: s | {"conv_stem.weight": torch.zeros(())}, r"conv_stem.weight must have the shape"),
        (lambda s: s | {"bn1.bias": torch.zeros(16, dtype=torch.int64)}, "bn1.bias must be a dense tensor of floating"),
        (lambda s: s | {"bn1.bias": torch.zeros(16).to_sparse()}, "bn1.bias must be a dense tensor"),
        (lambda s: s | {"bn1.bias": torch.zeros(16, device="meta")}, "bn1.bias must be a dense tensor"),
        (lambda s: {"state_dict": s}, "must hold tensors by name, got .* for 'state_dict'"),
        (lambda s: list(s.values()), "must hold a state dict, got list"),
        (lambda s: nn.Linear(1, 1), "not a file of weights"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(
    change: Callable[[State], object], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.pth"
    torch.save(change(timm.create_model(NAME).state_dict()), path)
    with pytest.raises(ValueError, match=said) as raised:
        preset(NAME, weights=path)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
def test_other_files_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"noise{suffix}"
    path.write_bytes(b"\x80\x02noise" * 9)
    for refused in (path, tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(ValueError, match=refused.name):
            identify_weights(refused)


def test_a_small_archive_that_unpacks_to_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"conv_stem.weight": torch.zeros(100_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry.filename))
    monkeypatch.setattr(weights_file, "_LARGEST_FILE", 50_000)
    assert packed.stat().st_size < 50_000
    with pytest.raises(ValueError, match="must have at most 50000 bytes, unpacked, got 400"):
        identify_weights(packed)


def test_the_weights_of_no_preset_are_named_as_such(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(ValueError, match=r"does not match any preset \(valid: mobilenetv1_100, .*lite0\)"):
        identify_weights(path)
    with pytest.raises(ValueError, match="there is no such architecture in timm"):
        preset("resnet8", weights=file)
    with pytest.raises(ValueError, match="must have the shape"):
        preset("mobilenetv3_small_075", weights=file)
