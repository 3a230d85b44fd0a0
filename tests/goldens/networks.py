"""The networks whose results are recorded: of each kind of source, small, with weights drawn by a seed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping

import timm
import torch
from torch import Tensor, nn

from compress import Artifact, Preprocessing
from compress.networks.network_source import GivenModule, OnnxFile, Timm
from search_spaces import build_model, preset
from tests.contracts import with_random_statistics

CLASSES = tuple("0123456789")
ARCHS = ("resnet8", "mobilenetv2_035", "mobilenetv3_small_050", "mnasnet_050")
TIMM = {
    "test_resnet": 32, "test_byobnet": 32, "test_efficientnet": 32, "test_efficientnet_gn": 32, "test_nfnet": 32,
    "test_vit": 32, "test_convnext": 32, "mobilenetv3_small_050": 32, "lcnet_035": 32, "regnetx_002": 32,
    "ghostnet_100": 32, "densenet121": 32,
}  # fmt: skip
_WITH_SIZE = ("test_vit",)


class Gated(nn.Module):
    """What MobileNetV3 and EfficientNet are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.SiLU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Hardsigmoid()
        )
        self.last = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.deep(x)
        return self.classifier((self.last(y * self.gate(y)) + x).mean((2, 3)))


class Shuffled(nn.Module):
    """Channels that change places between grouped convolutions, and halves that go two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.grouped, self.left = nn.Conv2d(16, 16, 1, groups=4), nn.Conv2d(8, 8, 3, 1, 1)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.stem(x))
        n, c, h, w = x.shape
        left, right = x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w).chunk(2, 1)
        return self.classifier(torch.cat([self.left(left), right], 1).mean((2, 3)))


class Dense(nn.Module):
    """Normalized before the convolution, and joined with what it read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12)
        self.grow, self.classifier = nn.Conv2d(12, 8, 3, 1, 1), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.classifier(torch.cat([x, self.grow(self.norm(x).relu())], 1).mean((2, 3)))


class Attending(nn.Module):
    """Products of two tensors between linear layers of many positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 24, 8, 8), nn.LayerNorm(24)
        self.qkv, self.out, self.classifier = nn.Linear(24, 72), nn.Linear(24, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out((q @ k.transpose(1, 2) * 24**-0.5).softmax(-1) @ v)
        return self.classifier(x.mean(1))


class SumsSoFar(nn.Module):
    """An operation that has no words here."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * x.cumsum(3)


def _around(layer: nn.Module, channels: int = 16) -> nn.Module:
    """One layer between a convolution and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), layer, nn.Conv2d(channels, 16, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


FILES: Mapping[str, tuple[Callable[[], nn.Module], int]] = {  # the module and the opset of its file
    "gated": (Gated, 17),
    "gated, opset 13": (Gated, 13),
    "shuffled": (Shuffled, 17),
    "dense": (Dense, 17),
    "attending": (Attending, 20),
    "transposed convolution": (lambda: _around(nn.ConvTranspose2d(16, 8, 2, 2), 8), 17),
    "pixels moved": (lambda: _around(nn.PixelShuffle(2), 4), 17),
    "slopes": (lambda: _around(nn.PReLU(16)), 17),
    "sums so far": (lambda: _around(SumsSoFar()), 17),
    "pools": (lambda: _around(nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 2, ceil_mode=True))), 17),
}


def record(size: int) -> Preprocessing:
    return Preprocessing(channels=3, sizes=((size, size),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=CLASSES)


def of_arch(name: str) -> Artifact:
    torch.manual_seed(0)
    arch = preset(name, input_shape=(3, 32, 32), num_classes=10)
    artifact = Artifact(source=arch, weights={}, preprocessing=record(32))
    return artifact.with_model(with_random_statistics(build_model(arch)))


def of_timm(name: str) -> Artifact:
    torch.manual_seed(0)
    size = TIMM[name]
    kwargs = {"img_size": size} if name in _WITH_SIZE else {}
    source = Timm(name=name, input_shape=(3, size, size), kwargs={"num_classes": 10, **kwargs})
    model = timm.create_model(name, num_classes=10, **kwargs)
    return Artifact(source=source, weights={}, preprocessing=record(size)).with_model(with_random_statistics(model))


def module(name: str) -> nn.Module:
    torch.manual_seed(0)
    return with_random_statistics(FILES[name][0]())


def of_file(name: str) -> Artifact:
    file = OnnxFile(data=exported(module(name), FILES[name][1]))
    return Artifact(source=file, weights={}, preprocessing=record(32))


def of_module(model: nn.Module, size: int = 32) -> Artifact:
    source = GivenModule(module=model, stated_shape=(3, size, size))
    return Artifact(source=source, weights={}, preprocessing=record(size)).with_model(model)


def exported(model: nn.Module, opset: int = 17, size: int = 32) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (torch.zeros(1, 3, size, size),), buffer, dynamo=False, opset_version=opset,
                          input_names=["images"], output_names=["logits"],
                          dynamic_axes={"images": {0: "N"}, "logits": {0: "N"}})  # fmt: skip
    return buffer.getvalue()
