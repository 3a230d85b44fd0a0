"""What the changes of images do to their pixels."""

from __future__ import annotations

import math

import pytest
import torch

from compress.training.augmentation import Warps, drawn


def _images(height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _warps(matrix: list[list[float]], contrast: float = 1.0, gain: float = 1.0) -> Warps:
    maps = torch.tensor(matrix).expand(3, 2, 3)
    return Warps(maps, torch.full((3, 1, 1, 1), contrast), torch.full((3, 3, 1, 1), gain))


@pytest.mark.parametrize(
    ("matrix", "dims"),
    [([[1.0, 0, 0], [0, 1, 0]], ()), ([[-1.0, 0, 0], [0, 1, 0]], (3,)), ([[-1.0, 0, 0], [0, -1, 0]], (2, 3))],
)
def test_a_map_says_from_where_each_pixel_is_taken(matrix: list[list[float]], dims: tuple[int, ...]) -> None:
    images = _images(8, 12)
    torch.testing.assert_close(_warps(matrix).applied(images), images.float().flip(dims), atol=1e-3, rtol=0)


def test_a_quarter_turn_is_one() -> None:
    images = _images()
    turned = _warps([[0.0, -1, 0], [1, 0, 0]]).applied(images)
    torch.testing.assert_close(turned, torch.rot90(images.float(), 1, (2, 3)), atol=1e-3, rtol=0)


def test_contrast_is_about_the_mean_and_brightness_multiplies() -> None:
    images = torch.full((3, 3, 4, 4), 100, dtype=torch.uint8)
    images[..., 0] = 60
    found = _warps([[1.0, 0, 0], [0, 1, 0]], contrast=2.0, gain=1.5).applied(images)
    torch.testing.assert_close(found.unique(), torch.tensor([30 * 1.5, 110 * 1.5]), atol=1e-3, rtol=0)


def test_drawn_changes_are_turns_scales_and_shifts_within_the_limits() -> None:
    drawn = Warps.drawn((4000, 3, 20, 30), torch.Generator().manual_seed(1), flip=True)
    in_pixels = drawn.maps[:, :, :2] * torch.tensor([[1, 30 / 20], [20 / 30, 1]])  # x first
    determinant = torch.linalg.det(in_pixels)
    assert 0.45 < (determinant < 0).float().mean() < 0.55  # mirrored
    scale = determinant.abs().sqrt()
    assert 1 / 1.2 - 1e-4 < scale.min() < 0.85
    assert 1.18 < scale.max() < 1.2 + 1e-4
    angle = torch.asin(in_pixels[:, 0, 1] / scale).abs()
    assert math.radians(14) < angle.max() < math.radians(15.01)
    torch.testing.assert_close(in_pixels @ in_pixels.mT, torch.eye(2) * (scale**2)[:, None, None])
    assert 0.24 < drawn.maps[:, :, 2].abs().max() <= 0.25
    unmirrored = Warps.drawn((100, 1, 8, 8), torch.Generator().manual_seed(1), flip=False)
    assert (torch.linalg.det(unmirrored.maps[:, :, :2]) > 0).all()
    assert unmirrored.gains.shape == (100, 1, 1, 1)


def test_strong_changes_stay_in_the_range_of_bytes() -> None:
    found = drawn("strong", tuple(_images().shape), torch.Generator().manual_seed(2), flip=True).applied(_images())
    assert found.min() >= 0
    assert found.max() <= 255
    assert found.std() > 30
