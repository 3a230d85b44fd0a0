"""The classes of a dataset in the order in which a network has them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compress.data.dataset import Dataset

log = logging.getLogger("fitnas")

_NAMED = 5


def in_order_of(names: Sequence[str], data: Dataset, network: str) -> Dataset:
    """The data with the classes in the order of ``names``, those of a network, as far as both are known.

    Folders and tables order numbers differently, for example: ``10`` comes before ``9`` among folders. If the names
    differ, labels stay as they are and a warning is logged.

    >>> from compress.data.dataset import load_data
    >>> digits = load_data("digits")
    >>> turned = in_order_of(tuple("9876543210"), digits, "the network")
    >>> int(digits.test.labels[0] + turned.test.labels[0]), turned.preprocessing.class_names[0]
    (9, '9')
    """
    known = data.preprocessing.class_names
    if len(names) != len(known) or tuple(names) == known:
        return data
    if sorted(names) != sorted(known):
        log.warning(
            "%s has other classes (%s) than %s (%s): they are matched by their order",
            *(network, _shown(names), data.name, _shown(known)),
        )
        return data
    place = {name: number for number, name in enumerate(names)}
    number_of = np.array([place[name] for name in known], np.int64)
    changed = {id(split): replace(split, labels=number_of[split.labels]) for split in data.distinct_splits}
    return replace(
        data,
        train=changed[id(data.train)],
        val=changed[id(data.val)],
        test=changed[id(data.test)],
        preprocessing=replace(data.preprocessing, class_names=tuple(names)),
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
