"""The interval of the accuracy that is lost, and when there are images enough to ask for it."""

from __future__ import annotations

import numpy as np
import pytest

from compress.stages.accuracy_change import AccuracyChange, confidence_on


@pytest.mark.parametrize(("lost", "gained", "images"), [(0.03, 0.02, 1000), (0.01, 0.01, 5000), (0.02, 0.0, 400)])
def test_the_upper_end_is_exceeded_as_rarely_as_it_says(lost: float, gained: float, images: int) -> None:
    draws = np.random.default_rng(0).multinomial(images, [lost, gained, 1 - lost - gained], size=3000)
    found = [AccuracyChange(lost=int(a), gained=int(b), images=images) for a, b, _ in draws]
    held = np.mean([each.upper(0.9) >= 100 * (lost - gained) for each in found])
    assert 0.88 <= held <= 0.95
    held = np.mean([each.lower(0.9) <= 100 * (lost - gained) for each in found])
    assert held >= 0.85


def test_images_are_compared_one_by_one() -> None:
    before, after = np.array([True, True, False, False, True]), np.array([False, True, True, False, False])
    change = AccuracyChange.between(before, after)
    assert (change.lost, change.gained, change.points_lost) == (2, 1, 20.0)
    assert change.upper(0.5) == change.lower(0.5) == 20.0
    assert change.lower(0.9) < 20 < change.upper(0.9)


@pytest.mark.parametrize(("images", "allowed", "asked"), [(100, 10.0, 0.9), (1000, 1.0, 0.9), (10, 0.0, 0.5)])
def test_few_images_are_asked_for_less(images: int, allowed: float, asked: float) -> None:
    assert confidence_on(images, allowed, 0.9) == pytest.approx(asked)


@pytest.mark.parametrize("images", [20, 100, 216, 400])
def test_a_network_that_loses_nothing_can_be_shown_on_few_images(images: int) -> None:
    changed = round(0.01 * images)
    usual = AccuracyChange(lost=changed, gained=changed, images=images)
    confidence = confidence_on(images, 1.0, 0.9)
    assert 0.5 < confidence < 0.9
    assert usual.upper(confidence) == pytest.approx(1.0)
    assert AccuracyChange(lost=changed + 1, gained=changed, images=images).upper(confidence) > 1.0


@pytest.mark.parametrize(("lost", "gained", "images"), [(1, 0, 0), (-1, 0, 5), (3, 3, 5)])
def test_impossible_changes_are_refused(lost: int, gained: int, images: int) -> None:
    with pytest.raises(ValueError, match="lost and gained must be parts of at least one image"):
        AccuracyChange(lost=lost, gained=gained, images=images)
