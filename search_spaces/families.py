"""Published tables of known networks; ``presets.py`` turns them into Archs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Row(NamedTuple):
    """``depth`` blocks of one kind, the first with the stride; None is what the family uses."""

    kind: str
    width: int
    depth: int = 1
    stride: int = 1
    kernel: int = 3
    expansion: float = 1.0
    se: bool = False
    activation: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Networks of one table, at any width where ``percents`` (those that are listed) is not empty.

    ``head`` is the width of the last convolution, 0 without; it ``head_grows`` with a width above 1. The stem keeps its
    width below ``fixed_stem_below``. ``squeeze_expanded``: squeeze-excite has a quarter of the expanded channels, in
    multiples of 8, and not of the block's input. ``bare_separable``: separable blocks end in an activation and have no
    shortcut.
    """

    stem: int
    stages: tuple[tuple[Row, ...], ...]
    percents: tuple[int, ...] = ()
    stem_stride: int = 2
    fixed_stem_below: float = 0.0
    head: int = 0
    head_kind: str = "conv"
    head_grows: bool = False
    activation: str = "relu"
    se_activation: str = "relu"
    gate: str = "sigmoid"
    squeeze_expanded: bool = False
    bare_separable: bool = False
    padding: str = "symmetric"
    norm_eps: float = 1e-5
    input_shape: tuple[int, int, int] = (3, 224, 224)
    num_classes: int = 1000


_MBCONV, _DS = "inverted_residual", "separable"


def _mobilenetv3(stem_stages: tuple[tuple[Row, ...], ...], last: int, head: int, percents: tuple[int, ...]) -> Family:
    return Family(
        stem=16,
        stages=(*stem_stages, (Row("conv", last, kernel=1),)),
        percents=percents,
        fixed_stem_below=0.75,
        head=head,
        head_kind="pooled_conv",
        activation="hard_swish",
        gate="hard_sigmoid",
        squeeze_expanded=True,
    )


def _efficientnet(se: bool, activation: str, padding: str = "symmetric", norm_eps: float = 1e-5) -> Family:
    return Family(
        stem=32,
        stages=(
            (Row(_DS, 16, se=se),),
            (Row(_MBCONV, 24, 2, 2, 3, 6, se),),
            (Row(_MBCONV, 40, 2, 2, 5, 6, se),),
            (Row(_MBCONV, 80, 3, 2, 3, 6, se),),
            (Row(_MBCONV, 112, 3, 1, 5, 6, se),),
            (Row(_MBCONV, 192, 4, 2, 5, 6, se),),
            (Row(_MBCONV, 320, 1, 1, 3, 6, se),),
        ),
        head=1280,
        activation=activation,
        se_activation=activation,
        padding=padding,
        norm_eps=norm_eps,
    )


FAMILIES: dict[str, Family] = {
    # MLPerf Tiny, 2106.07597
    "resnet8": Family(
        stem=16,
        stem_stride=1,
        stages=((Row("residual", 16),), (Row("residual", 32, stride=2),), (Row("residual", 64, stride=2),)),
        padding="same",
        norm_eps=1e-3,
        input_shape=(3, 32, 32),
        num_classes=10,
    ),
    # 1704.04861
    "mobilenetv1": Family(
        stem=32,
        stages=(
            (Row(_DS, 64),),
            (Row(_DS, 128, 2, 2),),
            (Row(_DS, 256, 2, 2),),
            (Row(_DS, 512, 6, 2),),
            (Row(_DS, 1024, 2, 2),),
        ),
        percents=(100, 125),
        activation="relu6",
        bare_separable=True,
    ),
    # 1801.04381, table 2
    "mobilenetv2": Family(
        stem=32,
        stages=(
            (Row(_DS, 16),),
            (Row(_MBCONV, 24, 2, 2, 3, 6),),
            (Row(_MBCONV, 32, 3, 2, 3, 6),),
            (Row(_MBCONV, 64, 4, 2, 3, 6),),
            (Row(_MBCONV, 96, 3, 1, 3, 6),),
            (Row(_MBCONV, 160, 3, 2, 3, 6),),
            (Row(_MBCONV, 320, 1, 1, 3, 6),),
        ),
        percents=(35, 50, 75, 100, 140),
        head=1280,
        head_grows=True,
        activation="relu6",
    ),
    # 1905.02244, table 2
    "mobilenetv3_small": _mobilenetv3(
        (
            (Row(_DS, 16, stride=2, se=True, activation="relu"),),
            (
                Row(_MBCONV, 24, 1, 2, 3, 4.5, activation="relu"),
                Row(_MBCONV, 24, 1, 1, 3, 3.67, activation="relu"),
            ),
            (Row(_MBCONV, 40, 1, 2, 5, 4, se=True), Row(_MBCONV, 40, 2, 1, 5, 6, se=True)),
            (Row(_MBCONV, 48, 2, 1, 5, 3, se=True),),
            (Row(_MBCONV, 96, 3, 2, 5, 6, se=True),),
        ),
        576,
        1024,
        (50, 75, 100),
    ),
    # 1905.02244, table 1
    "mobilenetv3_large": _mobilenetv3(
        (
            (Row(_DS, 16, activation="relu"),),
            (Row(_MBCONV, 24, 1, 2, 3, 4, activation="relu"), Row(_MBCONV, 24, 1, 1, 3, 3, activation="relu")),
            (Row(_MBCONV, 40, 3, 2, 5, 3, se=True, activation="relu"),),
            (Row(_MBCONV, 80, 1, 2, 3, 6), Row(_MBCONV, 80, 1, 1, 3, 2.5), Row(_MBCONV, 80, 2, 1, 3, 2.3)),
            (Row(_MBCONV, 112, 2, 1, 3, 6, se=True),),
            (Row(_MBCONV, 160, 3, 2, 5, 6, se=True),),
        ),
        960,
        1280,
        (75, 100),
    ),
    # B1 of 1807.11626
    "mnasnet": Family(
        stem=32,
        stages=(
            (Row(_DS, 16),),
            (Row(_MBCONV, 24, 3, 2, 3, 3),),
            (Row(_MBCONV, 40, 3, 2, 5, 3),),
            (Row(_MBCONV, 80, 3, 2, 5, 6),),
            (Row(_MBCONV, 96, 2, 1, 3, 6),),
            (Row(_MBCONV, 192, 4, 2, 5, 6),),
            (Row(_MBCONV, 320, 1, 1, 3, 6),),
        ),
        percents=(50, 75, 100, 140),
        head=1280,
    ),
    # A1 of 1807.11626: with squeeze-excite
    "semnasnet": Family(
        stem=32,
        stages=(
            (Row(_DS, 16),),
            (Row(_MBCONV, 24, 2, 2, 3, 6),),
            (Row(_MBCONV, 40, 3, 2, 5, 3, se=True),),
            (Row(_MBCONV, 80, 4, 2, 3, 6),),
            (Row(_MBCONV, 112, 2, 1, 3, 6, se=True),),
            (Row(_MBCONV, 160, 3, 2, 5, 6, se=True),),
            (Row(_MBCONV, 320, 1, 1, 3, 6),),
        ),
        percents=(75, 100),
        head=1280,
    ),
    # 1905.11946
    "efficientnet_b0": _efficientnet(se=True, activation="silu"),
    "efficientnet_lite0": _efficientnet(se=False, activation="relu6"),
    # The same as its authors trained it, in TensorFlow
    "tf_efficientnet_lite0": _efficientnet(se=False, activation="relu6", padding="same", norm_eps=1e-3),
}
