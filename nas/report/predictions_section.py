"""The sections of the report on the test images and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.report.html import grid, listing, percent, section
from nas.report.svg import words
from nas.results.prediction_statistics import MOST_CLASSES, named

Metrics = Mapping[str, Any]

_MOST_ITEMS = 8


def on_test_section(metrics: Metrics) -> str:
    """Accuracy beside balanced accuracy, confusions, classes, and what flipped against the float32 reference."""
    final, test, classes = metrics["final"], metrics["test"], metrics["classes"]
    accuracies = (
        f"<p>Accuracy {percent(final['test_accuracy'])} ({test['right']:,} of {test['images']:,} correct), 95 % "
        f"interval {percent(final['test_accuracy_low'])} to {percent(final['test_accuracy_high'])} (Wilson). "
        f"Balanced accuracy, the mean recall of the classes: {percent(final['test_balanced_accuracy'])}.</p>"
    )
    return section(
        "tested",
        "Results on the test images",
        accuracies,
        _confusion(test, classes),
        _classes(metrics),
        _flips(test, classes, metrics["deployed"]),
    )


def data_section(metrics: Metrics) -> str:
    """What is known of the images: counts, and what was noticed when they were read."""
    data = metrics["data"]
    pairs: dict[str, object] = {"images": _shown(data["images"])}
    for name, numbers in data["class_counts"].items():
        pairs[f"per class in {name}"] = f"{min(numbers):,} to {max(numbers):,}"
    facts = dict(data["facts"])
    facts.pop("counts", None)  # those stand with the classes
    if skipped := facts.pop("skipped", None):
        pairs["unreadable"] = _skipped(skipped)
    if left_out := facts.pop("left_out", None):
        pairs["files left out"] = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
    if alike := facts.pop("near_duplicates", None):
        pairs["near-duplicates"] = _near_duplicates(alike, data["images"])
    pairs |= {name.replace("_", " "): _shown(fact) for name, fact in facts.items()}
    return section("data", "Data", listing(pairs))


def _skipped(fact: Metrics) -> str:
    files = ", ".join(f"{each['file']} ({each['why']})" for each in fact["files"][:_MOST_ITEMS])
    return f"{fact['count']:,} left out" + (f", such as {files}" if files else "")


def _near_duplicates(fact: Metrics, images: Metrics) -> str:
    pairs = "; ".join(" and ".join(pair) for pair in fact["pairs"][:_MOST_ITEMS])
    return (
        f"{fact['val']:,} of {images['val']:,} validation images are near-duplicates of a training image, "
        f"{fact['test']:,} of {images['test']:,} test images of a training or validation image"
        + (f", such as {pairs}" if pairs else "")
    )


def _confusion(test: Metrics, classes: Sequence[str]) -> str:
    matrix = test["matrix"]
    if matrix is None:
        return _confused_pairs(test, classes)
    most = max((n for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j), default=0)
    head = "".join(f'<th title="{words(name)}">{words(_short(name))}</th>' for name in classes)
    body = "".join(
        f'<tr><th title="{words(classes[i])}">{words(_short(classes[i]))}</th>'
        + "".join(_confusion_cell(n, sum(row) if i == j else most, right=i == j) for j, n in enumerate(row))
        + "</tr>"
        for i, row in enumerate(matrix)
    )
    long = " long" if max(map(len, classes)) > 3 else ""
    return (
        '<h3>Confusion matrix</h3><p class="quiet">'
        "Rows are true classes, columns are predicted classes; correct "
        "predictions are green, wrong ones red.</p>"
        f'<div class="scroll"><table class="confusion{long}"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _confusion_cell(count: int, most: int, *, right: bool) -> str:
    if not count:
        return '<td class="quiet">·</td>'
    colour = "26,127,75" if right else "179,38,30"
    return f'<td style="background:rgba({colour},{0.08 + 0.4 * count / most:.2f})">{count}</td>'


def _confused_pairs(test: Metrics, classes: Sequence[str]) -> str:
    rows = [[named(classes, p["true"]), named(classes, p["predicted"]), str(p["count"])] for p in test["most_confused"]]
    if not rows:
        return "<h3>Confusions</h3><p>There are none.</p>"
    return f"<h3>The {len(rows)} most confused pairs of {len(classes)} classes</h3>" + grid(
        ["true class", "predicted", "images"], rows, "names"
    )


def _classes(metrics: Metrics) -> str:
    """Recall of each class beside its counts; of many classes the worst ones."""
    per_class, classes, counts = metrics["test"]["per_class"], metrics["classes"], metrics["data"]["class_counts"]
    order = list(range(len(classes)))
    head = "Classes"
    if len(classes) > MOST_CLASSES:
        order = sorted(order, key=lambda i: (_recall(per_class[i]), i))[:MOST_CLASSES]
        head = f"The {MOST_CLASSES} of {len(classes)} classes with the lowest recall"
    body = "".join(
        f"<tr><td>{words(classes[i])}</td>{''.join(f'<td>{counts[s][i]:,}</td>' for s in ('train', 'val', 'test'))}"
        f"{_recall_cells(per_class[i])}</tr>"
        for i in order
    )
    heads = "".join(f"<th>{name}</th>" for name in ("class", "train", "val", "test", "correct", "recall", "95 %", ""))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h3>{head}</h3><div class="scroll">{table}</div>'


def _recall(facts: Metrics) -> float:
    return 1.0 if facts["recall"] is None else float(facts["recall"])


def _recall_cells(facts: Metrics) -> str:
    if facts["recall"] is None:
        return "<td>–</td>" * 3 + "<td></td>"
    bar = f'<div class="bar recall"><div style="width:{100 * facts["recall"]:.1f}%"></div></div>'
    interval = f"{100 * facts['low']:.1f}–{100 * facts['high']:.1f}"
    return f"<td>{facts['right']:,}</td><td>{percent(facts['recall'])}</td><td>{interval}</td><td>{bar}</td>"


def _flips(test: Metrics, classes: Sequence[str], deployed: str) -> str:
    flips = test["flips"]
    reference = flips["reference"]
    head = "<h3>Predictions changed by compression</h3>"
    if not flips["changed"]:
        same = (
            f"<p>{words(deployed)} predicts the same class as the float32 reference ({words(reference)}) for every "
            "test image.</p>"
        )
        return head + same
    said = (
        f"<p>{flips['changed']:,} of {test['images']:,} predictions of {words(deployed)} differ from those of the "
        f"float32 reference ({words(reference)}): {flips['right_before_wrong_now']:,} were correct before and are "
        f"wrong now, {flips['wrong_before_right_now']:,} were wrong before and are correct now, "
        f"{flips['both_wrong_but_different']:,} are wrong in both but differ. The first {len(flips['examples'])}:</p>"
    )
    rows = [
        [str(e.get("file", e["index"])), *(named(classes, e[key]) for key in ("true", "before", "after"))]
        for e in flips["examples"]
    ]
    return head + said + grid(["test image", "true class", "before", "after"], rows, "names")


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


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
