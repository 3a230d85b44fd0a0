"""Records what the result of a stage was made from, so that it is resumed only with the same options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from compress.atomic_files import read_json
from compress.data.dataset import Dataset
from compress.stage_interface import Context, Stage
from hw_profiles.errors import InputError

ORIGIN = "origin.json"
_DIGESTED_IMAGES = 64


def origin_of(stage: Stage, context: Context, file: bytes) -> dict[str, Any]:
    """What a stage's result depends on, but for the teacher and the accuracy that may be lost; ``file``: the network
    that it begins with."""
    return {
        "stage": stage.name,
        "config": json.loads(json.dumps(asdict(stage), default=repr)),  # type: ignore[call-overload]
        "network": hashlib.sha256(file).hexdigest()[:16],
        "data": _digest(context.data),
        "seed": context.seed,
        "device": context.device.name,
        "budget": context.budget.limits(),
    }


def _digest(data: Dataset) -> str:
    """Of the labels that are trained on and judged by, and of some of the images."""
    found = hashlib.sha256()
    for split in (data.train, data.val):
        found.update(split.labels.tobytes())
        found.update(split.spread(_DIGESTED_IMAGES).images.tobytes())
    return found.hexdigest()[:16]


def config_of(stage: Stage, place: Path) -> Mapping[str, Any]:
    """With which the stage made what is there; folders of earlier versions do not say it."""
    if (place / ORIGIN).is_file():
        return cast("Mapping[str, Any]", read_json(place / ORIGIN, "config")["config"])
    return asdict(stage)  # type: ignore[call-overload, no-any-return]


def matches(now: Mapping[str, Any], folder: Path) -> bool:
    """Whether what a folder holds was made, or begun, in the same way; earlier versions did not note it."""
    return not (folder / ORIGIN).is_file() or _flat(read_json(folder / ORIGIN, "config")) == _flat(now)


def check_origin(now: Mapping[str, Any], folder: Path) -> None:
    """Raise an InputError, which names the first difference, where a folder holds what was made in another way."""
    if matches(now, folder):
        return
    then, wanted = _flat(read_json(folder / ORIGIN, "config")), _flat(now)
    name = next(name for name in {**then, **wanted} if then.get(name) != wanted.get(name))
    raise InputError(
        f"{folder} was created with {name}={then.get(name)!r}, now it is {wanted.get(name)!r}; choose another folder"
    )


def _flat(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Of how a stage trains only whether it does: a run that goes on may have another time left for it."""
    config = dict(origin["config"])
    if "recipe" in config:
        config["recipe"] = None if config["recipe"] is None else "a recipe"
    return {**{name: value for name, value in origin.items() if name != "config"}, **config}
