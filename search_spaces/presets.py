"""Known networks as Archs, under timm's names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from blocks.spec import BlockSpec
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean
from search_spaces.arch import Arch
from search_spaces.families import FAMILIES, Family, Row
from search_spaces.layout import block, round_width


def list_presets() -> list[str]:
    """Return the names for :func:`preset`; NNN at the end of a name stands for a width multiplier in percent.

    >>> list_presets()[:4]
    ['resnet8', 'mobilenetv1_100', 'mobilenetv1_125', 'mobilenetv2_035']
    """
    return [
        name
        for key, family in FAMILIES.items()
        for name in ([f"{key}_{percent:03}" for percent in family.percents] or [key])
    ]


def preset(
    name: str,
    *,
    input_shape: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
    weights: Path | str | None = None,
) -> Arch:
    """Return a preset architecture, by default with its published input size and number of classes.

    ``resnet8`` is the image classifier of MLPerf Tiny (2106.07597); all others are the timm networks of that name, with
    timm's rounding of widths: MobileNetV1 (1704.04861), V2 (1801.04381) and V3 (1905.02244), MnasNet (1807.11626),
    EfficientNet (1905.11946).

    Args:
        name: a name of :func:`list_presets`.
        input_shape: (C, H, W).
        num_classes: number of classes.
        weights: a timm checkpoint used to initialize ``build_model``: a state dict as ``.safetensors``, ``.pth``,
            ``.pt`` or ``.bin``. The classifier is re-initialized if the number of classes differs; for grayscale images
            the weights of the stem are summed over the colors.

    Returns:
        The architecture.

    Raises:
        InputError: an unknown preset, or a file that does not contain its weights.

    >>> preset("mobilenetv2_100").workload().params
    3504872
    """
    family, width = _find(name)
    arch = _build(
        family, width, input_shape or family.input_shape, family.num_classes if num_classes is None else num_classes
    )
    if weights is None:
        return arch
    from search_spaces.trained_weights.weights_file import read_weights

    read_weights(arch, Path(weights))
    return replace(arch, weights=Path(weights))


def _find(name: str) -> tuple[Family, float]:
    """The family of a name, and the factor of its widths."""
    scaled = re.fullmatch(r"(.+)_(\d{3})", name)
    family = FAMILIES.get(scaled[1] if scaled else name)
    if family is None or bool(scaled) != bool(family.percents) or (scaled and int(scaled[2]) == 0):
        hint = did_you_mean(name, list_presets())
        raise InputError(f"unknown preset {name!r}{hint} (valid: {', '.join(list_presets())})")
    return family, int(scaled[2]) / 100 if scaled else 1.0


def _build(family: Family, width: float, input_shape: tuple[int, int, int], num_classes: int) -> Arch:
    stem = BlockSpec(
        kind="conv",
        in_channels=input_shape[0],
        out_channels=family.stem if width < family.fixed_stem_below else round_width(family.stem * width),
        stride=family.stem_stride,
        activation=family.activation,
        padding=family.padding,
        norm_eps=family.norm_eps,
    )
    stages, channels = [], stem.out_channels
    for rows in family.stages:
        stage = []
        for row in rows:
            for j in range(row.depth):
                stage.append(_block(family, row, channels, round_width(row.width * width), row.stride if j == 0 else 1))
                channels = stage[-1].out_channels
        stages.append(tuple(stage))
    head = None
    if family.head:
        head = BlockSpec(
            kind=family.head_kind,
            in_channels=channels,
            out_channels=max(family.head, round_width(family.head * width)) if family.head_grows else family.head,
            kernel_size=1,
            activation=family.activation,
            norm_eps=family.norm_eps,
        )
    return Arch(input_shape=input_shape, stem=stem, stages=tuple(stages), head=head, num_classes=num_classes)


def _block(family: Family, row: Row, in_channels: int, out_channels: int, stride: int) -> BlockSpec:
    activation = row.activation or family.activation
    bare = row.kind == "separable" and family.bare_separable
    return block(
        row.kind,
        in_channels,
        out_channels,
        stride,
        expansion=row.expansion,
        kernel_size=row.kernel,
        activation=activation,
        output_activation=activation if bare else "none",
        se_channels=_squeezed(family, row, in_channels) if row.se else 0,
        se_activation=family.se_activation,
        gate=family.gate,
        padding=family.padding,
        norm_eps=family.norm_eps,
        **({"shortcut": "none"} if bare else {}),
    )


def _squeezed(family: Family, row: Row, in_channels: int) -> int:
    if family.squeeze_expanded:
        return round_width(round_width(in_channels * row.expansion) * 0.25)
    return round(in_channels * 0.25)
