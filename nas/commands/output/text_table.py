"""Tables and printable text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 110
_NARROWEST = 12


def printable(text: object) -> str:
    """Text from a file without what would steer a terminal: control characters and the like become ``�``.

    >>> printable("a\\x1b[31mb")
    'a�[31mb'
    """
    return "".join(c if c.isprintable() else "�" for c in str(text))


def cut(text: str, width: int) -> str:
    """The end of a text that is too long, which is where the names of neighbours differ.

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
    head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int, fill: int | None = None, width: int = WIDTH
) -> list[str]:
    """Lines of columns, the first ``left`` of them flush left; column ``fill`` is cut to keep lines within ``width``.

    >>> aligned(["name", "n"], [["conv", "12"], ["add", "3"]], left=1)
    ['name   n', 'conv  12', 'add    3']
    """
    cells = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    gap = "  "
    if fill is not None:
        others = sum(widths) - widths[fill]
        if others + widths[fill] + len(gap) * (len(widths) - 1) > width:
            gap = " "
        widths[fill] = min(widths[fill], max(_NARROWEST, width - others - len(gap) * (len(widths) - 1)))
    lines = []
    for row in cells:
        parts = [cut(cell, widest) for cell, widest in zip(row, widths, strict=True)]
        padded = [p.ljust(w) if i < left else p.rjust(w) for i, (p, w) in enumerate(zip(parts, widths, strict=True))]
        lines.append(gap.join(padded).rstrip())
    return lines
