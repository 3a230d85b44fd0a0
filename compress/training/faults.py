"""Faults that a training meets: numbers that are not finite, memory that does not suffice, modules that return no
logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hw_profiles.errors import InputError

_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "std::bad_alloc")  # of torch on the CPU
_NO_KERNEL = ("could not create a primitive",)  # of oneDNN, for want of memory or of a kernel for such sizes


class TrainingError(InputError):
    """A training that cannot continue although its state is stored: one line with what was tried and what may help."""


class DivergedError(TrainingError):
    """Loss, gradient or weights were not finite, again and again."""


class TooLargeError(TrainingError, MemoryError):
    """A step needs more memory than there is, even with one image at a time."""


def is_out_of_memory(error: BaseException, *, again: bool = False) -> bool:
    """Whether an error says that memory could not be allocated; ``again``, whether it was so before, where oneDNN does
    not say why.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    True
    """
    words = (*_NO_MEMORY, *_NO_KERNEL) if again else _NO_MEMORY
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    )


def too_large(error: BaseException) -> TooLargeError:
    """The one line of an error of memory for which no smaller batch is left."""
    first = (str(error) or type(error).__name__).strip().splitlines()[0]
    return TooLargeError(
        f"out of memory even with a batch size of 1 ({first}): "
        "free some memory, or use smaller images or a smaller network"
    )


@contextmanager
def single_values_normalized(model: nn.Module) -> Iterator[None]:
    """Within it, a BatchNorm that trains normalizes one number for each channel by its running statistics; it would
    raise an error, because one number has no variance."""
    alone: set[nn.Module] = set()

    def before(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if layer.training and inputs[0].numel() == inputs[0].shape[1]:
            layer.training = False
            alone.add(layer)

    def after(layer: nn.Module, inputs: object, output: object) -> None:
        if layer in alone:
            alone.remove(layer)
            layer.training = True

    layers = [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    hooks = [each.register_forward_pre_hook(before) for each in layers]
    hooks += [each.register_forward_hook(after, always_call=True) for each in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """What a module makes of images in training mode.

    Raises:
        InputError: something that cannot be learned from.
    """
    output = model(x)
    if not isinstance(output, Tensor) or not output.requires_grad:
        got = "a tensor without a gradient" if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"{type(model).__name__}: in training mode a module must return one tensor of logits that depends on "
            f"parameters that are trained, got {got}: turn off auxiliary outputs and torch.no_grad in its forward"
        )
    return output
