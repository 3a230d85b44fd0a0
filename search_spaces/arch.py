"""An Arch: a network as data."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from blocks.spec import BlockSpec
from hw_profiles.errors import InputError
from hw_profiles.network.workload import Workload, WorkloadBuilder
from search_spaces.lowering import lower_block

ARCH_SCHEMA = 1
_LARGEST_SIZE = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class Arch:
    """A classifier as data: stem, stages of blocks, an optional last convolution ``head``, global mean, linear layer.

    ``input_shape`` is (channels, height, width). Archs with equal specs compare equal and have the same ``id``. A head
    that pools replaces the global mean. ``weights`` is a timm checkpoint, of this network or of a wider or deeper one,
    that initializes ``build_model``; it is not part of the architecture: neither compared nor in the JSON.

    Raises:
        InputError: the channels of adjacent blocks differ, a dimension of the input is below 1, there are no classes,
            or a block other than the head pools.

    >>> from search_spaces import preset
    >>> arch = preset("resnet8")
    >>> arch.workload().macs, Arch.from_json(arch.to_json()) == arch
    (12501632, True)
    """

    input_shape: tuple[int, int, int]
    stem: BlockSpec
    stages: tuple[tuple[BlockSpec, ...], ...]
    head: BlockSpec | None
    num_classes: int
    weights: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise InputError(f"Arch.input_shape must be three sizes (channels, height, width), got {self.input_shape}")
        if self.num_classes < 1:
            raise InputError(f"Arch.num_classes must be at least 1, got {self.num_classes}")
        if not all(self.stages):
            raise InputError("Arch.stages: every stage must have at least one block")
        channels = self.input_shape[0]
        for name, spec in self.blocks():
            if spec.in_channels != channels:
                raise InputError(f"{name}.in_channels must be {channels}, got {spec.in_channels}")
            if spec.pools and name != "head":
                raise InputError(f"{name}.kind must not pool before the head, got {spec.kind!r}")
            channels = spec.out_channels

    @property
    def head_pools(self) -> bool:
        """Whether the head leaves one position, so that no global mean follows."""
        return self.head is not None and self.head.pools

    @property
    def features(self) -> int:
        """Channels that the classifier reads."""
        return [spec for _, spec in self.blocks()][-1].out_channels

    def blocks(self) -> Iterator[tuple[str, BlockSpec]]:
        """Every block with its place: ``stem``, ``stages.0.0``, …, ``head``."""
        yield "stem", self.stem
        for i, stage in enumerate(self.stages):
            for j, spec in enumerate(stage):
                yield f"stages.{i}.{j}", spec
        if self.head is not None:
            yield "head", self.head

    def summary(self) -> str:
        """One line to read: the input, and each run of like blocks with kernel size, widths and squeeze-excite.

        >>> from search_spaces import preset
        >>> preset("resnet8").summary()
        '3×32×32 | conv 3×3 16 | residual 3×3 16 | residual 3×3 32 | residual 3×3 64 | 10 classes'
        """
        parts = ["×".join(map(str, self.input_shape))]
        for stage in ((self.stem,), *self.stages, *(() if self.head is None else ((self.head,),))):
            for (kind, kernel, squeezes), group in itertools.groupby(
                stage, key=lambda spec: (spec.kind, spec.kernel_size, spec.se_channels > 0)
            ):
                widths = ", ".join(str(spec.out_channels) for spec in group)
                squeeze = " SE" if squeezes else ""
                parts.append(f"{kind.replace('_', ' ')} {kernel}×{kernel} {widths}{squeeze}")
        return " | ".join([*parts, f"{self.num_classes} classes"])

    def workload(self) -> Workload:
        """The operations, batch normalization folded; an InputError where the input is too small for the strides."""
        builder = WorkloadBuilder("input", (1, *self.input_shape))
        x = "input"
        for name, spec in self.blocks():
            x = lower_block(builder, name, x, spec)
        return builder.build(_classify(builder, x, self.head_pools, self.num_classes))

    def parts(self) -> tuple[Workload, ...]:
        """The workload cut between its blocks: each part reads what the one before it makes. Equal blocks at equal
        places share one object.

        >>> from search_spaces import preset
        >>> arch = preset("resnet8")
        >>> sum(part.macs for part in arch.parts()) == arch.workload().macs
        True
        """
        specs = [self.stem, *chain.from_iterable(self.stages)]
        if self.head is not None:
            specs.append(self.head)
        shape: tuple[int, ...] = (1, *self.input_shape)
        parts = []
        for spec in specs[:-1]:
            part = _block_part(spec, shape)
            parts.append(part)
            shape = part.shapes[part.output]
        return (*parts, _last_part(specs[-1], shape, self.head_pools, self.num_classes))

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the specs."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """JSON types, with the schema version."""
        fields = asdict(self)
        del fields["weights"]
        return {"schema": ARCH_SCHEMA, **fields}

    def to_json(self) -> str:
        """The inverse of :meth:`from_json`."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Arch:
        """The inverse of :meth:`to_dict`; an InputError names what is wrong."""
        if data.get("schema") != ARCH_SCHEMA:
            raise InputError(f"Arch: schema must be {ARCH_SCHEMA}, got {data.get('schema')!r}")
        try:
            c, h, w = (_whole("input_shape", side) for side in data["input_shape"])
            return cls(
                input_shape=(c, h, w),
                stem=BlockSpec.from_dict(data["stem"]),
                stages=tuple(tuple(BlockSpec.from_dict(b) for b in stage) for stage in data["stages"]),
                head=None if data["head"] is None else BlockSpec.from_dict(data["head"]),
                num_classes=_whole("num_classes", data["num_classes"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"Arch: not the JSON of an architecture ({error!r})") from None
        except ValueError as error:  # of a BlockSpec, which knows no errors but Python's own
            raise InputError(str(error)) from None

    @classmethod
    def from_json(cls, text: str) -> Arch:
        """Parse what :meth:`to_json` wrote; an InputError names what is wrong."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:  # also a number of too many digits
            raise InputError(f"Arch: not JSON ({error})") from None
        if not isinstance(data, dict):
            raise InputError("Arch: not the JSON of an architecture")
        return cls.from_dict(data)


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST_SIZE:
        raise InputError(f"Arch.{name} must be integers between 1 and {_LARGEST_SIZE}, got {value!r:.100}")
    return value


@lru_cache(maxsize=50_000)
def _block_part(spec: BlockSpec, shape: tuple[int, ...]) -> Workload:
    builder = WorkloadBuilder("input", shape)
    return builder.build(lower_block(builder, "block", "input", spec))


@lru_cache(maxsize=50_000)
def _last_part(spec: BlockSpec, shape: tuple[int, ...], pools: bool, num_classes: int) -> Workload:
    builder = WorkloadBuilder("input", shape)
    x = lower_block(builder, "block", "input", spec)
    return builder.build(_classify(builder, x, pools, num_classes))


def _classify(builder: WorkloadBuilder, x: str, pools: bool, num_classes: int) -> str:
    if not pools:
        x = builder.global_avg_pool("pool", x)
    return builder.linear("classifier", builder.flatten("flatten", x), num_classes)
