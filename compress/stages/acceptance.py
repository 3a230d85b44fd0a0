"""Decides whether the result of a stage is accepted or rejected, and gives the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.stage_interface import Context
from compress.stages.accuracy_change import AccuracyChange, confidence_on
from hw_profiles.budget import violations
from hw_profiles.latency.estimate import upper_bound_ms

SLOWER = "slower"
_DRIFT = 0.02  # a file run against itself differs by up to so much


def rejection_reason(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    reference: Mapping[str, Any],
    context: Context,
    change: AccuracyChange | None = None,
) -> str | None:
    """The reason to refuse a stage's result, or None: what it costs, or the accuracy that it takes."""
    return cost_reason(before, after, context) or accuracy_reason(before, after, reference, context, change)


def accuracy_reason(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    reference: Mapping[str, Any],
    context: Context,
    change: AccuracyChange | None = None,
) -> str | None:
    """Why a result is not accurate enough, or None.

    A stage that changed neither architecture nor precision, such as training in integers what was in integers, must
    not lose accuracy. Any other must not take more than is allowed: by the upper end of the interval of ``change``,
    the accuracy lost against the reference, if the context has a confidence and there are images enough to ask for it
    (:func:`compress.stages.accuracy_change.confidence_on`), and else by the accuracies.
    """
    same, allowed = _same_form(before, after), context.max_accuracy_drop
    if same:
        lost, allowed = points_lost(before, after), 0.0
    else:
        lost = points_lost(reference, after)
    if lost > allowed + 1e-9:
        return f"accuracy drop of {lost:.2f} points exceeds the limit of {allowed:.2f}"
    if same or change is None:
        return None
    confidence = confidence_on(change.images, allowed, context.confidence)
    if change.upper(confidence) > allowed + 1e-9:
        return (
            f"accuracy drop may be up to {change.upper(confidence):.2f} points (observed {lost:.2f} on {change.images} "
            f"images, {100 * confidence:.0f}% confidence), which exceeds the limit of {allowed:.2f}"
        )
    return None


def cost_reason(before: Mapping[str, Any], after: Mapping[str, Any], context: Context) -> str | None:
    """Why a result costs more than what was there before, or saves nothing, or None.

    Unless it comes closer to a budget that the earlier file breaks, its file must not be larger (its coded file, where
    weights are stored in other formats); one of another architecture must be faster, by 2% at the upper end of the
    90% interval, unless it suffices that it is smaller, and any other must not be slower, by 2% at the lower end.
    Another precision must be faster where nothing is smaller. What changed neither architecture nor precision may cost
    the same.
    """
    if _same_form(before, after) or worst_excess(after, context) < worst_excess(before, context):
        return None
    return _cost_reason(before, after, context.smaller_suffices)


def upper_bounds(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """What is compared with the limits."""
    return {
        "latency_ms": latency_upper_bound(metrics),
        "peak_ram_bytes": metrics["peak_ram_bytes"],
        "flash_bytes": metrics["flash_bytes"],
        "energy_mj": None,
    }


def latency_upper_bound(metrics: Mapping[str, Any]) -> float:
    """The latency of a stage's file that is compared with the limit."""
    return upper_bound_ms(metrics["latency_ms"], metrics["latency_high_ms"], metrics["latency_source"])


def worst_excess(metrics: Mapping[str, Any], context: Context) -> float:
    """How far the limit that is broken most is broken, as a share of it; 0 where all hold."""
    excess = [*violations(upper_bounds(metrics), context.budget.limits()).values()]
    if context.target_bytes is not None:
        excess.append(metrics["coded_bytes"] / context.target_bytes - 1)
    return max([0.0, *excess])


def _same_form(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    same = (after["arch"], after["precision"]) == (before["arch"], before["precision"])
    return same and _stored_alike(before, after)


def points_lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Percentage points of validation accuracy that ``after`` has less than ``before``."""
    lost: float = 100 * (before["val_accuracy"] - after["val_accuracy"])
    return lost


def _cost_reason(before: Mapping[str, Any], after: Mapping[str, Any], smaller_suffices: bool) -> str | None:
    times, low, high = after["latency_ratio"]
    measured = f"{times:.2f}x the previous latency ({low:.2f} to {high:.2f})"
    if low > 1 + _DRIFT:
        return f"{SLOWER}: {measured}"
    smaller = smaller_suffices and after["coded_bytes"] < before["coded_bytes"]
    if after["arch"] != before["arch"] and high > 1 - _DRIFT and not smaller:
        return f"not faster: {measured}"
    # Zeros and shared values take their bytes like any others, until the file is coded.
    size = "file_bytes" if _stored_alike(before, after) else "coded_bytes"
    if after[size] > before[size]:
        compressed = "" if size == "file_bytes" else " compressed"
        return f"larger: {after[size]:,} bytes{compressed} (was {before[size]:,})"
    if after[size] == before[size] and high > 1 - _DRIFT and after["precision"] != before["precision"]:
        return f"neither faster nor smaller: {measured}, {after[size]:,} bytes"
    return None


def _stored_alike(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return bool(after.get("weight_form", "") == before.get("weight_form", ""))
