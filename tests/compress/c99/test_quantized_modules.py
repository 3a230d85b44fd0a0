"""Every int8 file that the quantizer writes of a module becomes a program that is verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import compress
from compress.c99 import verify, write_c99


class Between(nn.Module):
    """A function between a convolution and a linear layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.linear = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(self.function(self.conv(x)))
        return result


class ManyKinds(nn.Module):
    """A little of everything that was refused once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.BatchNorm2d(8))
        self.next = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
        self.gate = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardswish(), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.free, self.body = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8)
        nn.init.uniform_(self.free.weight, 2, 3)
        self.head = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))
        self.scale = nn.Parameter(torch.linspace(0.2, 1, 8).view(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.next(torch.tanh(self.stem(x)))
        x = x * self.gate(x.mean((2, 3), keepdim=True)) * self.scale
        x = x + (self.free(x) - torch.tanh(x)) * self.scale
        x = nn.functional.silu(self.body(nn.functional.pad(x, (-1, -1, 1, 2))))
        a, b = nn.functional.interpolate(x, scale_factor=2.0).chunk(2, 1)
        x = nn.functional.max_pool2d(torch.cat([b, a], 1), 3, 2, ceil_mode=True)
        result: torch.Tensor = self.head(torch.relu(x - 0.1).mean(3).mean(2))
        return result


def pictures(side: int = 16) -> NDArray[np.uint8]:
    r = np.random.default_rng(0)
    return np.clip(
        r.integers(0, 255, (6, side, side, 3)) * 0.6 + r.integers(0, 100, (6, side, side, 3)), 0, 255
    ).astype(np.uint8)


def program_of(module: nn.Module, folder: Path, x: NDArray[np.uint8]) -> None:
    quantized = compress.quantize(
        module.eval(),
        x,
        compress.Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False),
    )
    compress.export_onnx(quantized, folder / "model.onnx")
    write_c99(folder / "model.onnx", folder / "c")
    result = verify(folder / "c", folder / "model.onnx", machines=["host"], layer_images=1)
    assert result.problems == ()
    assert result.machines[0].exact == result.machines[0].values


def test_a_module_of_many_kinds_becomes_a_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program_of(ManyKinds(), tmp_path, pictures())


class Segmenter(nn.Module):
    """Begins with a padding that is worked out of the sides of the image, as TensorFlow's SAME, and ends in a linear
    Resize, whose results no one quantizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = (max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in x.shape[-2:])
        x = nn.functional.pad(x, [width // 2, width - width // 2, height // 2, height - height // 2])
        x = torch.relu(self.conv(x))
        return nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")


@pytest.mark.parametrize(
    "up",
    [nn.ConvTranspose2d(8, 4, 2, 2), nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2), nn.ConvTranspose2d(8, 3, 3, 2, 1, 1)],
)
def test_a_decoder_that_ends_in_a_transposed_convolution_is_a_program(up: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    middle = [nn.ConvTranspose2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()]
    program_of(nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), *middle, up), tmp_path, pictures())


class Sums(nn.Module):
    """Ends in a sum over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).sum((2, 3))


class Classes(Sums):
    """Ends in a softmax."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).softmax(1)


class Shifted(Sums):
    """Makes no tensor that is integers in the file as well."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.hardswish(torch.relu(self.conv(x)) - 0.3)


@pytest.mark.parametrize("module", [Segmenter, Sums, Classes, Shifted])
def test_a_network_may_end_in_what_stays_in_float(module: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    program_of(module(), tmp_path, pictures(8))


class Transformer(nn.Module):
    """Patches and a class token, attention of two heads with a bias for each pair, a normalization of groups and linear interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.group = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.GroupNorm(2, 8)
        self.mix = nn.Conv2d(8, 8, 1)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 2, 65, 65).clamp_min(-1))
        self.qkv, self.out, self.last = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.interpolate(self.patches(x), scale_factor=2.0, mode="bilinear")
        x = self.mix(nn.functional.gelu(x))
        x = self.mix(self.group(x))
        x = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = self.norm(x)
        q, k, v = self.qkv(x).reshape(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        weights = ((0.7 * q) @ (0.7 * k.transpose(-2, -1)) / 2 + self.places).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(x.shape))
        result: torch.Tensor = self.last(nn.functional.gelu(x)[:, 0])
        return result


def test_attention_becomes_a_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program_of(Transformer(), tmp_path, pictures())


MODULES: dict[str, Callable[[], nn.Module]] = {
    "hardswish, flatten": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(16, 32, 1),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Linear(32, 3),
    ),
    "written hard-swish": lambda: Between(lambda z: (z * nn.functional.relu6(z + 3) / 6).mean((2, 3))),
    "mean of a mean": lambda: Between(lambda z: torch.relu(z).mean(3).mean(2)),
    "mean of an image less its mean": lambda: Between(lambda z: (z - z.mean((2, 3), keepdim=True)).mean((2, 3))),
    "layer scale": lambda: Between(lambda z: torch.relu(z * torch.linspace(0.1, 1, 16).view(1, -1, 1, 1)).mean((2, 3))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_each_module_becomes_a_program(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    program_of(MODULES[name](), tmp_path, pictures())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "lcnet_035"])
def test_networks_of_timm_become_programs(name: str, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    program_of(timm.create_model(name, num_classes=3), tmp_path, pictures(32))
