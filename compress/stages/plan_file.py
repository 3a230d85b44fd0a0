"""A plan: the stages of a compression and their settings, as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import tomli_w

from compress.stage_interface import Stage
from compress.stages.stage_order import STAGES, check_order
from compress.training.recipe import Recipe
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.untrusted_file import read_file
from hw_profiles.spelling_suggestions import check_known

PLAN_SCHEMA = 1
_NONE = "none"
_LARGEST_FILE, _MOST_STAGES = 1024**2, 100
_KEYS = ("schema", "any_order", "stages")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Stages in the order in which they are run. ``any_order`` allows another one than
    :data:`compress.stages.stage_order.STAGES` has, so that what it costs can be shown.

    As TOML, each stage is a table of the list ``stages`` with its ``name`` and its settings; what is left out keeps its
    default, and ``recipe = "none"`` trains nothing.

    Raises:
        InputError: no stage, an unknown one, or a wrong order.

    >>> from compress import Encode, Sparsify
    >>> plan = Plan(stages=(Sparsify(amount=0.5, recipe=Recipe(epochs=2)), Encode()))
    >>> Plan.from_toml(plan.to_toml()) == plan
    True
    """

    stages: Sequence[Stage]
    any_order: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if not 1 <= len(self.stages) <= _MOST_STAGES:
            raise InputError(f"a plan must have 1 to {_MOST_STAGES} stages, got {len(self.stages)}")
        check_order(self.names, any_order=self.any_order)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its stages."""
        return tuple(stage.name for stage in self.stages)

    def to_toml(self) -> str:
        """What :meth:`from_toml` reads back, every setting stated."""
        tables = [{"name": stage.name, **_table(stage)} for stage in self.stages]
        return tomli_w.dumps({"schema": PLAN_SCHEMA, "any_order": self.any_order, "stages": tables})

    @classmethod
    def from_toml(cls, text: str, name: str = "plan") -> Plan:
        """Parse a plan; ``name`` is what errors call it.

        Raises:
            InputError: not TOML, an unknown key or stage (with the nearest known one), or a setting that is not valid.
        """
        try:
            given = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also a number of too many digits
            raise InputError(f"{name}: {error}") from None
        _check_keys(given, _KEYS, name)
        if given.get("schema", PLAN_SCHEMA) != PLAN_SCHEMA:
            raise InputError(f"{name}: schema must be {PLAN_SCHEMA}, got {given['schema']!r}")
        any_order, tables = given.get("any_order", False), given.get("stages")
        if not isinstance(any_order, bool):
            raise InputError(f"{name}: any_order must be true or false, got {any_order!r}")
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise InputError(f"{name}: must have one table [[stages]] for each stage")
        try:
            return cls(stages=tuple(_stage(table) for table in tables), any_order=any_order)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None


def read_plan(path: Path | str) -> Plan:
    """The plan in a TOML file.

    Raises:
        InputError: no such file, one that is too large, or one that is no plan.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"plan file not found: {path}")
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(f"plan {path}: must be at most {_LARGEST_FILE} bytes, got {path.stat().st_size}")
    try:
        text = read_file(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"plan {path}: must be UTF-8 text ({error})") from None
    return Plan.from_toml(text, f"plan {path}")


def _table(config: Any) -> dict[str, Any]:
    """The settings that are set; of what is None by another default, that it is."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if value is None:
            if _default(field) is not None:
                found[field.name] = _NONE
            continue
        found[field.name] = _table(value) if is_dataclass(value) else _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _stage(table: Mapping[str, Any]) -> Stage:
    name = table.get("name")
    if not isinstance(name, str):
        raise InputError(f"each stage must have a name, one of {', '.join(STAGES)}, got {name!r}")
    check_known("unknown stage", name, STAGES)
    settings = {key: value for key, value in table.items() if key != "name"}
    return cast("Stage", _config(STAGES[name], settings, name))


def _config(kind: type[Any], settings: Mapping[str, Any], what: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    _check_keys(settings, tuple(known), what)
    values = {key: _value(known[key], value, f"{what}.{key}") for key, value in settings.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{what}: {error}") from None


def _value(field: Field[Any], value: Any, what: str) -> Any:
    """A value of TOML as the setting wants it, checked to be of its kind; ranges are checked by the stage."""
    if value == _NONE and "None" in str(field.type) and _default(field) is not None:
        return None
    if "Recipe" in str(field.type):
        if not isinstance(value, dict):
            raise InputError(f"{what} must be a table of settings{_or_none(field)}, got {value!r}")
        return _config(Recipe, value, what)
    if isinstance(value, list):
        value = tuple(value)
    if not _is_of_kind(value, str(field.type)):
        raise InputError(f"{what} must be {field.type}, got {value!r}")
    try:
        return float(value) if isinstance(value, int) and _is_float(field) else value
    except OverflowError as error:
        raise InputError(f"{what}: {error}") from None


def _or_none(field: Field[Any]) -> str:
    return f' or "{_NONE}"' if "None" in str(field.type) else ""


def _is_float(field: Field[Any]) -> bool:
    return str(field.type).startswith("float")


_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "tuple[str, ...]": (tuple,),
    "Amount": (int, float, dict),
    "Clusters": (int, dict),
    "Levels": (int, dict),
}


def _is_of_kind(value: Any, kind: str) -> bool:
    """Whether a value has the type of an annotation, such as ``"float | None"``."""
    wanted = [part.strip() for part in kind.split("|")]
    given = [each for part in wanted for each in _KINDS.get(part, ())]
    if isinstance(value, bool):
        return bool in given
    if isinstance(value, tuple):
        return tuple in given and all(isinstance(each, str) for each in value)
    return isinstance(value, tuple(given))


def _default(field: Field[Any]) -> Any:
    return None if field.default is MISSING else field.default


def _check_keys(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for key in given:
        check_known(f"{what}: unknown key", key, known)
