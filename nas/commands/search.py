"""``nas search`` and ``nas worker``: only the search, on one machine or several."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from compress.atomic_files import json_text
from nas.commands.output.text_table import aligned
from nas.samplers.trial_attributes import ENDED, started

_COLUMNS = ("trial", "val acc", "latency ms", "peak RAM", "bytes", "params")


def run_search(parsed: Namespace, overrides: Mapping[str, Any]) -> None:
    """Search, and print the front of accuracy and latency."""
    from nas.pipeline.search_alone import search_networks

    found = search_networks(parsed.config, **overrides)
    facts = found.facts()
    if parsed.json:
        print(json_text(facts))
        return
    rows = [
        (
            str(row["trial"]), f"{row['val_accuracy']:.2%}", f"{row['latency_ms']:.3f}", f"{row['peak_ram_bytes']:,}",
            f"{row['flash_bytes']:,}", f"{row['params']:,}",
        )
        for row in facts["front"]
    ]  # fmt: skip
    print("\n" + "\n".join(aligned(_COLUMNS, rows, left=0)) + "\n")
    print(f"{facts['evaluated']} candidates were trained, {facts['proposed']} proposed; {facts['ended']}")
    print(f"selected network: {facts['winner']['file']}")


def run_worker(study: str, where: Mapping[str, Any]) -> None:
    """Work on a study until it is complete."""
    from nas.pipeline.search_alone import join_search

    done = join_search(study, **where)
    trials = done.get_trials(deepcopy=False)
    print(f"{sum(map(started, trials))} candidates were trained by all workers; {done.user_attrs.get(ENDED)}")
