"""Times two functions in turns: their ratio hardly depends on what else the machine does.

The script of a kit contains this module as it is, so it imports nothing of fitnas.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence

_WARMUP_RUNS = 10
_ROUND_SECONDS = 0.002
_FEWEST_ROUNDS = 15

Clock = Callable[[], float]


def clock_of(threads: int) -> Clock:
    """The clock for functions of so many threads: of one thread the time that it had a processor, so that others that
    take its turn are not counted; with several, which wait for each other, the time that passes. On Windows the former
    ticks 64 times a second, too seldom.
    """
    own_time = threads == 1 and hasattr(time, "thread_time") and sys.platform != "win32"
    return time.thread_time if own_time else time.perf_counter


def alternate(
    run: Callable[[], None], reference: Callable[[], None], max_rounds: int, precise: float, clock: Clock
) -> tuple[list[float], list[float]]:
    """The ratio of both times in each round, and the milliseconds of ``run``.

    It ends when the 90 % interval of the median ratio is narrower than ``precise`` either way, or after
    ``max_rounds``.

    >>> ratios, milliseconds = alternate(lambda: None, lambda: None, 15, 0.02, clock_of(1))
    >>> len(ratios), len(milliseconds)
    (15, 15)
    """
    times = [repetitions(f, clock) for f in (run, reference)]
    ratios: list[float] = []
    raw: list[float] = []
    while len(ratios) < max_rounds:
        ours = median_seconds(run, times[0], clock)
        theirs = median_seconds(reference, times[1], clock)
        ratios.append(ours / theirs)
        raw.append(ours * 1000)
        if len(ratios) >= _FEWEST_ROUNDS:
            low, high = median_interval(ratios)
            if (high - low) / 2 < precise * statistics.median(ratios):
                break
    return ratios, raw


def repetitions(run: Callable[[], None], clock: Clock) -> int:
    """How often a function runs in a round, after it was warmed up."""
    for _ in range(_WARMUP_RUNS):
        run()
    return max(3, min(50, round(_ROUND_SECONDS / median_seconds(run, 5, clock))))


def median_seconds(run: Callable[[], None], times: int, clock: Clock) -> float:
    """The median of so many runs."""
    seconds = []
    for _ in range(times):
        start = clock()
        run()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 90 % interval of the median by order statistics.

    >>> median_interval(list(range(101)))
    (41, 59)
    """
    ordered = sorted(values)
    reach = 0.5 * 1.645 * math.sqrt(len(ordered))
    middle = (len(ordered) - 1) / 2
    return ordered[max(0, math.floor(middle - reach))], ordered[min(len(ordered) - 1, math.ceil(middle + reach))]
