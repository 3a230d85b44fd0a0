"""A run as it might end, its page, and a parser of pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from hw_profiles import load_device
from nas import search
from nas.config import Config
from nas.results.collect import METRICS_SCHEMA
from nas.results.network_facts import architecture_facts, memory_facts
from nas.results.prediction_statistics import class_facts, flips, wilson
from search_spaces import preset

ALERT = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + " "

    def count(self, tag: str, kind: str | None = None) -> int:
        return sum(t == tag and (kind is None or kind in (a.get("class") or "").split()) for t, a in self.tags)


def study_of(trials: int, storage: Path | None = None) -> optuna.Study:
    return search(
        lambda trial: trial.suggest_int("x", 1, 30),
        lambda x, fidelity: 0.5 + x / 100,
        cost=lambda x: {"latency_ms": 0.1 * x},
        budget={"latency_ms": 2.5},
        n_trials=trials,
        storage=storage,
        study_name="search" if storage else None,
    )


def row(name: str, role: str, latency: float, right: float, **more: Any) -> dict[str, Any]:
    low, high = wilson(round(right * 200), 200)
    return {
        "label": name, "role": role, "precision": "fp32", "val_accuracy": right, "params": 1000, "macs": 2000,
        "file_bytes": 30_000, "weight_bytes": 20_000, "flash_bytes": 20_000, "latency_ms": latency, "latency_low_ms": 0.9 * latency,
        "latency_high_ms": 1.1 * latency, "latency_source": "measured", "peak_ram_bytes": 4096, "estimated_ms": 9.875,
        "estimated_low_ms": 4.9, "estimated_high_ms": 19.8, "test_accuracy": right, "test_accuracy_low": low,
        "test_accuracy_high": high, "test_balanced_accuracy": right - 0.01, **more,
    }  # fmt: skip


def metrics_of(classes: Sequence[str], **asked: Any) -> dict[str, Any]:
    """Such as a run leaves, the predictions at random."""
    generator = np.random.default_rng(0)
    labels = np.concatenate([np.arange(len(classes)), generator.integers(0, len(classes), 3 * len(classes))])
    before = np.where(generator.random(len(labels)) < 0.7, labels, generator.integers(0, len(classes), len(labels)))
    after = np.where(generator.random(len(labels)) < 0.8, before, generator.integers(0, len(classes), len(labels)))
    arch = preset("mobilenetv2_100", num_classes=len(classes))
    counts = np.bincount(labels).tolist()
    rows = [
        row("selected network", "winner", 2.0, 0.9),
        row("pruned", "stage", 2.2, 0.85, rejection_reason="slower: 1.1 times as long as before"),
        row("int8", "stage", 1.0, 0.89, rejection_reason=None, deployed=True),
        row("resnet8", "baseline", 1.5, 0.95, note="preset"),
    ]
    return {
        "schema": METRICS_SCHEMA, "threads": 1, "asked": {"data": "photos", "device": "host", **asked},
        "config": {name: getattr(Config(data="photos"), name) for name in Config.__dataclass_fields__},
        "environment": {"python": "3.11.7", "packages": {"torch": "2.14.1"}, "measuring": {"cpu": "a CPU"}, "cores": 2},
        "warnings": [], "deployed": "model.int8.onnx", "budget_met": True, "verdict": "model.int8.onnx is deployed",
        "excess": dict.fromkeys(asked, -0.5),
        "final": {**rows[2], "test_images": len(labels), "test_differing_from_pytorch": 0}, "rows": rows,
        "classes": list(classes), "architecture": architecture_facts(arch),
        "data": {"name": "photos", "input_shape": [3, 32, 32], "images": dict.fromkeys(("train", "val", "test"), 9),
                 "class_counts": dict.fromkeys(("train", "val", "test"), counts),
                 "facts": {"skipped": {"count": 1, "files": [{"file": f"{ALERT}.png", "why": "cut off"}]},
                           "near_duplicates": {"val": 0, "test": 1, "pairs": [["b.png", "a.png"]]}}},
        "test": {**class_facts(after, labels, len(classes)),
                 "flips": {"reference": "selected network", **flips(before, after, labels)}},
        "memory": memory_facts(arch.workload().with_precision("int8"), load_device("host")),
        "history": [], "teacher": {}, "trials": {"COMPLETE": 6, "PRUNED": 1}, "winner_trial": 0,
    }  # fmt: skip


def text_of(html: str, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', html, re.DOTALL)
    assert found is not None, name
    return Page(found[0]).text
