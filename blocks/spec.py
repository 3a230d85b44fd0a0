"""One block as data: resolved integers, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

ACTIVATIONS = ("none", "relu", "relu6", "hard_swish", "silu", "sigmoid", "hard_sigmoid")
GATES = ("sigmoid", "hard_sigmoid")
PADDINGS = ("symmetric", "same")
SHORTCUTS = ("none", "identity", "projection")
_POOLING_KINDS = ("pooled_conv",)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSpec:
    """A building block with every width written out.

    ``mid_channels`` are the inner channels: the expanded ones of an inverted residual, the ones between both
    convolutions of a residual block, 0 for kinds that have none. ``se_channels`` is the squeezed width of the
    squeeze-excite part, 0 without one. ``padding`` is ``"symmetric"`` (k // 2 on each side) or ``"same"`` (as
    TensorFlow pads: the odd pixel at the bottom and right). ``output_activation`` follows the last convolution of a
    separable or inverted block.

    Raises:
        ValueError: a field that no block can have, named with what is valid.

    >>> BlockSpec(kind="conv", in_channels=3, out_channels=8, stride=2).kernel_size
    3
    """

    kind: str
    in_channels: int
    out_channels: int
    kernel_size: int = 3
    stride: int = 1
    mid_channels: int = 0
    activation: str = "relu"
    output_activation: str = "none"
    se_channels: int = 0
    se_activation: str = "relu"
    gate: str = "sigmoid"
    shortcut: str = "none"
    padding: str = "symmetric"
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "kernel_size", "stride"):
            _require_int(name, getattr(self, name), at_least=1)
        for name in ("mid_channels", "se_channels"):
            _require_int(name, getattr(self, name), at_least=0)
        if not isinstance(self.kind, str):
            raise ValueError(f"BlockSpec.kind must be text, got {self.kind!r}")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"BlockSpec.kernel_size must be odd, got {self.kernel_size}")
        for name, valid in (
            ("activation", ACTIVATIONS),
            ("output_activation", ACTIVATIONS),
            ("se_activation", ACTIVATIONS),
            ("gate", GATES),
            ("shortcut", SHORTCUTS),
            ("padding", PADDINGS),
        ):
            if getattr(self, name) not in valid:
                raise ValueError(f"BlockSpec.{name} must be one of {', '.join(valid)}, got {getattr(self, name)!r}")
        if not self.norm_eps > 0:
            raise ValueError(f"BlockSpec.norm_eps must be above 0, got {self.norm_eps}")
        if self.shortcut == "identity" and (self.in_channels != self.out_channels or self.stride != 1):
            raise ValueError(
                "BlockSpec.shortcut 'identity' needs stride 1 and in_channels == out_channels, "
                f"got stride {self.stride}, {self.in_channels} and {self.out_channels} channels"
            )

    @property
    def pools(self) -> bool:
        """Whether the output has one position, whatever the size of the input."""
        return self.kind in _POOLING_KINDS

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> BlockSpec:
        """The inverse of :meth:`to_dict`; an unknown or missing field is a ValueError."""
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"BlockSpec: {error}") from None


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels before and after one axis so that the output has ceil(size / stride) of them, as TensorFlow pads.

    >>> same_padding(32, 3, 2)
    (0, 1)
    """
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def _require_int(name: str, value: object, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"BlockSpec.{name} must be an integer of at least {at_least}, got {value!r}")
