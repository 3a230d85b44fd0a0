"""The report: its numbers against other people's code, the page in a browser, and what must never be in it."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import optuna
import pytest
from sklearn.metrics import confusion_matrix, recall_score

import nas.results.collect
from compress import Artifact, Preprocessing, load_data
from compress.networks.onnx_export import export_onnx, predict_onnx
from compress.quantization.int8.ptq import Quantize
from compress.stage_interface import Context
from compress.stages.deployed_file import deploy
from compress.stages.runner import run_stages
from hw_profiles import Budget, load_device
from hw_profiles.latency.estimate import estimate
from hw_profiles.runtimes.fusion import fuse
from nas import search
from nas.config import Config
from nas.report.page import render, render_run, snippet
from nas.results.collect import METRICS_SCHEMA, Findings, collect
from nas.results.prediction_statistics import class_facts, flips, wilson
from nas.results.teacher_info import TeacherInfo
from search_spaces import build_model, preset
from tests.nas.report.pages import ALERT, Page, metrics_of, study_of, text_of
from tests.optional_parts import require

SECTIONS = ("budget", "candidates", "stages", "architecture", "memory", "tested", "data", "use", "asked")


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_the_published_ones(right: int, total: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


def test_confusions_and_recall_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    labels, predictions = generator.integers(0, 7, 300), generator.integers(0, 7, 300)
    facts = class_facts(predictions, labels, 7)
    theirs = confusion_matrix(labels, predictions, labels=range(7))
    assert facts["matrix"] == theirs.tolist()
    assert [c["recall"] for c in facts["per_class"]] == pytest.approx(recall_score(labels, predictions, average=None))
    np.fill_diagonal(theirs, 0)
    assert [p["count"] for p in facts["most_confused"]] == sorted(theirs.ravel().tolist(), reverse=True)[:20]


def test_a_class_without_test_images_has_no_recall() -> None:
    facts = class_facts(np.array([0, 2]), np.array([0, 2]), 3)
    assert facts["per_class"][1]["recall"] is None
    metrics = metrics_of(["a", "b", "c"])
    metrics["test"] |= facts
    assert "–" in text_of(render(metrics, study_of(3)), "tested")


def test_flips_are_sorted_by_what_they_mean() -> None:
    labels = np.array([0, 1, 2, 3, 4, 5])
    found = flips(np.array([0, 1, 0, 0, 0, 5]), np.array([0, 0, 2, 1, 0, 1]), labels)
    assert found["examples"] == [
        {"index": 1, "true": 1, "before": 1, "after": 0},
        {"index": 2, "true": 2, "before": 0, "after": 2},
        {"index": 3, "true": 3, "before": 0, "after": 1},
        {"index": 5, "true": 5, "before": 5, "after": 1},
    ]
    kinds = ("changed", "right_before_wrong_now", "wrong_before_right_now", "both_wrong_but_different")
    assert [found[kind] for kind in kinds] == [4, 2, 1, 1]


def test_names_from_outside_are_text_and_nothing_else() -> None:
    metrics = metrics_of([ALERT, '" onmouseover="alert(1)', "cat"])
    metrics["asked"]["data"] = metrics["config"]["data"] = f"/data/{ALERT}"
    metrics["warnings"] = [ALERT]
    metrics["rows"][0]["label"] = metrics["rows"][3]["note"] = ALERT
    metrics["test"]["flips"]["reference"] = metrics["deployed"] = ALERT
    html = render(metrics, study_of(3))
    assert ALERT not in html
    page = Page(html)
    assert page.count("script") == 1
    assert page.text.count(ALERT) >= 8
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON stand, of a list only those of the first entry."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value[:1])
        for key, inner in pairs:
            yield from leaves(inner, (*place, key))
    else:
        yield place


def test_no_value_of_metrics_json_can_bring_a_script() -> None:
    metrics, study = metrics_of(["a", "b"], latency_ms=2.5, peak_ram_bytes=9e6, flash_bytes=1e6), study_of(2)
    places = list(leaves(metrics))
    assert len(places) > 120
    for place in places:
        changed = copy.deepcopy(metrics)
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = ALERT
        try:
            html = render(changed, study)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            continue  # what render_run refuses
        assert ALERT not in html, place


def test_a_thousand_classes_do_not_make_a_table_of_a_thousand() -> None:
    metrics = metrics_of([f"class {i}" for i in range(1000)])
    assert metrics["test"]["matrix"] is None
    html = render(metrics, study_of(3))
    assert len(html) < 200_000
    (tested,) = re.findall(r'<section id="tested".*?</section>', html, re.DOTALL)
    assert Page(tested).count("tr") < 100
    worst = metrics["test"]["most_confused"][0]
    assert f"class {worst['true']}" in text_of(html, "tested")
    assert "20 classes with the lowest recall (of 1000)" in text_of(html, "tested")


def test_each_block_is_a_box_each_kernel_a_bar_and_the_peak_has_a_name() -> None:
    metrics = metrics_of(["a", "b"], peak_ram_bytes=1_500_000)
    html = render(metrics, study_of(3))
    page = Page(html)
    assert page.count("rect", "block") == len(list(preset("mobilenetv2_100").blocks()))
    memory = metrics["memory"]
    assert page.count("rect", "peak") == 1
    assert page.count("rect", "live") == len(memory["kernels"]) - 1
    assert f"peak {memory['peak_bytes']:,} bytes at {memory['kernels'][memory['peak_index']]['name']}" in page.text
    assert "limit 1,500,000 bytes" in text_of(html, "memory")
    assert "inverted residual 3×3, stride 2, 16 → 96 → 24" in text_of(html, "architecture")
    assert "56 × 56" in text_of(html, "architecture")


def test_stages_say_why_they_were_undone_and_estimates_stand_beside_measurements() -> None:
    html = render(metrics_of(["a", "b"], latency_ms=2.5), study_of(3))
    stages = text_of(html, "stages")
    assert "reverted (slower: 1.1 times as long as before)" in stages
    assert "limit 2.5" in stages
    assert stages.count("9.875") == 4
    assert "1.000 (0.900–1.100) measured  9.875" in stages.replace("measured 9", "measured  9")
    assert "0.5" not in text_of(html, "budget")
    assert "latency (measured) \n \n at most 1.1 ms of 2.5 ms (50%): met" in text_of(html, "budget")


def test_a_teacher_of_whom_little_is_known_an_empty_study_and_facts_of_the_data_are_shown() -> None:
    metrics = metrics_of(["a", "b"])
    metrics["rows"].insert(0, {"label": "teacher", "role": "teacher", "note": "timm:x", "params": 5, "val_accuracy": 0.5,
                               "test_accuracy": 0.5, "test_accuracy_low": 0.4, "test_accuracy_high": 0.6})  # fmt: skip
    empty = optuna.create_study()
    empty.set_user_attr("objectives", ["accuracy"])
    html = render(metrics, empty)
    assert "timm:x" in text_of(html, "stages")
    assert "1 skipped, e.g. <script>alert(1)</script>.png (cut off)" in text_of(html, "data")
    assert "of a training or validation image: 1 of 9 test images. Examples: b.png and a.png" in text_of(html, "data")
    assert "No candidate was evaluated." in text_of(html, "candidates")


def test_the_candidates_are_circles_and_the_marks_are_not() -> None:
    study = study_of(6)
    page = Page(render(metrics_of(["a", "b"], latency_ms=2.5), study))
    complete = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert page.count("circle") == len(complete)
    assert page.count("circle", "chosen") == 1
    for kind in ("winner", "deployed", "baseline"):
        assert page.count("path", kind) == 2  # one in the picture, one in the legend


def test_the_snippet_classifies_as_the_file_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = preset("resnet8", input_shape=(3, 16, 20), num_classes=3)
    record = Preprocessing(
        channels=3, sizes=((16, 20),), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), class_names=("a", "b", "c")
    )
    artifact = Artifact(source=arch, weights={}, preprocessing=record).with_model(build_model(arch, seed=0))
    export_onnx(artifact, tmp_path / "it's.onnx")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(snippet("it's.onnx"), "snippet", "exec"), names)
    colors = np.random.default_rng(0).integers(0, 256, (60, 1, 1, 3), dtype=np.uint8)
    pixels = np.broadcast_to(colors, (60, 16, 20, 3))
    x = (pixels / 255 - record.mean) / record.std
    session = onnxruntime.InferenceSession("it's.onnx")
    expected = [session.run(None, {"input": each[None].transpose(0, 3, 1, 2).astype(np.float32)})[0] for each in x]
    assert [names["classify"](image) for image in pixels] == ["abc"[logits.argmax()] for logits in expected]
    assert len({int(logits.argmax()) for logits in expected}) > 1


def test_a_finished_run_is_rendered_again_from_its_folder(finished: Path) -> None:
    html = render_run(finished)
    assert [a["id"] for tag, a in Page(html).tags if tag == "section"] == list(SECTIONS)
    assert Page(html).count("circle") == 6


def test_a_finished_run_may_lie_in_a_folder_of_any_name(
    finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    odd = finished.rename(tmp_path_factory.mktemp("runs") / "50% or 100%20? #1 {x}")
    assert render_run(odd) == render_run(odd.rename(finished))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.json", None, "is not a finished run: metrics.json is missing"),
        ("study.db", None, "is not a finished run: study.db is missing"),
        ("metrics.json", b"{", "metrics.json: not JSON"),
        ("metrics.json", b"[]", "metrics.json: must hold a JSON object, got list"),
        ("metrics.json", b"\xff\xfe", "metrics.json: not JSON"),
        (
            "metrics.json",
            b'{"schema": 1}',
            f"written by a different fitnas version (schema 1, expected {METRICS_SCHEMA})",
        ),
        ("metrics.json", f'{{"schema": {METRICS_SCHEMA}}}'.encode(), "not a finished run"),
        ("study.db", b"no database", "not the study of a run"),
        ("study.db", b"", "not the study of a run"),
    ],
)
def test_what_is_no_finished_run_is_refused(finished: Path, file: str, content: bytes | None, said: str) -> None:
    (finished / file).unlink()
    if content is not None:
        (finished / file).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(said)):
        render_run(finished)


def test_the_numbers_come_from_the_files_and_each_file_is_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained network, quantized: what ONNX Runtime says by itself is what stands in the metrics."""
    data = load_data("digits", size=16)
    arch = preset("resnet8", input_shape=(1, 16, 16), num_classes=10)
    context = Context(data=data, device=load_device("host"), max_accuracy_drop=100.0, measured=False)
    start = Artifact(source=arch, weights={}, preprocessing=data.preprocessing).with_model(build_model(arch, seed=0))
    winner = deploy(start, context, tmp_path / "winner")
    artifact = run_stages(winner, [Quantize()], context, tmp_path / "stages", home=tmp_path / "winner")
    study = search(lambda t: arch, lambda a, f: 0.5, cost=lambda a: {"latency_ms": 1.0}, n_trials=1)
    runs: list[Path] = []

    def counted(path: Path, *others: Any) -> Any:
        runs.append(path)
        return predict_onnx(path, *others)

    monkeypatch.setattr(nas.results.collect, "predict_onnx", counted)
    found = collect(
        Findings(
            config=Config(), asked=Budget(), folder=tmp_path, data=data, teacher_info=TeacherInfo(), study=study, artifact=artifact,
            baseline=None, context=context, seconds=1.0,
        )
    )  # fmt: skip
    metrics = found.metrics
    assert len(runs) == 2
    files = (tmp_path / "winner" / "model.onnx", found.deployed)
    x = data.preprocessing.tensor(data.test.images)
    before, after = (onnxruntime.InferenceSession(f).run(None, {"input": x})[0].argmax(1) for f in files)
    assert metrics["test"]["matrix"] == confusion_matrix(data.test.labels, after, labels=range(10)).tolist()
    assert metrics["final"]["test_balanced_accuracy"] == pytest.approx(
        recall_score(data.test.labels, after, average="macro", zero_division=0)
    )
    assert metrics["test"]["flips"]["reference"] == "selected network"
    assert metrics["test"]["flips"]["changed"] == int((before != after).sum())
    assert metrics["winner_trial"] == 0
    assert metrics["memory"]["peak_bytes"] == metrics["final"]["peak_ram_bytes"]
    assert sum(b["macs"] for b in metrics["architecture"]["blocks"]) == arch.workload().macs - 64 * 10
    formatted = arch.workload().with_precision("int8")
    assert metrics["rows"][1]["estimated_ms"] == estimate(formatted, fuse(formatted), context.device).ms
    assert Page(render(metrics, study)).count("section") == len(SECTIONS)


def browser() -> str:
    """Chromium's command."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    require(found is not None, "chromium is not installed")
    return str(found)


def shown(html: str, folder: Path) -> tuple[str, list[str]]:
    """The page as a browser builds it, and what its console says."""
    (folder / "page.html").write_text(html)
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
               f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "page.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_shows_it_without_an_error(tmp_path: Path) -> None:
    html = render(metrics_of(["cat", ALERT], latency_ms=2.5, peak_ram_bytes=10_000_000), study_of(6))
    dom, console = shown(html, tmp_path)
    assert console == []
    page = Page(dom)
    assert [a["id"] for tag, a in page.tags if tag == "section"] == list(SECTIONS)
    tips = [attributes["data-tip"] for _, attributes in page.tags if "data-tip" in attributes]
    assert any(tip is not None and tip.startswith("trial ") for tip in tips)
    assert page.count("title") == 1  # those of the pictures became tips


def test_a_script_that_breaks_is_noticed(tmp_path: Path) -> None:
    html = render(metrics_of(["a", "b"]), study_of(3)).replace("querySelectorAll", "queryAll")
    assert any("queryAll" in line for line in shown(html, tmp_path)[1])
