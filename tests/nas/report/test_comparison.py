"""Several runs on one page."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from compress.atomic_files import write_json
from nas.commands.main import main
from nas.report.comparison import render_comparison, render_runs, warnings_of
from nas.report.run_files import FinishedRun
from tests.nas.report.pages import ALERT, Page, metrics_of, study_of, text_of


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return metrics_of(["a", "b"], latency_ms=2.5) | {"seconds": 90.0}


def changed(metrics: dict[str, Any], **config: Any) -> dict[str, Any]:
    other = copy.deepcopy(metrics)
    other["config"] |= config
    return other


def runs_of(*metrics: dict[str, Any]) -> list[FinishedRun]:
    study = study_of(2)
    return [FinishedRun(Path(f"/runs/{name}"), each, study) for name, each in zip("abcd", metrics, strict=False)]


def test_results_and_differing_settings_stand_beside_each_other(metrics: dict[str, Any]) -> None:
    other = changed(metrics, seed=7, latency="5ms", out="elsewhere")
    other["final"] = {**other["final"], "test_accuracy": 0.5, "file_bytes": 12_345}
    other["budget_met"] = False
    html = render_runs(runs_of(metrics, other))
    results, settings = text_of(html, "runs").split(), text_of(html, "settings").split()
    assert "89.00%" in results
    assert "50.00%" in results
    assert "12,345" in results
    assert results.count("exceeded") == 1
    assert " ".join(settings) == "Settings that differ setting a b latency not set 5ms seed 0 7"
    page = Page(html)
    assert page.count("circle", "run-dot") == 2
    assert page.count("line", "run1") == 3  # a cross, and the legend


def test_runs_of_the_same_settings_say_so(metrics: dict[str, Any]) -> None:
    assert "All settings are identical." in text_of(render_runs(runs_of(metrics, metrics)), "settings")


def test_what_cannot_be_compared_is_said(metrics: dict[str, Any]) -> None:
    assert warnings_of(runs_of(metrics, metrics)) == []
    other = copy.deepcopy(metrics)
    other["asked"] = {**other["asked"], "data": "cats", "device": "phone"}
    other["final"] = {**other["final"], "latency_source": "estimated"}
    said = " ".join(warnings_of(runs_of(metrics, other)))
    assert "different data" in said
    assert "different devices" in said
    assert "Some latencies are measured, others estimated." in said


def test_names_of_folders_and_settings_are_text(metrics: dict[str, Any]) -> None:
    other = changed(metrics, space=ALERT)
    other["deployed"] = ALERT
    study = study_of(2)
    html = render_runs([FinishedRun(Path(f"/{i}/{ALERT}"), each, study) for i, each in enumerate((metrics, other))])
    assert ALERT not in html
    assert Page(html).text.count(ALERT.rpartition("/")[2]) >= 3


def test_the_command_writes_one_page_of_several_folders(
    finished_once: Path,
    metrics: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, seed in (("first", 1), ("second", 2)):
        shutil.copytree(finished_once, tmp_path / name)
        write_json(tmp_path / name / "metrics.json", changed(metrics, seed=seed))
    monkeypatch.chdir(tmp_path)
    assert main(["report", "first", "second"]) == 0
    assert capsys.readouterr().out == "report: comparison.html\n"
    assert "Comparison of 2 runs" in Path("comparison.html").read_text()
    assert main(["report", "first", "--out", "page.html"]) == 0
    assert "Results on the test images" in Path("page.html").read_text()
    for wrong, said in (
        (["first", "nowhere"], "nowhere is not a finished run"),
        (["first", "first"], "the same run folder was given twice"),
        (["first"] * 5, "2 to 4 runs, got 5"),
        (["first", "--out", "."], "--out must be a file"),
    ):
        assert main(["report", *wrong]) == 2
        assert said in capsys.readouterr().err


def test_metrics_that_lack_a_number_are_refused(finished: Path, finished_once: Path, metrics: dict[str, Any]) -> None:
    write_json(finished / "metrics.json", metrics | {"final": {}})
    with pytest.raises(ValueError, match="not a finished run"):
        render_comparison([finished_once, finished])
