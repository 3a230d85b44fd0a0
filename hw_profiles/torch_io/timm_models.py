"""Creates, checks and traces timm models by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hw_profiles.errors import InputError, short_reason
from hw_profiles.network.workload import Workload
from hw_profiles.spelling_suggestions import did_you_mean
from hw_profiles.torch_io.trace import trace


def trace_timm(name: str, input_shape: tuple[int, ...] | None = None, num_classes: int | None = None) -> Workload:
    """The workload of a model of timm by its name; nothing is downloaded, no weights are made.

    Without ``input_shape`` it is the one that the model was trained with.

    Raises:
        InputError: timm has no such model, or it cannot be traced.

    >>> round(trace_timm("resnet18").macs / 1e6)
    1814
    """
    module = timm_module(name, input_shape, num_classes, device="meta")
    return trace(module, input_shape or timm_input_shape(module))


def timm_module(
    name: str, input_shape: tuple[int, ...] | None = None, num_classes: int | None = None, *, device: str = "cpu"
) -> nn.Module:
    """A model of timm with random weights, or on the device ``"meta"`` with none.

    Raises:
        InputError: timm has no such model, or not for this input.

    >>> timm_input_shape(timm_module("timm:resnet18", device="meta"))
    (3, 224, 224)
    """
    name = name.removeprefix("timm:")
    check_timm_name(name)
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    with torch.device(device):
        try:
            return _create(name, options, input_shape)
        except Exception as error:
            raise InputError(f"timm:{name}: cannot be made ({short_reason(error)})") from None


def timm_input_shape(module: nn.Module) -> tuple[int, ...]:
    """(C, H, W) that a model of timm was trained with."""
    configuration: Any = module.pretrained_cfg
    return tuple(configuration["input_size"])


def _create(name: str, options: dict[str, Any], input_shape: tuple[int, ...] | None) -> nn.Module:
    """Attention models fix their image size when they are made; others do not know the argument."""
    import timm

    if input_shape is not None:
        options = {**options, "in_chans": input_shape[0]}
        try:
            sized: nn.Module = timm.create_model(name, img_size=tuple(input_shape[1:]), **options)
        except TypeError:
            pass
        else:
            return sized
    made: nn.Module = timm.create_model(name, **options)
    return made


def check_timm_name(name: str) -> None:
    """Raise an InputError where timm has no such model.

    >>> check_timm_name("resnet10t")
    """
    import timm

    if not timm.is_model(name):
        raise InputError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
