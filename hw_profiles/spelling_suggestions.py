"""Checks of names, with did-you-mean suggestions for mistyped ones."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from hw_profiles.errors import InputError


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest valid name, whatever the case of its letters, or nothing.

    >>> did_you_mean("mobilnet", ["mobilenet", "tiny"]), did_you_mean("TINY", ["mobilenet", "tiny"])
    ("; did you mean 'mobilenet'?", "; did you mean 'tiny'?")
    """
    names = {each.casefold(): each for each in valid}
    near = difflib.get_close_matches(name.casefold(), names, 1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def check_one_of(what: str, given: object, valid: Collection[Any]) -> None:
    """Raise an InputError unless ``given`` is one of the valid values.

    >>> check_one_of("Cluster.start", "liner", ("linear", "random"))
    Traceback (most recent call last):
    hw_profiles.errors.InputError: Cluster.start must be one of linear, random, got 'liner'; did you mean 'linear'?
    """
    if given not in [*valid]:  # it may be anything, also what a dict cannot look up
        names = [str(each) or "''" for each in valid]
        hint = did_you_mean(given, names) if isinstance(given, str) else ""
        raise InputError(f"{what} must be one of {', '.join(names) or 'none'}, got {given!r:.100}{hint}")


def check_known(what: str, name: str, valid: Collection[str]) -> None:
    """Raise an InputError unless there is an entry of that name; ``what`` says of what kind it is.

    >>> check_known("facts: unknown entry", "ram", ("ram_bytes", "flash_bytes"))
    Traceback (most recent call last):
    hw_profiles.errors.InputError: facts: unknown entry 'ram' (valid: ram_bytes, flash_bytes)
    """
    if name not in valid:
        raise InputError(f"{what} {name!r:.80}{did_you_mean(name, valid)} (valid: {', '.join(valid) or 'none'})")
