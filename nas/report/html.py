"""The HTML frame of a page and the parts that pages share, from the templates beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nas.report.svg import joined


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page under a heading; ``name`` is its id."""

    name: str
    heading: str
    body: Markup


def page(title: str, head: Markup, *sections: Section) -> str:
    """A page that needs no other file; ``head`` is above the first section."""
    text = {name: Markup(files("nas.report").joinpath("templates", name).read_text("utf-8")) for name in _FILES}
    return (
        _environment()
        .get_template("page.html")
        .render(title=title, head=head, sections=sections, style=text["style.css"], script=text["script.js"])
    )


_FILES = ("style.css", "script.js")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("nas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def part(name: str, *arguments: Any) -> Markup:
    """The result of a macro of parts.html, with all text escaped.

    >>> part("warnings", ["a < b"])
    Markup('<ul class="warnings" role="note"><li>a &lt; b</li></ul>')
    """
    return Markup(getattr(_environment().get_template("parts.html").module, name)(*arguments))


def section(name: str, heading: str, *parts: object) -> Section:
    """A section from its parts, of which text is escaped."""
    return Section(name, heading, joined(parts))


def percent(share: float | None) -> str:
    """A share in 0..1 as it is shown everywhere in the page; a dash where it is not known.

    >>> percent(0.12345), percent(None)
    ('12.35%', '–')
    """
    return "–" if share is None else f"{100 * share:.2f}%"


def listing(pairs: Mapping[str, object]) -> Markup:
    """Names and values under each other.

    >>> listing({"seed": 0})
    Markup('<dl><dt>seed</dt><dd>0</dd></dl>')
    """
    return part("listing", pairs)


def grid(
    head: Sequence[str], rows: Sequence[Sequence[object]], kind: str = "", row_kinds: Sequence[str] | None = None
) -> Markup:
    """A table of text; the last column is left as words where its head is empty."""
    return part("grid", head, rows, kind, row_kinds or [""] * len(rows))


def figure(drawing: Markup, head: Sequence[str], rows: Sequence[Sequence[object]], what: str = "") -> Markup:
    """A picture with its numbers as a table, folded away, for those who cannot see it or want to copy them."""
    return part("figure", drawing, f"Show data as table{what}", grid(head, rows) if rows else "")


def note(text: str) -> Markup:
    """An explanation."""
    return Markup('<p class="quiet">{}</p>').format(text)
