"""Known networks as Archs."""

from __future__ import annotations

import re

from blocks.spec import BlockSpec
from hw_profiles.names import did_you_mean
from search_spaces.arch import Arch

_MOBILENETV2_STAGES = (  # expansion, width, depth, stride: table 2 of 1801.04381
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_DEFAULT_SHAPES = {"resnet8": ((3, 32, 32), 10), "mobilenetv2": ((3, 224, 224), 1000)}


def list_presets() -> list[str]:
    """Names for :func:`preset`; ``mobilenetv2_NNN`` takes any width in percent.

    >>> list_presets()
    ['resnet8', 'mobilenetv2_035', 'mobilenetv2_050', 'mobilenetv2_075', 'mobilenetv2_100', 'mobilenetv2_140']
    """
    return ["resnet8", *(f"mobilenetv2_{percent:03}" for percent in (35, 50, 75, 100, 140))]


def preset(name: str, *, input_shape: tuple[int, int, int] | None = None, num_classes: int | None = None) -> Arch:
    """A known network, at its published input size and classes unless others are given.

    ``resnet8`` is the image classifier of MLPerf Tiny (2106.07597), ``mobilenetv2_NNN`` MobileNetV2 (1801.04381) at
    NNN percent of the width, under timm's names and with timm's rounding of widths.

    Raises:
        ValueError: no preset has that name.

    >>> preset("mobilenetv2_100").workload().params
    3504872
    """
    width = re.fullmatch(r"mobilenetv2_(\d{3})", name)
    if name != "resnet8" and (width is None or int(width[1]) == 0):
        hint = did_you_mean(name, list_presets())
        raise ValueError(f"no preset is called {name!r}{hint} (valid: {', '.join(list_presets())})")
    shape, classes = _DEFAULT_SHAPES["mobilenetv2" if width else name]
    shape, classes = input_shape or shape, classes if num_classes is None else num_classes
    return mobilenetv2(int(width[1]) / 100, shape, classes) if width else resnet8(shape, classes)


def resnet8(input_shape: tuple[int, int, int], num_classes: int) -> Arch:
    """The residual network of MLPerf Tiny: three stages of one residual block, 16 to 64 channels.

    >>> resnet8((3, 32, 32), 10).workload().weight_count
    77706
    """
    stem = BlockSpec(kind="conv", in_channels=input_shape[0], out_channels=16, padding="same", norm_eps=1e-3)
    stages, channels = [], 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        shortcut = "identity" if stride == 1 else "projection"
        block = BlockSpec(
            kind="residual",
            in_channels=channels,
            out_channels=width,
            mid_channels=width,
            stride=stride,
            shortcut=shortcut,
            padding="same",
            norm_eps=1e-3,
        )
        stages.append((block,))
        channels = width
    return Arch(input_shape=input_shape, stem=stem, stages=tuple(stages), head=None, num_classes=num_classes)


def mobilenetv2(width: float, input_shape: tuple[int, int, int], num_classes: int) -> Arch:
    """MobileNetV2 with all widths times ``width`` in multiples of 8; the last 1280 channels only ever grow.

    >>> mobilenetv2(0.35, (3, 96, 96), 2).features
    1280
    """
    stem = BlockSpec(
        kind="conv", in_channels=input_shape[0], out_channels=round_width(32 * width), stride=2, activation="relu6"
    )
    stages, channels = [], stem.out_channels
    for expansion, base, depth, stride in _MOBILENETV2_STAGES:
        out = round_width(base * width)
        stage = []
        for j in range(depth):
            first = stride if j == 0 else 1
            stage.append(
                BlockSpec(
                    kind="separable" if expansion == 1 else "inverted_residual",
                    in_channels=channels,
                    out_channels=out,
                    mid_channels=0 if expansion == 1 else channels * expansion,
                    stride=first,
                    activation="relu6",
                    shortcut="identity" if first == 1 and channels == out else "none",
                )
            )
            channels = out
        stages.append(tuple(stage))
    features = max(1280, round_width(1280 * width))
    head = BlockSpec(kind="conv", in_channels=channels, out_channels=features, kernel_size=1, activation="relu6")
    return Arch(input_shape=input_shape, stem=stem, stages=tuple(stages), head=head, num_classes=num_classes)


def round_width(width: float, multiple: int = 8) -> int:
    """The nearest multiple, at least one, never less than 90 % of ``width``.

    >>> round_width(11.2), round_width(33.6)
    (16, 32)
    """
    rounded = max(multiple, int(width + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * width else rounded
