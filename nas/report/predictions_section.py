"""The sections of the report on the test images and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from compress.data.dataset import VAL_DRAWN, VAL_SEEN
from nas.report.html import Section, grid, listing, part, percent, section
from nas.report.svg import element
from nas.results.prediction_statistics import MOST_CLASSES, named

Metrics = Mapping[str, Any]

_MOST_ITEMS = 8


def on_test_section(metrics: Metrics) -> Section:
    """Accuracy beside balanced accuracy, confusions, classes, and what flipped against the float32 reference."""
    final, test, classes = metrics["final"], metrics["test"], metrics["classes"]
    accuracies = (
        f"Accuracy {percent(final['test_accuracy'])} ({test['right']:,} of {test['images']:,}; 95% Wilson "
        f"interval {percent(final['test_accuracy_low'])} to {percent(final['test_accuracy_high'])}). "
        f"Balanced accuracy (mean per-class recall): {percent(final['test_balanced_accuracy'])}."
    )
    return section(
        "tested",
        "Results on the test images",
        element("p", accuracies),
        _confusion(test, classes),
        _classes(metrics),
        _flips(test, classes, metrics["deployed"]),
    )


def data_section(metrics: Metrics) -> Section:
    """What is known of the images: counts, and what was noticed when they were read."""
    data = metrics["data"]
    pairs: dict[str, object] = {"images": _shown(data["images"])}
    for name, numbers in data["class_counts"].items():
        pairs[f"images per class ({name})"] = f"{min(numbers):,} to {max(numbers):,}"
    facts = dict(data["facts"])
    facts.pop("counts", None)  # those stand with the classes
    if skipped := facts.pop("skipped", None):
        pairs["unreadable"] = _skipped(skipped)
    if left_out := facts.pop("left_out", None):
        pairs["ignored files"] = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
    if alike := facts.pop("near_duplicates", None):
        pairs["near-duplicates"] = _near_duplicates(alike, data["images"])
    if facts.pop(VAL_DRAWN, False):
        pairs["validation images"] = "drawn from the training images"
    if facts.pop(VAL_SEEN, False):
        pairs["final training"] = "on the training and validation images"
    pairs |= {name.replace("_", " "): _shown(fact) for name, fact in facts.items()}
    return section("data", "Data", listing(pairs))


def _skipped(fact: Metrics) -> str:
    files = ", ".join(f"{each['file']} ({each['why']})" for each in fact["files"][:_MOST_ITEMS])
    return f"{fact['count']:,} skipped" + (f", e.g. {files}" if files else "")


def _near_duplicates(fact: Metrics, images: Metrics) -> str:
    pairs = "; ".join(" and ".join(pair) for pair in fact["pairs"][:_MOST_ITEMS])
    return (
        f"of a training image: {fact['val']:,} of {images['val']:,} validation images; of a training or validation "
        f"image: {fact['test']:,} of {images['test']:,} test images." + (f" Examples: {pairs}" if pairs else "")
    )


def _confusion(test: Metrics, classes: Sequence[str]) -> Markup:
    matrix = test["matrix"]
    if matrix is None:
        return _confused_pairs(test, classes)
    most = max((n for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j), default=0)
    rows = [
        (classes[i], [_confusion_cell(n, sum(row) if i == j else most, right=i == j) for j, n in enumerate(row)])
        for i, row in enumerate(matrix)
    ]
    return part("confusion", classes, rows, max(map(len, classes)) > 3)


def _confusion_cell(count: int, most: int, *, right: bool) -> dict[str, object]:
    """``share`` of the darkest color of its kind."""
    return {"count": count, "kind": "right" if right else "wrong", "share": count / most if count else 0.0}


def _confused_pairs(test: Metrics, classes: Sequence[str]) -> Markup:
    rows = [[named(classes, p["true"]), named(classes, p["predicted"]), str(p["count"])] for p in test["most_confused"]]
    if not rows:
        return element("h3", "Confusions") + element("p", "No misclassified test images.")
    return element("h3", f"{len(rows)} most confused class pairs (of {len(classes)} classes)") + grid(
        ["true class", "predicted", "images"], rows, "names"
    )


def _classes(metrics: Metrics) -> Markup:
    """Recall of each class beside its counts; of many classes the worst ones."""
    per_class, classes, counts = metrics["test"]["per_class"], metrics["classes"], metrics["data"]["class_counts"]
    order = list(range(len(classes)))
    head = "Per-class results"
    if len(classes) > MOST_CLASSES:
        order = sorted(order, key=lambda i: (_recall(per_class[i]), i))[:MOST_CLASSES]
        head = f"{MOST_CLASSES} classes with the lowest recall (of {len(classes)})"
    rows = []
    for i in order:
        images = [f"{counts[split][i]:,}" for split in ("train", "val", "test")]
        recall = per_class[i]["recall"]
        bar = None if recall is None else 100 * recall
        rows.append({"cells": [classes[i], *images, *_recall_cells(per_class[i])], "recall": bar})
    return part("classes", head, rows)


def _recall(facts: Metrics) -> float:
    return 1.0 if facts["recall"] is None else float(facts["recall"])


def _recall_cells(facts: Metrics) -> tuple[str, str, str]:
    if facts["recall"] is None:
        return ("–", "–", "–")
    return f"{facts['right']:,}", percent(facts["recall"]), f"{100 * facts['low']:.1f}–{100 * facts['high']:.1f}"


def _flips(test: Metrics, classes: Sequence[str], deployed: str) -> Markup:
    flips = test["flips"]
    reference = flips["reference"]
    head = element("h3", "Predictions changed by compression")
    if not flips["changed"]:
        same = f"{deployed} predicts the same class as the float32 reference ({reference}) for every test image."
        return head + element("p", same)
    summary = (
        f"{flips['changed']:,} of {test['images']:,} predictions of {deployed} "
        f"differ{'s' * (flips['changed'] == 1)} from those of the float32 reference ({reference}): "
        f"{flips['right_before_wrong_now']:,} became wrong, "
        f"{flips['wrong_before_right_now']:,} became correct, {flips['both_wrong_but_different']:,} stayed wrong but "
        f"changed class. First {len(flips['examples'])}:"
    )
    rows = [
        [str(e.get("file", e["index"])), *(named(classes, e[key]) for key in ("true", "before", "after"))]
        for e in flips["examples"]
    ]
    return head + element("p", summary) + grid(["test image", "true class", "before", "after"], rows, "names")


def _shown(fact: object) -> str:
    """A fact of any JSON type on one line: the first few entries, and how many there are."""
    if isinstance(fact, Mapping):
        items = [f"{name}: {_shown(value)}" for name, value in list(fact.items())[:_MOST_ITEMS]]
        return ", ".join(items) + (f", … ({len(fact)} in all)" if len(fact) > _MOST_ITEMS else "")
    if isinstance(fact, list | tuple):
        pairs = [value if isinstance(value, list) else [value] for value in fact[:_MOST_ITEMS]]
        items = [" and ".join(map(_shown, pair)) for pair in pairs]
        return f"{len(fact)}" + (f" ({', '.join(items)}{', …' if len(fact) > _MOST_ITEMS else ''})" if items else "")
    return f"{fact:,}" if isinstance(fact, int) and not isinstance(fact, bool) else str(fact)
