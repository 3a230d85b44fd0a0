"""Divides the time of a run: the number of candidates, the time of each, and that of the final training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from compress.training.recipe import FEW_IMAGES
from hw_profiles.errors import InputError

OF_THE_SPACE = "a network of the space"
ONE_NETWORK, SMALL_SEARCH, WIDE_SEARCH = "one network", "a small search", "a wide search"
SEARCH_ALONE = "a search alone"
_BEFORE = {ONE_NETWORK: "too little time for a search: ", SEARCH_ALONE: "search only: "}
# Shares of the time that a search gets; the final training gets the rest.
_SEARCH_SHARES = {SMALL_SEARCH: 0.25, WIDE_SEARCH: 0.3}
_SHARE_OF_PICKING = 0.15  # if only reference networks are compared
_CANDIDATES = 24  # as many short trainings as a search should afford
_FEWEST = {SMALL_SEARCH: 4, WIDE_SEARCH: 30}
_USUAL_FEWEST = 8
_EPOCHS_THAT_RANK, _IMAGES_THAT_RANK = 2, 30_000  # after one or the other networks can be ranked
EPOCHS_THAT_TRAIN = 20.0
"""A network that sees many images so often gains little from seeing them more often."""
_SHORTEST, _LONGEST = 2.0, 60.0
_BESIDE_TRAINING = 1.0  # seconds that a candidate takes to be proposed, built, measured and tested
_BESIDE_TRAINING_ESTIMATED = 0.1  # the same where its latency is estimated, which needs no file
_SHARE_OF_PRESETS = 0.25
# Writing, measuring and testing three files, and int8: seconds, and images that are looked at, in a few passes.
_AFTER_SECONDS, _AFTER_PASSES = 10.0, 4.0
C99_SECONDS = 20.0
"""A C99 program is written, built, and run here and under emulation."""
_BEFORE_SECONDS = 10.0  # processes start, and their first steps are slow


@dataclass(frozen=True, kw_only=True, slots=True)
class TimePlan:
    """How a run divides ``seconds``. ``speeds`` are the images a second that known networks train at here, or
    where none keeps the limits, a network of the space.

    ``epochs`` is what the fastest of them would be trained for, if it were chosen, or in a search alone as a candidate.
    """

    kind: str
    seconds: float
    images: int
    speeds: Mapping[str, float]
    search_share: float
    candidate_seconds: float
    candidates: int
    after_seconds: float
    train_seconds: float
    epochs: float

    def lines(self) -> tuple[str, str, str]:
        """The plan in three lines."""
        speeds = sorted(self.speeds.items(), key=lambda pair: -pair[1])
        shown = "; ".join(f"{name}, {speed:.0f} images/s" for name, speed in speeds[:3]) or "unknown"
        known = len(self.presets())
        return (
            f"{duration(self.seconds)} for {self.images:,} training images; training throughput: {shown}",
            f"{_BEFORE.get(self.kind, '')}about {self.candidates} candidates, {self.candidate_seconds:.0f} s each, "
            f"including {known} reference networks",
            self._after_the_search(),
        )

    def _after_the_search(self) -> str:
        shown = f"{self.epochs:.1f}" if self.kind == SEARCH_ALONE else f"{self.epochs:.0f}"
        epochs = f" (up to {shown} epochs at the highest throughput)" if self.speeds else ""
        if self.kind == SEARCH_ALONE:
            return f"each candidate is trained for {self.candidate_seconds:.0f} s{epochs}; the best are scored again"
        return (
            f"the selected network will be trained for about {duration(self.train_seconds)}{epochs}; "
            f"{self.after_seconds:.0f} s are reserved for quantization, benchmarking and testing"
        )

    @property
    def candidate_epochs(self) -> float:
        """How often a candidate sees the images at most; infinite if only its time says when it ends.

        Of many images, those networks that the final training will show them often enough are compared after as many
        epochs. After as many seconds, networks of a low resolution would lead, which learn faster and end worse.

        >>> plan = time_plan(3600, 20, 45_000, {"resnet8 at 32 px": 1800})
        >>> round(plan.candidate_seconds), round(plan.train_seconds / 60), round(plan.candidate_epochs, 2)
        (37, 44, 0.67)
        """
        if self.images < FEW_IMAGES or not self.speeds:
            return math.inf
        if self.kind == SEARCH_ALONE:
            return self.epochs
        enough = EPOCHS_THAT_TRAIN * self.candidate_seconds / self.train_seconds
        return max(enough, _IMAGES_THAT_RANK / self.images)

    def presets(self) -> tuple[str, ...]:
        """The known networks that are candidates, those first that see the images most often: a quarter of all
        candidates at most, where there is a search beside them."""
        known = [name for name in self.speeds if name != OF_THE_SPACE]
        of_the_space = len(self.speeds) - len(known)
        most = max(2, int(_SHARE_OF_PRESETS * self.candidates))
        if self.kind == ONE_NETWORK:
            most = self.candidates - of_the_space
        return tuple(sorted(known, key=lambda name: -self.speeds[name])[:most])

    def to_json(self) -> dict[str, Any]:
        """For a file, with the lines."""
        return {**asdict(self), "lines": list(self.lines())}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TimePlan:
        """What :meth:`to_json` wrote."""
        return cls(**{field.name: record[field.name] for field in fields(cls)})


def duration(seconds: float) -> str:
    """
    >>> duration(75), duration(110), duration(720), duration(9000)
    ('75 s', '1 min 50 s', '12 min', '2 h 30 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    whole = round(seconds) if seconds < 3600 else 60 * round(seconds / 60)
    parts = {"h": whole // 3600, "min": whole // 60 % 60, "s": whole % 60}
    return " ".join(f"{count} {unit}" for unit, count in parts.items() if count)


def seconds_after_training(images: int, speed: float, more: float = 0.0) -> float:
    """What int8, measuring and testing take with a network that trains at so many images a second; ``more`` is for what
    else a run does.

    >>> seconds_after_training(1500, 500)
    14.0
    """
    return _AFTER_SECONDS + more + (_AFTER_PASSES * images / (3 * speed) if speed else 0.0)


def time_plan(
    seconds: float, spent: float, images: int, speeds: Mapping[str, float], more_after: float = 0.0
) -> TimePlan:
    """The plan for networks that train so fast, of which ``spent`` seconds are over; ``more_after`` are seconds that
    are needed at the end beside the usual ones.

    Raises:
        InputError: the time is too short for anything, with the least that is needed.

    >>> plan = time_plan(720, 20, 1650, {"resnet8 at 48 px": 700})
    >>> plan.kind, plan.candidates, round(plan.epochs)
    ('a small search', 21, 215)
    """
    fastest = max(speeds.values(), default=0.0)
    after = seconds_after_training(images, fastest, more_after)
    left = seconds - spent - after - _BEFORE_SECONDS
    _check_enough(seconds, left, 2 * max(3 * _SHORTEST, images / fastest if fastest else 0.0), images)
    kind, searching, each = _search(left, images, speeds)
    train = left - searching
    count = round(searching / each) if kind == ONE_NETWORK else int(searching / (each + _BESIDE_TRAINING))
    return TimePlan(
        kind=kind,
        seconds=seconds,
        images=images,
        speeds=dict(speeds),
        search_share=searching / left,
        candidate_seconds=each,
        candidates=max(1, count),
        after_seconds=after,
        train_seconds=train,
        epochs=train * fastest / images,
    )


def search_plan(
    seconds: float,
    spent: float,
    images: int,
    speeds: Mapping[str, float],
    *,
    longest: float = math.inf,
    measured: bool = True,
) -> TimePlan:
    """The plan of a search that no training follows, for networks that train so fast; ``spent`` seconds are over, no
    candidate is trained for more than ``longest`` epochs, and its latency is ``measured`` or else estimated.

    Raises:
        InputError: the time is too short for one candidate, with the least that is needed.

    >>> plan = search_plan(600, 20, 1650, {"a network of the space": 700})
    >>> plan.kind, round(plan.candidate_seconds), plan.candidates
    ('a search alone', 24, 23)
    """
    fastest = max(speeds.values(), default=0.0)
    left = seconds - spent - _BEFORE_SECONDS
    beside = _BESIDE_TRAINING if measured else _BESIDE_TRAINING_ESTIMATED
    _check_enough(seconds, left, _SHORTEST + beside, images)
    each = _candidate_seconds(left, images, fastest)
    if fastest:
        each = min(each, longest * images / fastest)
    return TimePlan(
        kind=SEARCH_ALONE,
        seconds=seconds,
        images=images,
        speeds=dict(speeds),
        search_share=1.0,
        candidate_seconds=each,
        candidates=max(1, int(left / (each + beside))),
        after_seconds=0.0,
        train_seconds=0.0,
        epochs=each * fastest / images,
    )


def _check_enough(seconds: float, left: float, least: float, images: int) -> None:
    if left < least:
        needed = seconds - left + least
        raise InputError(
            f"--time {seconds:g}s is too short: training on {images:,} images on this machine takes at least "
            f"{needed:.0f}s"
        )


def _candidate_seconds(searching: float, images: int, fastest: float) -> float:
    """How long each candidate of a search of so many seconds is trained: as long as the usual number of them allows, or
    until they can be told apart, if that is longer and some can still be tried."""
    ranking = min(_EPOCHS_THAT_RANK * images, _IMAGES_THAT_RANK) / fastest if fastest else 0.0
    longest = min(searching / _USUAL_FEWEST, _LONGEST)
    return max(min(max(searching / _CANDIDATES, ranking), longest), _SHORTEST)


def _search(left: float, images: int, speeds: Mapping[str, float]) -> tuple[str, float, float]:
    """What kind of search ``left`` seconds are enough for, its seconds, and those of each candidate."""
    fastest = max(speeds.values(), default=0.0)
    epoch = images / fastest if fastest else 0.0
    ranking = min(_EPOCHS_THAT_RANK * epoch, _IMAGES_THAT_RANK / fastest) if fastest else 0.0
    for kind in (WIDE_SEARCH, SMALL_SEARCH):
        searching = left * _SEARCH_SHARES[kind]
        each = _candidate_seconds(searching, images, fastest)
        if searching >= _FEWEST[kind] * each and (each >= min(epoch, ranking) or not speeds):
            return kind, searching, each
    each = min(max(ranking, _SHORTEST), _SHARE_OF_PICKING * left)
    count = min(len(speeds), max(1, int(_SHARE_OF_PICKING * left / each))) or 1
    return ONE_NETWORK, count * each, each
