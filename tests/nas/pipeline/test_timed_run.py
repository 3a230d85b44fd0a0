"""A run whose time is limited: planned, kept to, told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nas
from nas.commands.main import main
from nas.commands.output.run_table import run_table

ASKED = {"data": "digits", "size": 16, "latency": "1ms", "latency_from": "estimated", "teacher": "none", "time": "75s"}


@pytest.mark.slow
def test_a_run_by_time_says_what_it_planned_and_what_came_of_it(tmp_path: Path) -> None:
    result = nas.run(**ASKED, out=tmp_path / "run")
    metrics, folder = result.metrics, result.folder
    plan = metrics["plan"]
    assert len(plan["lines"]) == 3
    assert plan["ran_epochs"] > 0
    assert plan["winner_epochs"] > 0
    assert plan["images"] == 1222 + 216
    assert metrics["search"]["candidates"]["known"] >= 1
    assert metrics["rows"][0]["label"] == "selected network"
    assert all(row["val_seen"] for row in metrics["rows"])
    assert "used for training" in " ".join(run_table(metrics["rows"]))
    page = (folder / "report.html").read_text()
    assert plan["lines"][0][1:] in page  # as sentences
    assert "twice the time" in page
    assert "plan: " in (folder / "run.log").read_text()
    kept = json.loads((folder / "time_plan.json").read_text())
    assert kept["lines"] == plan["lines"]
    file = (folder / metrics["deployed"]).read_bytes()
    again = nas.run(**ASKED, out=folder)  # nothing is trained again
    assert again.metrics["plan"]["ran_epochs"] == plan["ran_epochs"]
    assert (folder / metrics["deployed"]).read_bytes() == file


def test_a_time_that_is_too_short_is_refused_with_the_least(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--data", "digits", "--set", "size=16", "--time", "12s", "--out", str(tmp_path / "run")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nas: error")]
    assert len(said) == 1
    assert "--time 12s is too short: training on 1,438 images on this machine takes at least " in said[0]
