"""The interface of a network, whatever it came from: an Arch, a timm model, a module or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard, TypeVar

from torch import nn

from compress.networks.module_copy import copied
from compress.training.random_generators import seeded
from hw_profiles.errors import InputError
from hw_profiles.network.workload import InputShape, Workload
from search_spaces.arch import Arch

if TYPE_CHECKING:
    from compress.networks.network_source import GivenModule, OnnxFile
    from compress.networks.timm_network import Timm

T = TypeVar("T")


class Network(Protocol):
    """What can be done with a network before its weights are known. A method that a class does not define does what is
    right for a module of torch."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of what it is."""

    @property
    def label(self) -> str:
        """What a user would call it."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what it reads; an InputError if it is unknown, or several tensors."""

    @property
    def stated_shape(self) -> InputShape:
        """What was said that it reads, None where it says so itself or nobody did."""
        return self.input_shape

    @property
    def reads(self) -> InputShape:
        """What it reads, {name: sides} of several tensors; an InputError if that is unknown."""
        return self.input_shape

    @property
    def file(self) -> OnnxFile | None:
        """The file of a network of which there is nothing else, so that it cannot be trained; else None."""
        return None

    @property
    def arch(self) -> Arch:
        """What a network of blocks is; an InputError says so of any other."""
        raise InputError(f"a network of blocks (Arch) is needed, got {self.label}")

    def workload(self) -> Workload:
        """Its operations."""

    def resized(self, sides: tuple[int, int, int] | Mapping[str, tuple[int, ...]]) -> Timm | GivenModule | None:
        """The network for images of this size; None where its size is its own."""
        return None

    def require_a_tensor(self) -> None:
        """Raise an InputError where the module makes something else than one tensor."""
        return

    def build(self) -> nn.Module:
        """A module of it, its weights to be loaded; an InputError if there is none."""

    def begun_anew(self, model: nn.Module, seed: int) -> nn.Module:
        """Its module with other random weights, but for layers that are frozen; ``model`` is the one that there is.

        Raises:
            InputError: nothing says how the weights of a layer are drawn.
        """
        found = copied(model)
        learning = {name: module for name, module in found.named_modules() if not is_frozen(module)}
        bound = [name for name, module in learning.items() if _has_weights(module) and not _can_begin_anew(module)]
        if bound:
            raise InputError(
                f"Distill.method 'self' re-initializes the weights, which {bound[0] or type(model).__name__} does not "
                "support: pass an Arch or a module built from torch layers"
            )
        with seeded(seed + 1):
            for module in learning.values():
                if _can_begin_anew(module):
                    module.reset_parameters()
        return found

    def cut(self, module: nn.Module, kept: Mapping[str, Sequence[int]]) -> Timm | GivenModule:
        """The network of a module of which only the channels in ``kept`` are left, as
        :func:`compress.networks.slice_channels.cut_module` reads it."""
        raise InputError(f"{self.label}: its module cannot be made narrower")

    def write(self, folder: Path) -> str:
        """Write arch.json, source.json or source.onnx; the kind of source for
        :func:`compress.networks.network_source.read_source`."""

    def require_savable(self) -> None:
        """Raise an InputError if it is unknown how to rebuild the network."""
        return

    def by_description(self, of_blocks: Callable[[Arch], T], of_any: Callable[[], T]) -> T:
        """``of_blocks`` of a network that is described block by block, whose weights and scales are all that a result
        has to hold; ``of_any`` of one that only its module or file describes."""
        return of_any()


class Resettable(Protocol):
    """A layer that can get new random weights, as those of torch can."""

    def reset_parameters(self) -> None:
        """Draws them."""


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def is_frozen(module: nn.Module) -> bool:
    """Whether a parameter of the module itself is not to be trained."""
    return any(not parameter.requires_grad for parameter in module.parameters(recurse=False))


def _can_begin_anew(module: nn.Module) -> TypeGuard[Resettable]:
    return callable(getattr(module, "reset_parameters", None))
