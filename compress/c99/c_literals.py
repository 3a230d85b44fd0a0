"""Values and names as C source text; every string that comes from a model is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LINE = 116
_LONGEST_NAME = 60
_TYPES = {"int8": "int8_t", "int32": "int32_t", "float32": "float"}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.- ")


def array(name: str, values: NDArray[Any]) -> str:
    """A constant array of one dimension.

    >>> print(array("t", np.array([1, -2], np.int8)))
    static const int8_t t[2] = {
        1,-2
    };
    """
    items = [number(v) for v in values.reshape(-1)]
    return f"static const {_TYPES[str(values.dtype)]} {name}[{len(items)}] = {{\n{wrapped(items)}\n}};"


def number(value: Any) -> str:
    """A literal with exactly that value; floating-point numbers in float32.

    >>> number(np.float32(0.1)), number(np.int32(-(2**31)))
    ('0.100000001f', '(-2147483647-1)')
    """
    if isinstance(value, float | np.floating):
        text = f"{float(np.float32(value)):.9g}"
        return f"{text}f" if set(text) & set(".e") else f"{text}.0f"
    return "(-2147483647-1)" if value == -(2**31) else str(int(value))


def initializer(fields: Iterable[Any]) -> str:
    """Values in braces; strings as they are, nested lists in braces of their own.

    >>> initializer(["x", 1, [2.0]])
    '{x, 1, {2.0f}}'
    """
    texts = [f if isinstance(f, str) else initializer(f) if isinstance(f, list) else number(f) for f in fields]
    return "{" + ", ".join(texts) + "}"


def string(text: str) -> str:
    """A string literal; every byte that is not a plain letter or digit as an octal escape.

    >>> print(string('a"*/'))
    "a\\042\\052\\057"
    """
    escaped = "".join(c if c in _PLAIN else "".join(f"\\{b:03o}" for b in c.encode()) for c in text)
    return f'"{escaped}"'


def label(name: str) -> str:
    """A name that may appear in a comment: other characters are underscores, long names are cut.

    >>> label("*/ int x; //")
    '__ int x_ __'
    """
    return "".join(c if c in _PLAIN else "_" for c in name[:_LONGEST_NAME])


def wrapped(items: list[str]) -> str:
    """Numbers with commas between them, in lines that can be read."""
    lines, line = [], "    "
    for i, item in enumerate(items):
        text = f"{item}," if i + 1 < len(items) else item
        if len(line) + len(text) > _LINE:
            lines.append(line)
            line = "    "
        line += text
    return "\n".join([*lines, line])
