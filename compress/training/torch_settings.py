"""Global settings of torch, which are the user's: they come back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def usual_torch_settings() -> Iterator[None]:
    """Gradients are on, and new numbers are float32 on the CPU while it lasts, also for a caller who has turned
    gradients off or chosen another type or device. It can be used as a decorator.

    >>> with torch.no_grad(), usual_torch_settings():
    ...     torch.is_grad_enabled()
    True
    """
    dtype, place = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as settings:
            settings.enter_context(torch.inference_mode(False))
            settings.enter_context(torch.enable_grad())
            for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
                settings.enter_context(torch.autocast(kind, enabled=False))
            if place.type != "cpu":
                settings.enter_context(torch.device("cpu"))
            yield
    finally:
        torch.set_default_dtype(dtype)
