"""Finds and records the feature maps inside a network."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hw_profiles.errors import InputError
from hw_profiles.torch_io.trace import in_eval_mode


class Taps:
    """The outputs of named modules in the latest forward pass, while the ``with`` block lasts.

    Raises:
        InputError: the model has no module of such a name.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    >>> with Taps(model, ["0"]) as taps:
    ...     _ = model(torch.zeros(1, 3, 8, 8))
    ...     print([tuple(features.shape) for features in taps.features()])
    [(1, 4, 8, 8)]
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        for name in names:
            if name not in modules:
                raise InputError(f"a layer must be a module of {type(model).__name__}, got {name!r}")
        self._modules = [modules[name] for name in names]
        self._seen: dict[nn.Module, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Taps:
        for module in dict.fromkeys(self._modules):
            self._handles.append(module.register_forward_hook(self._see))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen[module] = output

    def features(self) -> list[Tensor]:
        """The outputs in the order of the names, float32."""
        return [self._seen[module].float() for module in self._modules]


def feature_layers(model: nn.Module, input_shape: tuple[int, ...]) -> dict[tuple[int, int], tuple[str, int]]:
    """For each resolution of the feature maps inside a model, in the order in which they come: (height, width) ->
    (name of the last module whose output has it, channels). ``input_shape`` is (C, H, W).

    >>> from search_spaces import build_model, preset
    >>> feature_layers(build_model(preset("resnet8")), (3, 32, 32))
    {(32, 32): ('stages.0', 16), (16, 16): ('stages.1', 32), (8, 8): ('head', 64)}
    """
    found: dict[tuple[int, int], tuple[str, int]] = {}

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            found[(int(output.shape[2]), int(output.shape[3]))] = (name, int(output.shape[1]))

    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: note(name, o))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.inference_mode(), in_eval_mode(model):
            model(torch.zeros(1, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return found
