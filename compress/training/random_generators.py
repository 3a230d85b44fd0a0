"""Random numbers from torch's global generators, which are the user's: they come back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WITHOUT_GENERATORS = ("cpu", "meta")  # of their own, beside the one of the CPU


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What draws on the CPU while it lasts draws by the seed.

    >>> with seeded(1):
    ...     first = torch.rand(1)
    >>> with seeded(1):
    ...     print(bool(first == torch.rand(1)))
    True
    """
    cpu = torch.device("cpu")
    with preserved_generators(cpu):
        seed_at(cpu, seed)
        yield


@contextmanager
def preserved_generators(place: torch.device) -> Iterator[None]:
    """The generators of the CPU and of ``place`` may be seeded while it lasts; then they are as they were."""
    if place.type in _WITHOUT_GENERATORS:
        with torch.random.fork_rng(devices=[]):
            yield
    else:
        with torch.random.fork_rng(devices=[place], device_type=place.type):
            yield


def seed_at(place: torch.device, seed: int) -> None:
    """Seed the generators of the CPU and of ``place``, no others."""
    torch.default_generator.manual_seed(seed)
    if place.type not in _WITHOUT_GENERATORS:
        with torch.accelerator.device_index(place.index):
            torch.get_device_module(place).manual_seed(seed)
