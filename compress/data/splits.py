"""Splits images into training, validation and test sets: stratified by class, reproducible by seed, groups kept
together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import InputError

TEST_SHARE = 0.2
VAL_SHARE = 0.15
MOST_VAL = 5000

Indices = NDArray[np.int64]


def divide(
    labels: Indices, names: Sequence[str], wanted: Sequence[str], seed: int, groups: Indices | None = None
) -> dict[str, Indices]:
    """Indices of ``labels`` for ``"train"`` and each of ``wanted``, a part of ``("test", "val")``.

    ``groups`` gives each image the number of its group, and no group comes into two splits.

    Raises:
        InputError: a class with fewer images, or images in fewer groups, than there are splits.

    >>> {k: len(v) for k, v in divide(np.repeat([0, 1], 50), ["a", "b"], ["test", "val"], seed=0).items()}
    {'test': 20, 'val': 12, 'train': 68}
    """
    _check_sizes(labels, names, wanted)
    if groups is not None:
        return _divide_groups(labels, names, _shares(len(labels), wanted), seed, groups)
    found, rest = {}, np.arange(len(labels))
    if "test" in wanted:
        rest, found["test"] = _split_off(labels, rest, TEST_SHARE, len(names), seed)
    if "val" in wanted:
        share = min(VAL_SHARE, MOST_VAL / len(rest))
        rest, found["val"] = _split_off(labels, rest, share, len(names), seed + 1)
    return {**found, "train": rest}


def _check_sizes(labels: Indices, names: Sequence[str], wanted: Sequence[str]) -> None:
    needed = 1 + len(wanted)
    for name, count in zip(names, np.bincount(labels, minlength=len(names)), strict=True):
        if count < needed:
            splits = ", ".join(["train", *wanted])
            raise InputError(f"class {name!r} has {count} images, at least {needed} are needed ({splits}: one each)")


def _split_off(labels: Indices, among: Indices, share: float, classes: int, seed: int) -> tuple[Indices, Indices]:
    generator = np.random.default_rng(seed)
    away = []
    for label in range(classes):
        members = generator.permutation(among[labels[among] == label])
        away.append(members[: max(1, round(share * len(members)))])
    taken = np.sort(np.concatenate(away))
    return np.setdiff1d(among, taken), taken


def _shares(count: int, wanted: Sequence[str]) -> dict[str, float]:
    test = TEST_SHARE if "test" in wanted else 0.0
    shares = {"test": test, "val": (1 - test) * min(VAL_SHARE, MOST_VAL / count)}
    shares = {name: share for name, share in shares.items() if name in wanted}
    return {**shares, "train": 1 - sum(shares.values())}


def _divide_groups(
    labels: Indices, names: Sequence[str], shares: Mapping[str, float], seed: int, groups: Indices
) -> dict[str, Indices]:
    """The rarest classes first get one group for each split; then each group, large ones first, goes where images of
    its classes are missing most.
    """
    numbers, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    table = _Groups(labels, group_of, len(numbers), len(names), list(shares.values()))
    in_groups = np.array([len(table.of_class[label]) for label in range(len(names))])
    for label in np.argsort(in_groups, kind="stable"):
        if in_groups[label] < len(shares):
            raise InputError(
                f"class {names[label]!r} has images in {in_groups[label]} groups, "
                f"at least {len(shares)} are needed for {', '.join(shares)}"
            )
        for split in range(len(shares)):
            if not table.filled[split, label] and not table.give_one(split, label):
                raise InputError(
                    f"the groups cannot be divided so that {', '.join(shares)} all have class {names[label]!r}"
                )
    order = np.random.default_rng(seed).permutation(len(numbers))
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        if table.split_of[group] < 0:
            table.put(int(group), int(np.argmin([table.worse(int(group), s) for s in range(len(shares))])))
    return {name: np.flatnonzero(table.split_of[group_of] == split) for split, name in enumerate(shares)}


class _Groups:
    """Images of each class in each group, and how full the splits are."""

    def __init__(self, labels: Indices, group_of: Indices, count: int, classes: int, shares: Sequence[float]) -> None:
        pairs, images = np.unique(group_of * classes + labels, return_counts=True)
        borders = np.searchsorted(pairs // classes, np.arange(count + 1))
        self.members = [(pairs[a:b] % classes, images[a:b]) for a, b in pairwise(borders)]
        self.of_class = [pairs[pairs % classes == label] // classes for label in range(classes)]
        totals = np.bincount(labels, minlength=classes)
        self.totals = np.maximum(totals, 1)
        self.ideal = np.outer(shares, totals)
        self.filled = np.zeros_like(self.ideal)
        self.split_of = np.full(count, -1)

    def worse(self, group: int, split: int) -> float:
        """How much further from the shares the split is with the group than without it."""
        classes, images = self.members[group]
        off = (self.filled[split, classes] - self.ideal[split, classes]) / self.totals[classes]
        more = images / self.totals[classes]
        return float(np.sum(more * (2 * off + more)))

    def put(self, group: int, split: int) -> None:
        classes, images = self.members[group]
        self.filled[split, classes] += images
        self.split_of[group] = split

    def give_one(self, split: int, label: int) -> bool:
        free = [int(group) for group in self.of_class[label] if self.split_of[group] < 0]
        if free:
            self.put(min(free, key=lambda group: self.worse(group, split)), split)
        return bool(free)
