"""The source of a network: an Arch, a timm model, an ONNX file, or a module given for one call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeGuard

import torch
from onnx import TensorProto
from torch import nn

from compress.atomic_files import write_bytes, write_text
from compress.networks.module_copy import copied
from compress.networks.slice_channels import REMOVED, of_original
from compress.networks.timm_network import Timm
from compress.training.random_generators import seeded
from hw_profiles.errors import InputError
from hw_profiles.network.workload import InputShape, Workload
from hw_profiles.onnx_io.reader import read_metadata, read_onnx
from hw_profiles.onnx_io.untrusted_file import load_model, self_contained
from hw_profiles.torch_io.trace import in_eval_mode, trace
from search_spaces.arch import Arch
from search_spaces.model import build_model

__all__ = [
    "GivenModule",
    "OnnxFile",
    "Source",
    "Timm",
    "begun_anew",
    "build",
    "nothing_changed",
    "read_source",
    "require_savable",
    "source_name",
    "with_module",
    "write_source",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxFile:
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


@lru_cache(maxsize=8)
def _file_workload(
    data: bytes, shape: tuple[int, ...] | None, by_name: tuple[tuple[str, tuple[int, ...]], ...] = ()
) -> Workload:
    return read_onnx(data, dict(by_name) or shape)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class GivenModule:
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
            raise InputError(f"{type(self.module).__name__}: must read one tensor for this, reads {names} by name")
        return shape

    @property
    def reads(self) -> tuple[int, int, int] | Mapping[str, tuple[int, ...]]:
        """What it reads; an InputError if that is unknown."""
        if self.stated_shape is None:
            raise InputError(f"{type(self.module).__name__}: input_shape is required for modules, e.g. (3, 224, 224)")
        return self.stated_shape

    def workload(self) -> Workload:
        """Its operations, in evaluation mode."""
        return trace(self.module, self.reads)


Source = Arch | Timm | OnnxFile | GivenModule


def build(source: Source) -> nn.Module:
    """A module of the source's architecture, its weights to be loaded.

    Raises:
        InputError: an ONNX file, which is no module.

    >>> from search_spaces import preset
    >>> build(preset("resnet8")).classifier.out_features
    10
    """
    if isinstance(source, Arch):
        return build_model(source)
    if isinstance(source, Timm):
        return source.build()
    if isinstance(source, GivenModule):
        return copied(source.module)
    raise InputError(
        f"{source.label}: an ONNX file cannot be trained or changed: give an Arch, a module or a timm name"
    )


class Resettable(Protocol):
    """A layer that can get new random weights, as those of torch can."""

    def reset_parameters(self) -> None:
        """Draws them."""


def begun_anew(source: Source, model: nn.Module, seed: int) -> nn.Module:
    """The network of a source with other random weights; ``model`` is its module.

    Raises:
        InputError: nothing says how the weights of a layer are drawn.

    >>> from search_spaces import preset
    >>> arch = preset("resnet8")
    >>> bool((begun_anew(arch, build(arch), 0).classifier.weight == build(arch).classifier.weight).any())
    False
    """
    if isinstance(source, Arch):
        return build_model(source, seed=seed + 1)
    found = copied(model)
    bound = [name for name, module in found.named_modules() if _has_weights(module) and not _can_begin_anew(module)]
    if bound:
        raise InputError(
            f"Distill.method 'self' re-initializes the weights, which {bound[0] or type(model).__name__} does not "
            "support: pass an Arch or a module built from torch layers"
        )
    with seeded(seed + 1):
        for module in found.modules():
            if _can_begin_anew(module):
                module.reset_parameters()
    return found


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _can_begin_anew(module: nn.Module) -> TypeGuard[Resettable]:
    return callable(getattr(module, "reset_parameters", None))


def stated_shape(source: Source) -> InputShape:
    """What was said that a source reads, for a file made of it: of an ONNX file nothing where it says so itself, of a
    module nothing where nobody did.

    >>> stated_shape(Timm(name="resnet18", input_shape=(3, 32, 32)))
    (3, 32, 32)
    """
    return source.stated_shape if isinstance(source, OnnxFile | GivenModule) else source.input_shape


def with_module(source: Source, module: nn.Module, kept: Mapping[str, Sequence[int]]) -> Source:
    """The source of a module of which only the channels in ``kept`` are left, as
    :func:`compress.networks.slice_channels.cut_module` reads it: a model of timm remembers them by their first numbers.

    >>> source = Timm(name="resnet18", input_shape=(3, 32, 32), kept={"conv1": (3, 5, 8)})
    >>> with_module(source, source.build(), {"conv1": [0, 2]}).kept
    {'conv1': (3, 8)}
    """
    if isinstance(source, GivenModule):
        return replace(source, module=module)
    assert isinstance(source, Timm)
    removed = tuple(f"{key.removesuffix(REMOVED)}." for key in kept if key.endswith(REMOVED))
    before = {key: numbers for key, numbers in source.kept.items() if not key.startswith(removed)}
    return replace(source, kept={**before, **of_original(before, kept)})


def source_name(source: Source) -> str:
    """What a user would call it.

    >>> from search_spaces import preset
    >>> source_name(Timm(name="resnet18", input_shape=(3, 32, 32))), source_name(preset("resnet8"))
    ('timm:resnet18', 'Arch 0b7f48ad317d')
    """
    if isinstance(source, Timm):
        return f"timm:{source.name}"
    if isinstance(source, OnnxFile):
        return source.label
    return type(source.module).__name__ if isinstance(source, GivenModule) else f"Arch {source.id}"


def write_source(source: Source, folder: Path) -> str:
    """Write arch.json, source.json or source.onnx; the kind of source for :func:`read_source`.

    Raises:
        InputError: a module that nobody could build again.
    """
    if isinstance(source, Arch):
        write_text(folder / "arch.json", source.to_json())
        return "arch"
    if isinstance(source, Timm):
        write_text(folder / "source.json", source.to_json())
        return "timm"
    require_savable(source)
    assert isinstance(source, OnnxFile)
    write_bytes(folder / "source.onnx", source.data)
    return "onnx"


def require_savable(source: Source) -> None:
    """Raise an InputError if it is unknown how to rebuild the network."""
    if isinstance(source, GivenModule):
        raise InputError(
            f"{source_name(source)}: a module cannot be saved, because it cannot be rebuilt: "
            "use an Arch or a timm model, or keep its ONNX file"
        )


def read_source(folder: Path, kind: str) -> Source:
    """The inverse of :func:`write_source`."""
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
