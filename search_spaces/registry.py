"""Spaces by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean
from search_spaces.arch import Arch
from search_spaces.efficientnet import efficientnet
from search_spaces.fused import fused
from search_spaces.mobilenet import mobilenet
from search_spaces.space import Space
from search_spaces.tiny import tiny

SpaceFactory = Callable[[tuple[int, int, int], int], Space]

SPACES: dict[str, SpaceFactory] = {
    "mobilenet": mobilenet,
    "efficientnet": efficientnet,
    "fused": fused,
    "tiny": tiny,
}


def list_spaces() -> list[str]:
    """Names for :func:`load_space`.

    >>> list_spaces()
    ['mobilenet', 'efficientnet', 'fused', 'tiny']
    """
    return list(SPACES)


def load_space(name: str, *, input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """Load a built-in search space by name, or a custom one as ``"module:function"``.

    The function is called with ``input_shape`` and ``num_classes``. The module is looked up among the installed ones
    first, then in the current folder.

    Raises:
        InputError: there is no such space, or the function returned something else.

    >>> load_space("mobilenet", input_shape=(1, 32, 32), num_classes=10).name
    'mobilenet'
    """
    if name in SPACES:
        return SPACES[name](input_shape, num_classes)
    try:
        space = _users_own(name)(input_shape, num_classes)
        if isinstance(space, Space):
            space.sample(0)  # what it builds is wrong already, not in the middle of a search
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"space {name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(space, Space):
        raise InputError(f"space {name!r} must return a search_spaces.Space, got {type(space).__name__}")
    return space


def sample(name: str, *, seed: int, input_shape: tuple[int, int, int] = (3, 32, 32), num_classes: int = 10) -> Arch:
    """Sample a random architecture from a search space.

    >>> sample("mobilenet", seed=0, input_shape=(3, 32, 32), num_classes=10).num_classes
    10
    """
    return load_space(name, input_shape=input_shape, num_classes=num_classes).sample(seed)


def _users_own(name: str) -> SpaceFactory:
    module, _, attribute = name.partition(":")
    if not attribute:
        hint = did_you_mean(name, SPACES)
        raise InputError(f"unknown space {name!r}{hint} (valid: {', '.join(SPACES)}, or module:function)")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # last: a file there never takes the place of an installed package
    factory: SpaceFactory = getattr(importlib.import_module(module), attribute)
    return factory
