"""The trials of a search as a CSV file."""

from __future__ import annotations

import csv
import io

import optuna

from nas.results.records import records


def trials_csv(study: optuna.Study) -> str:
    """The :func:`nas.records` of a study as a CSV file."""
    rows = records(study)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
