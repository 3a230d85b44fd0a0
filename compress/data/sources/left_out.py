"""Counts, by reason, the files of a source that are not part of the dataset."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from compress.data.decoding import as_text

log = logging.getLogger("fitnas")

_KINDS_LISTED = 5


@dataclass(slots=True)
class LeftOut:
    """Files that are no part of the data: ``files`` by reason, ``kinds`` of those that are no images by suffix.

    >>> left = LeftOut()
    >>> left.add("in hidden or system folders", 2)
    >>> left.add_kind(".txt")
    >>> left.text()
    '2 in hidden or system folders; 1 of other kinds (.txt 1)'
    """

    files: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, count: int = 1) -> None:
        """Count files that are left out for a reason."""
        if count:
            self.files[reason] += count

    def add_kind(self, suffix: str) -> None:
        """Count a file of which nothing can read an image."""
        self.kinds[as_text(suffix.lower())[:12] or "no suffix"] += 1

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of files for each reason."""
        return {**self.files, **({self._kinds_text(): self.kinds.total()} if self.kinds else {})}

    def text(self) -> str:
        """One line; empty where nothing is left out."""
        return "; ".join(f"{count:,} {reason}" for reason, count in self.counts.items())

    def tell(self, source: str) -> None:
        """Write the line to the log: a warning where images are left out."""
        if self.counts:
            level = logging.WARNING if self.files else logging.INFO
            log.log(level, "--data %s: files left out: %s", source, self.text())

    def _kinds_text(self) -> str:
        ranked = sorted(self.kinds.items(), key=lambda pair: (-pair[1], pair[0]))
        named = ", ".join(f"{kind} {count:,}" for kind, count in ranked[:_KINDS_LISTED])
        return f"of other kinds ({named}{', ...' if len(ranked) > _KINDS_LISTED else ''})"
