"""A search space: named choices, and what they build."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hw_profiles.errors import InputError
from search_spaces.arch import Arch

Choice = int | float | str | bool

NETWORK = "network"
"""The choice that says whether a candidate is one of the known networks."""
SEARCHED = "searched"


class Chooser(Protocol):
    """What a space asks for a value; an Optuna trial is one."""

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:
        """One of the choices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """An ordered dict of choices and ``build``, which turns one value of each into an Arch.

    >>> from search_spaces import load_space
    >>> space = load_space("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    >>> space.sample(seed=0) == space.sample(seed=0)
    True
    """

    name: str
    choices: Mapping[str, tuple[Choice, ...]]
    build: Callable[[Mapping[str, Any]], Arch]

    def __post_init__(self) -> None:
        empty = [name for name, values in self.choices.items() if not values]
        if empty:
            raise InputError(f"space {self.name}: choices without values: {', '.join(empty)}")

    def __call__(self, trial: Chooser) -> Arch:
        """The Arch of the values that a trial suggests."""
        return self.build({name: trial.suggest_categorical(name, values) for name, values in self.choices.items()})

    @property
    def size(self) -> int:
        """Number of combinations; different ones may build the same Arch."""
        return math.prod(len(values) for values in self.choices.values())

    @property
    def ordered(self) -> tuple[str, ...]:
        """Names of the choices whose values have an order: more than two different numbers.

        >>> Space(name="s", choices={"width": (8, 16, 32), "se": (False, True)}, build=lambda params: None).ordered
        ('width',)
        """
        return tuple(
            name for name, values in self.choices.items() if len(set(values)) > 2 and all(map(_is_number, values))
        )

    def sample_params(self, seed: int) -> dict[str, Choice]:
        """One value of each choice, uniformly."""
        generator = random.Random(seed)
        return {name: generator.choice(values) for name, values in self.choices.items()}

    def sample(self, seed: int) -> Arch:
        """A random Arch."""
        return self.build(self.sample_params(seed))


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceWithPresets:
    """``space``, and as further candidates the ``presets`` by name; the choices of the space are sampled where the
    candidate is none of those.

    >>> from search_spaces import load_space, preset
    >>> space = load_space("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    >>> resnet8 = preset("resnet8", input_shape=(3, 32, 32), num_classes=10)
    >>> both = SpaceWithPresets(space=space, presets={"resnet8 at 32 px": resnet8})
    >>> [list(params.values()) for params in both.params_of_presets()]
    [['resnet8 at 32 px']]
    """

    space: Space
    presets: Mapping[str, Arch]

    def __call__(self, trial: Chooser) -> Arch:
        """The Arch of what a trial suggests."""
        name = trial.suggest_categorical(NETWORK, (SEARCHED, *self.presets))
        return self.space(trial) if name == SEARCHED else self.presets[name]

    @property
    def choices(self) -> Mapping[str, tuple[Choice, ...]]:
        """All choices: which network, and those of the space."""
        return {NETWORK: (SEARCHED, *self.presets), **self.space.choices}

    @property
    def ordered(self) -> tuple[str, ...]:
        """Names of the choices whose values have an order."""
        return self.space.ordered

    def sample(self, seed: int) -> Arch:
        """A random Arch of the space."""
        return self.space.sample(seed)

    def build(self, params: Mapping[str, Any]) -> Arch:
        """The Arch of values: a known network, or one of the space."""
        name = params.get(NETWORK, SEARCHED)
        return self.space.build(params) if name == SEARCHED else self.presets[name]

    def params_of_presets(self) -> list[dict[str, str]]:
        """The parameters of each known network."""
        return [{NETWORK: name} for name in self.presets]


def _is_number(value: Choice) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
