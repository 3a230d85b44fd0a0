"""The page for readers who cannot see it, tell few colors apart, use no mouse, or prefer a dark screen."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.report.page import render
from tests.nas.report.pages import Page, metrics_of, study_of

# Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), severity 1: what is seen without one kind of cone, linear RGB.
VISION = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
CATEGORIES = (
    ("front", "good"),
    ("front", "mark"),
    ("good", "mark"),
    ("front", "pale"),
    ("mark", "pale"),
    ("front", "bad"),
)


@cache
def palettes() -> dict[str, dict[str, str]]:
    style = files("nas.report").joinpath("templates", "style.css").read_text("utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    found = {name: dict(re.findall(r"--([\w-]+): (#\w{6})", text)) for name, text in (("light", light), ("dark", dark))}
    assert found["light"].keys() == found["dark"].keys()
    return found


def linear(color: str) -> NDArray[np.float64]:
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* under D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb.clip(0, 1)
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("palette", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_categories_differ_for_every_kind_of_color_vision(palette: str, vision: str) -> None:
    colors = palettes()[palette]
    seen = {name: lab(np.array(VISION[vision]) @ linear(colors[name])) for pair in CATEGORIES for name in pair}
    near = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in CATEGORIES}
    assert min(near.values()) > 15, near


@pytest.mark.parametrize("palette", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [("ink", "ground"), ("quiet", "ground"), ("bad", "ground"), ("good", "ground"), ("front", "ground"), ("ink", "met"),
     ("ink", "broken"), ("warn", "warn-ground"), ("tip-ink", "tip"), ("ink", "panel"), ("ink", "block")],
)  # fmt: skip
def test_text_has_the_contrast_of_wcag_aa(palette: str, text: str, ground: str) -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    light, dark = sorted((float(weights @ linear(palettes()[palette][each])) for each in (text, ground)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(metrics_of(["a", "b"], latency_ms=2.5, peak_ram_bytes=1e6), study_of(6)))


def test_each_figure_has_a_name_and_its_numbers_as_a_table(page: Page) -> None:
    assert page.count("figure") == 4
    assert page.count("details") == 4
    drawings = [attributes for tag, attributes in page.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert len(drawings) == 4
    assert all(attributes["aria-label"] for attributes in drawings)


def test_the_keyboard_reaches_sections_marks_and_what_scrolls(page: Page) -> None:
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == [f"#{attributes['id']}" for tag, attributes in page.tags if tag == "section"]
    for tag, kind in (("div", "scroll"), ("div", "picture"), ("path", "mark"), ("circle", "chosen")):
        found = [a for t, a in page.tags if t == tag and kind in (a.get("class") or "").split() and "transform" in a]
        found = found or [a for t, a in page.tags if t == tag and kind in (a.get("class") or "").split()]
        assert found
        assert all(attributes.get("tabindex") == "0" for attributes in found), kind


def test_no_word_of_optuna_is_shown(page: Page) -> None:
    for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"):
        assert state not in page.text
