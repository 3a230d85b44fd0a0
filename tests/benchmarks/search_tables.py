"""The tables of the search: search_samplers.jsonl, halving.jsonl, search_workers.jsonl and search_overhead.jsonl."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from tests.benchmarks import search_samplers as samplers
from tests.benchmarks.lines import latest_by_case, read
from tests.benchmarks.markdown import commits, table

Line = dict[str, Any]


def search_samplers() -> str:
    """The section; nothing without lines."""
    lines = read(samplers.NAME)
    if not lines:
        return ""
    return (
        "## Samplers\n\n`python tests/benchmarks/search_samplers.py --data nas_bench_201.csv`: data set / setting / sampler; "
        "regret in points of accuracy, or for `front` the missing percentage of the hypervolume, after that many "
        f"evaluations, mean ± standard error; seconds of a whole search (commit {commits(lines)}).\n\n{samplers.tables()}"
    )


def halving() -> str:
    """The section."""
    cases = latest_by_case("halving")
    if not cases:
        return ""
    rows = []
    for case, full in cases.items():
        kind, name, way = case.split("/")
        halved = {line["seed"]: line for line in cases.get(f"{kind}/{name}/halving", [])}
        pairs = [(line, halved[line["seed"]]) for line in full if line["seed"] in halved]
        if way != "full" or not pairs:
            continue
        third, again = "volume_for_a_third", "continued_volume_for_a_third"
        rows.append(
            (kind, name, len(pairs), *(f"{mean(f[key] for f, _ in pairs):.1f}" for key in ("volume", "at_a_third")),
             f"{mean(h['trainings'] for _, h in pairs):.1f}", _ended(h["volume"] - f["volume"] for f, h in pairs),
             f"{mean(h['begun_for_a_third'] for _, h in pairs):.0f}", _ended(h[third] - f["volume"] for f, h in pairs),
             _ended(h[third] - f["at_a_third"] for f, h in pairs),
             f"{mean(h['continued_begun_for_a_third'] for _, h in pairs):.0f}",
             _ended(h[again] - f["volume"] for f, h in pairs))
        )  # fmt: skip
    lines = [line for of_case in cases.values() for line in of_case]
    ninth, third = (mean(line[f"rank_correlation_{share}"] for line in lines) for share in ("ninth", "third"))
    head = ("choices", "sampler", "seeds", "100 full trainings", "33 full", "100 halved: trainings", "- 100 full",
            "a third of the epochs: begun", "- 100 full", "- 33 full", "continued: begun", "- 100 full")  # fmt: skip
    return (
        "## Successive halving\n\n`python tests/benchmarks/halving.py`: percent of the hypervolume of accuracy and latency that "
        "was found, `rungs=(1/9, 1/3, 1)` compared with `(1,)`, differences for the same seed with their standard error, on synthetic "
        f"functions whose learning curves cross (rank correlation with the final accuracy {ninth:.2f} at a ninth of the "
        f"epochs, {third:.2f} at a third; commit {commits(lines)}). Every rung trains from the beginning; `continued` counts the "
        "same searches as if each rung resumed from the checkpoint of the previous one, which no evaluation of fitnas does.\n\n"
        f"{table(head, rows)}\n\nThe aim, equal hypervolume for a third of the epochs, is not "
        "reached with the way `nas.search` trains. Random candidates with halving take a third of the epochs, find far more than 33 full "
        "trainings, and 2 to 4 points less than 100; if each rung resumed from a checkpoint, the difference would be within the "
        "error for ordered choices, and zero for categorical ones. With the surrogate, whose "
        "proposals get better and so are more often among the best third so far, halving takes 45 to 50 % of the epochs, and "
        "for a third of them finds no more than 33 full trainings: it is of no use there. `nas run` and `nas search` use one rung."
    )


def _ended(values: Any) -> str:
    found = list(values)
    return f"{mean(found):.1f} ± {stdev(found) / len(found) ** 0.5:.1f}" if len(found) > 1 else f"{found[0]:.1f}"


def search_workers() -> str:
    """The section."""
    cases = latest_by_case("search_workers")
    if not cases:
        return ""
    rows = []
    for case, of_case in cases.items():
        kind, _, count = case.partition(" / ")
        rate = mean(line["per_second"] for line in of_case)
        one = mean(line["per_second"] for line in cases[f"{kind} / 1"])
        rows.append((kind, int(count), len(of_case), f"{rate:.2f}", f"{rate / one:.2f}",
                     *(f"{mean(line[f'{part}_ms'] for line in of_case):.1f}" for part in ("outside", "storage"))))  # fmt: skip
    lines = [line for of_case in cases.values() for line in of_case]
    head = ("study", "workers", "runs", "evaluations per second", "times one worker's", "ms outside the evaluation, a trial",
            "of these in the storage")  # fmt: skip
    return (
        "## Workers\n\n`python tests/benchmarks/search_workers.py`: trials that sleep 0.5 s, random candidates; “processes” are those of "
        "one search in memory, “postgresql” are that many searches with one study, server and workers on two busy cores "
        f"(commit {commits(lines)}).\n\n{table(head, sorted(rows, key=lambda row: (row[0] != 'processes', row[1])))}"
    )


def search_overhead() -> str:
    """The section."""
    cases = latest_by_case("search_overhead")
    if not cases:
        return ""
    rows = [
        (case, len(of_case), *(f"{mean(line[f'{part}_ms'] for line in of_case):.2f}" for part in ("engine", "storage")))
        for case, of_case in cases.items()
        if case != "growth"
    ]
    lines = [line for of_case in cases.values() for line in of_case]
    grown = ""
    if "growth" in cases:
        most = max(line["grown_mb"] for line in cases["growth"])
        each = mean(line["ms_per_trial"] for line in cases["growth"])
        grown = f" 10,000 proposals in memory: the process grew by {most:.0f} MB at most, {each:.2f} ms each."
    head = ("study", "runs", "engine, ms a trial", "storage, ms a trial")
    return (
        "## Overhead of the search\n\n`python tests/benchmarks/search_overhead.py`: trials 901 to 1,000 of 20 choices, drawn "
        f"at random; the time inside the storage separately, on a busy disk (commit {commits(lines)}).{grown}\n\n{table(head, rows)}"
    )
