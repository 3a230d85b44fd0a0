"""Tables and printable text for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

_USUAL, _WIDEST = 80, 110
_NARROWEST = 12


def terminal_width() -> int:
    """The columns to use: those of the terminal (or of ``COLUMNS``) between 80 and 110, and 80 without a terminal."""
    return min(max(shutil.get_terminal_size((_USUAL, 24)).columns, _USUAL), _WIDEST)


def wrapped(text: str, first: str = "", further: str = "") -> list[str]:
    """Lines within the terminal, the first with one prefix and the others with another.

    >>> wrapped("a word", "note: ")
    ['note: a word']
    """
    return textwrap.wrap(
        text, terminal_width(), initial_indent=first, subsequent_indent=further, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def printable(text: object) -> str:
    """Text from a file without what would steer a terminal: control characters and the like become ``�``.

    >>> printable("a\\x1b[31mb")
    'a�[31mb'
    """
    return "".join(c if c.isprintable() else "�" for c in str(text))


def cut(text: str, width: int) -> str:
    """The end of a text that is too long, which is where the names of neighbors differ.

    >>> cut("stages.2.1.expand", 9)
    '…1.expand'
    """
    return text if len(text) <= width else f"…{text[1 - width :]}"


def short(count: float, gap: str = "") -> str:
    """Three digits of a number and k, M or G for thousands, millions and more, ``gap`` between them.

    >>> [short(count) for count in (0, 999, 65536, 12501632)]
    ['0', '999', '65.5k', '12.5M']
    """
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * factor:
            digits = f"{count / factor:.3g}" if count < 999.5 * factor else f"{count / factor:.0f}"
            return f"{digits}{gap}{sign}"
    return f"{count:.0f}{gap}"


def aligned(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int,
    fill: int | None = None,
    optional: Sequence[str] = (),
    width: int | None = None,
) -> list[str]:
    """Lines of columns, the first ``left`` of them flush left, within ``width`` (that of the terminal if None).

    If they are too wide, they move together, then the columns ``optional`` are left out, in this order (the last line
    names them), then column ``fill`` is cut.

    >>> aligned(["name", "n"], [["conv", "12"], ["add", "3"]], left=1)
    ['name   n', 'conv  12', 'add    3']
    >>> aligned(["name", "core", "n"], [["conv", "A72", "12"]], left=2, optional=["core"], width=10)
    ['name   n', 'conv  12', 'not shown in 10 columns: core (use a wider terminal or --json)']
    """
    width = terminal_width() if width is None else width
    cells = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shown, hidden = list(range(len(head))), list[str]()
    for name in optional:
        if sum(widths[i] for i in shown) + len(shown) - 1 > width:
            shown.remove(list(head).index(name))
            hidden.append(name)
    room = width - sum(widths[i] for i in shown)
    gap = "  " if room >= 2 * (len(shown) - 1) else " "
    if fill is not None:
        widths[fill] = min(widths[fill], max(_NARROWEST, widths[fill] + room - len(gap) * (len(shown) - 1)))
    lines = []
    for row in cells:
        parts = [cut(row[i], widths[i]) for i in shown]
        padded = [
            part.ljust(widths[i]) if i < left else part.rjust(widths[i]) for i, part in zip(shown, parts, strict=True)
        ]
        lines.append(gap.join(padded).rstrip())
    if hidden:
        names = ", ".join(hidden)
        lines += wrapped(f"not shown in {width} columns: {names} (use a wider terminal or --json)")
    return lines
