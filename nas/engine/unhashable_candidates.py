"""Candidates that Python cannot hash, such as dicts: two of equal content count as one."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass, field, fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class ByContent:
    """A candidate in the place of one that cannot be hashed; equal where the contents are."""

    key: Hashable
    candidate: Any = field(compare=False)


def hashable(candidate: Any) -> Hashable:
    """The candidate itself, or one that stands for it by its content.

    Raises:
        TypeError: it holds something that has neither a hash nor a known content.

    >>> hashable((1, 2)), hashable({"w": [1, 2], "h": 3}) == hashable({"h": 3, "w": [1, 2]})
    ((1, 2), True)
    """
    key = _content(candidate)
    return candidate if key is candidate else ByContent(key, candidate)


def plain(found: Any) -> Any:
    """What :func:`hashable` was given: a copy of its own where it may be changed.

    >>> plain(hashable({"w": 1}))
    {'w': 1}
    """
    return copy.deepcopy(found.candidate) if isinstance(found, ByContent) else found


def _content(value: Any) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return type(value), _parts(value)
    else:
        return value  # type: ignore[no-any-return]


def _parts(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return frozenset((key, _content(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_content, value))
    if isinstance(value, Set):
        return frozenset(map(_content, value))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.dtype.str, value.shape, value.tobytes()
    if is_dataclass(value):
        return tuple(_content(getattr(value, each.name)) for each in fields(value))
    if isinstance(value, SimpleNamespace):
        return _content(vars(value))
    raise TypeError(f"unhashable type: {type(value).__name__!r}")
