"""The sections of docs/benchmarks.md on devices: families that were left out, and few measured networks."""

from __future__ import annotations

from tests.benchmarks.lines import latest_by_case
from tests.benchmarks.markdown import commits, table
from tests.benchmarks.published.predictors import TITLES


def held_out_families() -> str:
    lines = [found[-1] for found in latest_by_case("held_out_families").values() if found[-1]["networks"]]
    if not lines:
        return ""
    rows = [
        (*line["case"].rsplit(" ", 1), line["networks"], line["families"], f"{line['mean_error']:.1%}",
         f"{line['macs_error']:.1%}", f"{line['within_interval']:.0%}")
        for line in lines
    ]  # fmt: skip
    head = ("device", "precision", "networks", "families", "mean error", "MACs alone", "in the 90 % interval")
    return (
        "## Published networks of families that were not fitted\n\n`python tests/benchmarks/held_out_families.py "
        "--tables FOLDER`: each family of a device's published networks predicted by costs fitted to the others, and by "
        "one time for each MAC fitted to the same networks. Families of the RP2040 are kinds of layers of one "
        f"network, each timed (commit {commits(lines)}).\n\n{table(head, rows)}"
    )


def few_points() -> str:
    lines = [found[-1] for found in latest_by_case("few_points").values()]
    if not lines:
        return ""
    rows = []
    for line in lines:
        for rule, title in TITLES.items():
            errors = [f"{line[rule][count]:.1%}" for count in ("5", "10", "20")]
            name, _, base = line["case"].replace("||", "|").replace("|", ", ").rpartition(" from ")
            rows.append((name, line["networks"], base, title, *errors))
    head = ("published table", "networks", "base", "predicted by", "from 5", "from 10", "from 20")
    return (
        "## A profile from a few measurements\n\n`python tests/benchmarks/few_points.py --tables FOLDER`: the mean error "
        "on all other networks of a published table, 20 draws. The base is another machine: `host` another runtime too, "
        "`others` what the tables of the other systems say together. Simple rules are fitted to the same networks "
        f"(commit {commits(lines)}).\n\n{table(head, rows)}"
    )
