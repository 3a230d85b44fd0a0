"""Selects the channels to remove: those with the least importance for what removing them saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from compress.pruning.importance import Scores

# saved(widths, group, narrower width): what is saved where a group of all these widths becomes narrower.
Saved = Callable[[Mapping[str, int], str, int], float]
# enough(widths, group, narrower width): whether to stop rather than take this step.
Enough = Callable[[Mapping[str, int], str, int], bool]

_MOST_OF_A_GROUP = 0.75  # what one step may take of a group, so that no layer is cut through


@dataclass(frozen=True, order=True, slots=True)
class _Step:
    lost_for_saving: float  # importance lost for what is saved
    lost: float
    group: str
    width: int


def choose_channels(
    scores: Scores,
    multiple: int | Mapping[str, int],
    saved: Saved,
    enough: Enough,
    *,
    least: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """Indices that stay in each group.

    Again and again the weakest channels of one group leave together, down to a multiple of ``multiple`` (one for all,
    or one for each): of the group where the sum of their scores, divided by what their leaving saves, is least. Where
    one multiple saves nothing, two are looked at, and so on. What saves nothing at all leaves last. At least one
    multiple and a quarter of each group stay, or ``least``.

    >>> import torch
    >>> scores = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([2.0, 2.0])}
    >>> costs = {"a": 1.0, "b": 3.0}
    >>> kept = choose_channels(scores, 1, lambda w, g, n: costs[g] * (w[g] - n),
    ...                        lambda w, g, n: sum(w.values()) < 4)
    >>> {group: len(indices) for group, indices in kept.items()}
    {'a': 2, 'b': 1}
    """
    ranked = {group: score.sort().values.double().cumsum(0) for group, score in scores.items()}
    width = {group: len(score) for group, score in scores.items()}
    multiples = _per_group_setting(scores, multiple)
    least = least_widths(width, multiple) if least is None else least
    while True:
        ways = {
            group: range(_below(width[group], multiples[group]), least[group] - 1, -multiples[group]) for group in width
        }
        steps = [step for g in width if (step := _best_step(ranked[g], width, g, ways[g], saved)) is not None]
        if not steps:
            break
        step = min(steps)
        if enough(width, step.group, step.width):
            break
        width[step.group] = step.width
    return {group: score.topk(width[group]).indices.sort().values for group, score in scores.items()}


def regrow(
    kept: Mapping[str, Tensor],
    scores: Scores,
    multiple: int | Mapping[str, int],
    holds: Callable[[Mapping[str, int]], bool],
) -> dict[str, Tensor]:
    """The indices that stay, and those that need not have left: a group grows by a multiple, the one first whose next
    channels matter most, as long as the limits hold at these widths.

    Of RAM the peak alone counts, so what left before another group lowered the peak often need not have.

    >>> import torch
    >>> scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([4.0, 3.0])}
    >>> kept = {"a": torch.tensor([1]), "b": torch.tensor([0])}
    >>> regrow(kept, scores, 1, lambda width: sum(width.values()) <= 3)["b"]
    tensor([0, 1])
    """
    found, multiples = dict(kept), _per_group_setting(scores, multiple)
    while True:
        width = {group: len(indices) for group, indices in found.items()}
        smaller = [group for group, score in scores.items() if width[group] < len(score)]
        grown = [(*_grown(found[group], scores[group], multiples[group]), group) for group in smaller]
        for _, indices, group in sorted(grown, key=lambda each: -each[0]):
            if holds({**width, group: len(indices)}):
                found[group] = indices
                break
        else:
            return found


def _grown(kept: Tensor, score: Tensor, multiple: int) -> tuple[float, Tensor]:
    """What the next channels of a group matter, and the indices with them."""
    rank = score.clone()
    rank[kept] = math.inf
    wider = min(len(score), len(kept) - len(kept) % multiple + multiple)
    indices = rank.topk(wider).indices.sort().values
    return float(score[indices].sum() - score[kept].sum()), indices


def channels_saved(width: Mapping[str, int], group: str, narrower: int) -> float:
    """The number of channels that leave: each costs the same."""
    return width[group] - narrower


def so_many(scores: Scores, count: float) -> Enough:
    """Stop where the next step would leave ``count`` further than it comes near."""
    total = sum(map(len, scores.values()))

    def enough(width: Mapping[str, int], group: str, narrower: int) -> bool:
        left = count - (total - sum(width.values()))
        return (width[group] - narrower) / 2 > left

    return enough


def least_widths(width: Mapping[str, int], multiple: int | Mapping[str, int]) -> dict[str, int]:
    """The narrowest that :func:`choose_channels` makes each group: a multiple, and at least a quarter of it.

    >>> least_widths({"a": 64, "b": 24, "c": 7}, 8)
    {'a': 16, 'b': 8, 'c': 7}
    """
    multiples = _per_group_setting(width, multiple)

    def least(count: int, multiple: int) -> int:
        quarter = math.ceil((1 - _MOST_OF_A_GROUP) * count)
        return min(count, max(1, math.ceil(quarter / multiple)) * multiple)

    return {group: least(count, multiples[group]) for group, count in width.items()}


def _per_group_setting(groups: Iterable[str], multiple: int | Mapping[str, int]) -> Mapping[str, int]:
    return dict.fromkeys(groups, multiple) if isinstance(multiple, int) else multiple


def _below(width: int, multiple: int) -> int:
    return width - (width % multiple or multiple)


def _best_step(
    lost_below: Tensor, width: Mapping[str, int], group: str, ways: Iterable[int], saved: Saved
) -> _Step | None:
    """How a group becomes narrower next; ``lost_below`` are sums of its scores, the weakest first."""
    whole = len(lost_below)
    gone = whole - width[group]
    nothing_saved = None
    for narrower in ways:
        lost = float(lost_below[whole - narrower - 1] - (lost_below[gone - 1] if gone else 0.0))
        saving = saved(width, group, narrower)
        if saving > 0:
            return _Step(lost / saving, lost, group, narrower)
        nothing_saved = nothing_saved or _Step(math.inf, lost, group, narrower)
    return nothing_saved
