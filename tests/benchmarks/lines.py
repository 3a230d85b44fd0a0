"""Results of benchmarks as JSON lines: appended one by one, so that a benchmark stops and goes on at any time."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "benchmarks"


def commit() -> str:
    """The commit that is measured, with ``+`` where files other than the results differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + (
        "+" if git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/benchmarks") else ""
    )


def read(name: str) -> list[dict[str, Any]]:
    """All lines of a benchmark."""
    path = FOLDER / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def latest_by_case(name: str) -> dict[str, list[dict[str, Any]]]:
    """The latest line of each case and seed, by case."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in latest(name).values():
        found.setdefault(line["case"], []).append(line)
    return found


def latest(name: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The latest line of each case and seed."""
    return {(line["case"], line["seed"]): line for line in read(name)}


def append(name: str, line: Mapping[str, Any]) -> None:
    """Write one line, and print it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def extend(
    name: str, cases: Iterable[tuple[str, int]], run: Callable[[str, int], dict[str, Any]], minutes: float
) -> None:
    """Append the result of every (case, seed) that has no line for this commit yet, until the minutes are over."""
    here, deadline = commit(), time.monotonic() + 60 * minutes
    done = {(line["case"], line["seed"], line["commit"]) for line in read(name)}
    for case, seed in cases:
        if (case, seed, here) in done:
            continue
        if time.monotonic() > deadline:
            print("the time is over; the same command goes on")
            return
        append(name, {"case": case, "seed": seed, "commit": here, **run(case, seed)})
