"""How fast a training with a limit of time goes: threads and number format, chosen by its own steps.

Several threads wait for each other many times a step. Where another process takes the core of one of them, they are
many times slower together than one alone; so their number is chosen again when the machine gets busy or idle.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, median

import torch
from torch import nn
from torch.nn import functional as F

from compress.training.batches import Batches
from compress.training.faults import logits_of

_TIMED = 3  # steps of each setting
_SLOWER = 1.5  # times as long as another: no further step of that one
_LEAST_GAIN = 1.05  # to change what was chosen
_FALLEN = 0.6  # of the rate that was measured
_RECENT = 5
_SHORTEST_WAIT, _LOOK_SECONDS, _LONGEST_WAIT, _LOOK_STEPS = 2.0, 20.0, 120.0, 100
_PIECES, _PIECE = 100, 1 << 18
_LEAST_SHARE = 0.9  # of the time of one thread


@dataclass(frozen=True, slots=True)
class Setting:
    """How steps are run."""

    threads: int
    bfloat16: bool


class _Trial:
    """Steps of several settings in turn. With ``cold`` the first of each is not timed, which finds kernels and the
    like."""

    def __init__(self, settings: Sequence[Setting], *, cold: bool) -> None:
        self.seconds: dict[Setting, list[float]] = {setting: [] for setting in settings}
        self.skipped = int(cold)

    def next(self) -> Setting | None:
        """What should be run next; None when it is over."""
        wanted = _TIMED + self.skipped
        left = [each for each, seconds in self.seconds.items() if len(seconds) < wanted and not self._is_slow(each)]
        return min(left, key=lambda each: len(self.seconds[each]), default=None)

    def _is_slow(self, setting: Setting) -> bool:
        timed = self.seconds[setting][self.skipped :]
        others = [min(seconds[self.skipped :], default=float("inf")) for seconds in self.seconds.values()]
        return bool(timed) and min(timed) > _SLOWER * min(others)

    def typical(self, setting: Setting) -> float:
        """Seconds of a step."""
        return median(self.seconds[setting][self.skipped :] or self.seconds[setting])


class Pace:
    """The setting of each step: of several the fastest, found by a few steps of each in turn, which are steps of the
    training like any other. Their threads are compared again after 20 seconds, and when steps take much longer than
    they took.

    ``helps(threads)`` tells quickly whether so many are worth a try; without it no step of them is run.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        *,
        helps: Callable[[int], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = sorted({setting.threads for setting in settings})
        self._helps, self._clock = helps or more_threads_help, clock
        self._looked = clock()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._expected: float | None = None
        self._ran: set[Setting] = set()
        self._seconds = self._threads_seconds = 0.0
        self._next = self.chosen = settings[0]
        self._trial: _Trial | None = None
        if len(settings) > 1:
            worthwhile = self._worthwhile()
            self._begin([each for each in settings if each.threads in worthwhile])

    @property
    def is_comparing(self) -> bool:
        """Whether the time of the next step decides about settings."""
        return self._trial is not None

    @property
    def is_format_chosen(self) -> bool:
        """Whether the number format is known, which then stays as it is."""
        return self._trial is None or len({setting.bfloat16 for setting in self._trial.seconds}) == 1

    @property
    def mean_threads(self) -> float:
        """Over the time of all steps."""
        return self._threads_seconds / self._seconds if self._seconds else float(self.chosen.threads)

    @property
    def setting(self) -> Setting:
        """That of the next step."""
        return self._next

    def took(self, seconds: float) -> None:
        """The step took so long."""
        self._ran.add(self._next)
        self._seconds += seconds
        self._threads_seconds += seconds * self._next.threads
        if self._trial is not None:
            self._trial.seconds[self._next].append(seconds)
            self._go_on(self._trial)
        elif len(self._threads) > 1:
            self._recent.append(seconds)
            if self._expected is None and len(self._recent) == _RECENT:
                self._expected = fmean(self._recent)
            if self._expected is not None and self._is_due(self._expected):
                self._look(self._expected)

    def _begin(self, settings: Sequence[Setting]) -> None:
        self._trial = _Trial(settings, cold=not self._ran.issuperset(settings))
        self._go_on(self._trial)

    def _go_on(self, trial: _Trial) -> None:
        following = trial.next()
        if following is not None:
            self._next = following
            return
        best = min(trial.seconds, key=trial.typical)
        if self._expected is not None and trial.typical(self.chosen) < _LEAST_GAIN * trial.typical(best):
            best = self.chosen
        self._choose(best, trial.typical(best))

    def _choose(self, setting: Setting, expected: float | None) -> None:
        self._next = self.chosen = setting
        self._trial, self._expected = None, expected
        self._recent.clear()
        self._looked = self._clock()

    def _is_due(self, expected: float) -> bool:
        waited = self._clock() - self._looked
        if waited > min(max(_LOOK_SECONDS, _LOOK_STEPS * expected), _LONGEST_WAIT):
            return True
        return waited > _SHORTEST_WAIT and self._has_fallen(expected)

    def _has_fallen(self, expected: float) -> bool:
        whole = len(self._recent) == _RECENT
        return (whole and fmean(self._recent) * _FALLEN > expected) or self._recent[-1] * _FALLEN**3 > expected

    def _look(self, expected: float) -> None:
        """Compare the threads again, as far as that may change something."""
        worthwhile = self._worthwhile()
        if self.chosen.threads not in worthwhile:
            self._choose(Setting(worthwhile[-1], self.chosen.bfloat16), None)
        elif len(worthwhile) == 1 or (self.chosen.threads > 1 and not self._has_fallen(expected)):
            self._choose(self.chosen, median(self._recent))
        else:
            self._begin([Setting(threads, self.chosen.bfloat16) for threads in worthwhile])

    def _worthwhile(self) -> list[int]:
        return [threads for threads in self._threads if threads == self._threads[0] or self._helps(threads)]


def settings_to_try(threads: Collection[int], bfloat16: bool | None) -> list[Setting]:
    """Each number of threads, in the number formats that are free to choose.

    >>> settings_to_try({1}, False), len(settings_to_try({1, 2}, None))
    ([Setting(threads=1, bfloat16=False)], 4)
    """
    formats = (False, True) if bfloat16 is None else (bfloat16,)
    return [Setting(each, format) for each in sorted(threads) for format in formats]


@contextmanager
def threads_restored() -> Iterator[int]:
    """The number of torch's threads, which may be set while it lasts and is then as it was."""
    threads = torch.get_num_threads()
    try:
        yield threads
    finally:
        use_threads(threads)


def use_threads(threads: int) -> None:
    """Have torch use so many from now on."""
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def more_threads_help(threads: int) -> bool:
    """Whether so many threads do short pieces of work faster than one does, in two of three comparisons: a tenth of a
    second."""
    before = torch.get_num_threads()
    numbers = torch.ones(_PIECE)
    try:
        return sum(_are_faster(threads, numbers) for _ in range(3)) >= 2
    finally:
        use_threads(before)


def _are_faster(threads: int, numbers: torch.Tensor) -> bool:
    use_threads(1)
    start = time.perf_counter()
    for _ in range(_PIECES):
        torch.exp(numbers)
    use_threads(threads)
    middle = time.perf_counter()
    for _ in range(_PIECES):
        torch.exp(numbers)
        if time.perf_counter() - middle > _LEAST_SHARE * (middle - start):  # where they wait it may be for long
            return False
    return True


def bfloat16_is_faster(model: nn.Module, batches: Batches) -> bool:
    """The faster of float32 and bfloat16 for a step of this model, by the best of three each; nothing is learnt."""
    buffers = {name: value.clone() for name, value in model.state_dict().items()}
    best = {enabled: min(_step_seconds(model, batches, enabled)) for enabled in (False, True)}
    model.load_state_dict(buffers)
    model.zero_grad()
    return best[True] < best[False]


def _step_seconds(model: nn.Module, batches: Batches, bfloat16: bool) -> Iterator[float]:
    pixels, labels = batches.at(0)
    for _ in range(3):
        start = time.perf_counter()
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            logits = logits_of(model, batches.normalized(pixels))
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        wait_for(pixels.device)
        yield time.perf_counter() - start


def wait_for(place: torch.device) -> None:
    """Until what was begun on an accelerator is done."""
    if place.type != "cpu":
        torch.accelerator.synchronize(place)
