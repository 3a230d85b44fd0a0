"""The source of a network: an Arch, a timm model, an ONNX file, or a module given for one call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn, TypeVar

import torch
from onnx import TensorProto
from torch import Tensor, nn

from compress.atomic_files import write_bytes, write_text
from compress.networks.module_copy import copied
from compress.networks.network_interface import Network
from compress.networks.timm_network import Timm
from hw_profiles.errors import InputError
from hw_profiles.network.workload import InputShape, Workload
from hw_profiles.onnx_io.reader import read_metadata, read_onnx
from hw_profiles.onnx_io.untrusted_file import load_model, self_contained
from hw_profiles.torch_io.trace import in_eval_mode, trace
from search_spaces.arch import Arch
from search_spaces.model import build_model

__all__ = ["BlockNetwork", "GivenModule", "OnnxFile", "Source", "Timm", "network_of", "nothing_changed", "read_source"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxFile(Network):
    """A classifier as the bytes of an ONNX file: for what needs no training. ``label`` is what a user calls it.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> file = OnnxFile(data=write_onnx(preset("resnet8").workload()))
    >>> file.input_shape, file.precision
    ((3, 32, 32), 'fp32')
    """

    data: bytes
    label: str = "the given bytes"
    stated_shape: InputShape = None

    @classmethod
    def read(cls, path: Path | str, input_shape: InputShape = None) -> OnnxFile:
        """The file at ``path``, with the weights that it keeps beside it; ``input_shape`` (C, H, W) is what it reads
        where it leaves that open, {name: sides} of several inputs."""
        load_model(Path(path))  # refuses what is too large, before it is read
        return cls(data=self_contained(Path(path)), label=str(path), stated_shape=input_shape)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the file."""
        return hashlib.sha256(self.data).hexdigest()[:12]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what it reads."""
        workload = self.workload()
        if workload.further_inputs:
            raise InputError(f"{self.label}: must have one input for this, has {', '.join(workload.inputs)}")
        shape = workload.shapes[workload.input][1:]
        if len(shape) != 3:
            raise InputError(f"{self.label}: must read images (N, C, H, W), reads {shape}")
        return (shape[0], shape[1], shape[2])

    @property
    def reads_bytes(self) -> bool:
        """Whether its first input is in bytes, as images are stored."""
        kinds = {value.name: value.type.tensor_type.elem_type for value in load_model(self.data).graph.input}
        return bool(kinds[self.workload().input] == TensorProto.UINT8)

    @property
    def precision(self) -> str:
        """``"int8"`` where most operations have 8-bit weights, else ``"fp32"``."""
        workload = self.workload()
        stored = [workload.format(op.weight) for op in workload.ops if op.stores_weights]
        integers = sum(each.bits == 8 and not each.floating for each in stored)
        return "int8" if 2 * integers > len(stored) else "fp32"

    @property
    def metadata(self) -> Mapping[str, str]:
        """The strings that travel with it."""
        return MappingProxyType(read_metadata(self.data))

    def workload(self) -> Workload:
        """Its operations, with the formats that the file stores."""
        if isinstance(self.stated_shape, Mapping):
            return _file_workload(self.data, None, tuple(self.stated_shape.items()))
        return _file_workload(self.data, self.stated_shape)

    @property
    def file(self) -> OnnxFile:
        """Itself."""
        return self

    def build(self) -> nn.Module:
        """An InputError: it is no module."""
        raise InputError(
            f"{self.label}: an ONNX file cannot be trained or changed: give an Arch, a module or a timm name"
        )

    def write(self, folder: Path) -> str:
        """Write source.onnx."""
        write_bytes(folder / "source.onnx", self.data)
        return "onnx"


@lru_cache(maxsize=8)
def _file_workload(
    data: bytes, shape: tuple[int, ...] | None, by_name: tuple[tuple[str, tuple[int, ...]], ...] = ()
) -> Workload:
    return read_onnx(data, dict(by_name) or shape)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class GivenModule(Network):
    """Any module of torch, for one call: it cannot be saved, because how to rebuild it is unknown.

    ``stated_shape`` (C, H, W) is what it reads, of several tensors {name: sides} by the names that its ``forward``
    gives them, None if that is not known yet.
    """

    module: nn.Module
    stated_shape: tuple[int, int, int] | Mapping[str, tuple[int, ...]] | None = None

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of its class and the shapes of its weights."""
        shapes = [(name, tuple(value.shape)) for name, value in self.module.state_dict().items()]
        return hashlib.sha256(repr((type(self.module).__name__, shapes)).encode()).hexdigest()[:12]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what it reads; an InputError if it is unknown, or several tensors."""
        shape = self.reads
        if isinstance(shape, Mapping):
            names = ", ".join(shape)
            raise InputError(f"{self.label}: must read one tensor for this, reads {names} by name")
        return shape

    @property
    def reads(self) -> tuple[int, int, int] | Mapping[str, tuple[int, ...]]:
        """What it reads; an InputError if that is unknown."""
        if self.stated_shape is None:
            raise InputError(f"{self.label}: input_shape is required for modules, e.g. (3, 224, 224)")
        return self.stated_shape

    def workload(self) -> Workload:
        """Its operations, in evaluation mode."""
        return trace(self.module, self.reads)

    @property
    def label(self) -> str:
        """The name of its class."""
        return type(self.module).__name__

    def resized(self, sides: tuple[int, int, int] | Mapping[str, tuple[int, ...]]) -> GivenModule | None:
        """The module for this size, where no other was stated."""
        return replace(self, stated_shape=sides) if self.stated_shape is None else None

    def require_a_tensor(self) -> None:
        """Run it once."""
        with torch.inference_mode():
            made = copied(self.module).eval()(torch.zeros(1, *self.input_shape))
        if not isinstance(made, Tensor):
            raise InputError(f"{self.label}: a classifier has one output, a tensor, got {type(made).__name__}")

    def build(self) -> nn.Module:
        """A copy of it."""
        return copied(self.module)

    def cut(self, module: nn.Module, kept: Mapping[str, Sequence[int]]) -> GivenModule:
        """The narrower module."""
        return replace(self, module=module)

    def write(self, folder: Path) -> str:
        """An InputError: nobody could build it again."""
        self.require_savable()

    def require_savable(self) -> NoReturn:
        """An InputError."""
        raise InputError(
            f"{self.label}: a module cannot be saved, because it cannot be rebuilt: "
            "use an Arch or a timm model, or keep its ONNX file"
        )


Source = Arch | Timm | OnnxFile | GivenModule


@dataclass(frozen=True, slots=True)
class BlockNetwork(Network):
    """An Arch as any other network."""

    arch: Arch = field()

    @property
    def id(self) -> str:
        """That of the Arch."""
        return self.arch.id

    @property
    def label(self) -> str:
        """``Arch ID``."""
        return f"Arch {self.id}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """That of the Arch."""
        return self.arch.input_shape

    def workload(self) -> Workload:
        """Its operations, batch normalization folded."""
        return self.arch.workload()

    def build(self) -> nn.Module:
        """Its module."""
        return build_model(self.arch)

    def begun_anew(self, model: nn.Module, seed: int) -> nn.Module:
        """Its module as it begins with another seed."""
        return build_model(self.arch, seed=seed + 1)

    def write(self, folder: Path) -> str:
        """Write arch.json."""
        write_text(folder / "arch.json", self.arch.to_json())
        return "arch"

    def by_description(self, of_blocks: Callable[[Arch], T], of_any: Callable[[], T]) -> T:
        """It has blocks."""
        return of_blocks(self.arch)


def network_of(source: Source) -> Network:
    """The interface of a source: the one place that asks of which kind it is.

    >>> from search_spaces import preset
    >>> network_of(preset("resnet8")).label, network_of(Timm(name="resnet18", input_shape=(3, 32, 32))).label
    ('Arch 0b7f48ad317d', 'timm:resnet18')
    """
    return BlockNetwork(source) if isinstance(source, Arch) else source


def read_source(folder: Path, kind: str) -> Source:
    """The inverse of :meth:`compress.networks.network_interface.Network.write`."""
    if kind == "arch":
        return Arch.from_json((folder / "arch.json").read_text(encoding="utf-8"))
    if kind == "timm":
        return Timm.from_json((folder / "source.json").read_text(encoding="utf-8"))
    if kind == "onnx":
        return OnnxFile.read(folder / "source.onnx")
    raise InputError(f"{folder}: a source must be arch, timm or onnx, got {kind!r}")


def nothing_changed(one: nn.Module, other: nn.Module, input_shape: tuple[int, int, int]) -> bool:
    """Whether two modules of equal weights say the same of the same random images (2, C, H, W).

    >>> nothing_changed(nn.ReLU(), nn.ReLU(), (3, 4, 4)), nothing_changed(nn.ReLU(), nn.Tanh(), (3, 4, 4))
    (True, False)
    """
    x = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode(), in_eval_mode(one), in_eval_mode(other):
            return torch.equal(one(x), other(x))
    except (RuntimeError, AssertionError):
        return False
