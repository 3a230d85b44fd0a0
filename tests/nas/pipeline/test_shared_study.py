"""Searches that share a study: a worker joins, gets its weights, and is refused where it has something else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import timm
import torch
from optuna.trial import TrialState
from safetensors.torch import save_file

from hw_profiles.errors import InputError
from nas.commands.main import main
from nas.pipeline import search_alone, search_phase
from nas.pipeline.shared_study import RECORD
from nas.samplers.trial_attributes import started
from nas.storages.lease import WORKER
from nas.storages.open_storage import open_storage
from tests.postgres import Postgres, postgres_server
from tests.small_space import NAME

SHORT = (
    "--data", "digits", "--space", NAME,
    *(f"--set={name}" for name in ("size=16", "latency_from=estimated", "search_epochs=0.1")),
)  # fmt: skip
LIMIT = ("--latency", "0.1ms")
WORKS = search_alone.search_candidates  # loaded before any test puts something in its place


def study_at(address: str | Path) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=open_storage(address))


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", "nas.commands.main", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_record(address: str, search: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and search.poll() is None:
        storage = open_storage(address)
        assert storage is not None
        if any(RECORD in study.user_attrs for study in storage.get_all_studies()):
            return
        time.sleep(0.1)
    raise AssertionError(f"no study: {search.communicate(timeout=10)[1]}")


def check_complete(address: str, n_trials: int, workers: int) -> None:
    """The planned number, none twice, by as many workers."""
    trials = study_at(address).trials
    begun = [trial for trial in trials if started(trial)]
    assert len(begun) == n_trials
    assert {trial.state for trial in begun} == {TrialState.COMPLETE}
    assert all(trial.state.is_finished() for trial in trials)
    assert max(Counter(str(sorted(trial.params.items())) for trial in begun).values()) == 1
    assert len({trial.user_attrs[WORKER] for trial in begun}) == workers


def interrupted(*arguments: object, **named: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a study that a search made, interrupted before it evaluated anything, and a worker completed."""
    folder = tmp_path_factory.mktemp("shared")
    journal = folder / "study.journal"
    search = ["search", *SHORT, *LIMIT, "--trials", "3", "--storage", str(journal), "--out", str(folder / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_phase, "search_candidates", interrupted)
        assert main(search) == 130
    assert main(["worker", "search", "--storage", str(journal), "--data", "digits"]) == 0
    assert main(search) == 0
    return journal


@pytest.fixture
def journal(complete: Path, tmp_path: Path) -> str:
    """A copy, to be changed."""
    return str(shutil.copy(complete, tmp_path / "study.journal"))


def test_a_worker_goes_on_where_a_search_was_interrupted(complete: Path) -> None:
    assert search_alone.search_candidates is WORKS
    check_complete(str(complete), 3, workers=1)
    assert (complete.parent / "run" / "study.db").is_file()  # a copy, from which the report can be drawn again
    assert (complete.parent / "run" / "winner.json").is_file()


def test_a_complete_study_leaves_a_worker_nothing_to_do(journal: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = len(study_at(journal).trials)
    assert main(["worker", "search", "--storage", journal, "--data", "digits"]) == 0
    ending = "all requested candidates were evaluated"
    assert capsys.readouterr().out == f"3 candidates were trained by all workers; {ending}\n"
    assert len(study_at(journal).trials) == before


@pytest.fixture
def refusal(journal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line of a command on the study that is refused, and leaves the study as it was."""

    def refused(*arguments: str) -> str:
        before = study_at(journal)
        attributes, trials = before.user_attrs, before.trials
        assert main([*arguments, "--storage", journal]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "nas: " in line]
        assert len(lines) == 1
        after = study_at(journal)
        assert (after.user_attrs, after.trials) == (attributes, trials)
        return lines[0]

    return refused


def test_a_worker_with_other_images_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    split = {f"x_{part}": generator.integers(0, 255, (60, 16, 16), dtype=np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.arange(60) % 3 for part in ("train", "test")}
    np.savez(tmp_path / "other.npz", **split, **labels)
    line = refusal("worker", "search", "--data", str(tmp_path / "other.npz"))
    assert "the study 'search' was made with other settings: images: {" in line
    assert "classes: [" in line


def test_the_same_images_with_other_labels_are_other_images(refusal: Callable[..., str], journal: str) -> None:
    study = study_at(journal)
    record = study.user_attrs[RECORD]
    study.set_user_attr(RECORD, {**record, "data": {**record["data"], "sha256": "0" * 64}})
    assert "made with other settings: " in refusal("worker", "search", "--data", "digits")


def test_a_worker_whose_space_is_another_is_refused(refusal: Callable[..., str], journal: str) -> None:
    study = study_at(journal)
    record = study.user_attrs[RECORD]
    study.set_user_attr(RECORD, {**record, "space": {**record["space"], "stem.width": [16, 24]}})
    line = refusal("worker", "search", "--data", "digits")
    assert "other settings: space, stem.width: [16, 24] in the study, [16, 32] here" in line


def test_a_search_with_another_config_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "again"), "--trials", "3")
    line = refusal("search", *SHORT, "--latency", "0.2ms", "--sampler", "random", *out)
    assert line.endswith(
        'other settings: latency: "0.1ms" in the study, "0.2ms" here; sampler: "surrogate" in the study, "random" here'
    )


def test_a_study_that_is_not_there_is_told_with_the_nearest_name(refusal: Callable[..., str]) -> None:
    line = refusal("worker", "serach", "--data", "digits")
    assert line.startswith("nas: error: study 'serach' not found in ")
    assert "did you mean 'search'?" in line


def test_a_study_of_another_program_says_nothing_to_a_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = str(tmp_path / "other.journal")
    optuna.create_study(storage=open_storage(address), study_name="search", direction="maximize")
    assert main(["worker", "search", "--storage", address, "--data", "digits"]) == 2
    assert "was not made by `nas search --storage`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"storage": "s.db"}, "join_search needs storage and data, data is missing"),
        ({"data": "digits"}, "join_search needs storage and data, storage is missing"),
        ({"storage": "s.db", "data": "digits", "seed": 1}, r"unknown setting 'seed'.*\(valid: storage, data, workers"),
        ({"storage": Path("nowhere.db"), "data": "digits"}, "--storage nowhere.db: file not found"),
    ],
)
def test_a_worker_is_told_which_settings_it_needs(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        search_alone.join_search("search", **settings)


@pytest.mark.slow
def test_weights_reach_a_worker_through_the_artifacts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, store, address = tmp_path / "w.safetensors", tmp_path / "artifacts", str(tmp_path / "study.journal")
    torch.manual_seed(3)
    save_file(timm.create_model("mobilenetv2_050").state_dict(), weights)
    before = weights.read_bytes()

    with monkeypatch.context() as patch:  # the study is made, and nothing evaluated
        patch.setattr(search_phase, "search_candidates", interrupted)
        begun = ("--trials", "1", "--set=search_epochs=0.05", "--set=latency_from=estimated", "--init", str(weights))
        where = ("--storage", address, "--artifacts", str(store), "--out", str(tmp_path / "run"))
        assert main(["search", "--data", "digits", *begun, *where]) == 130
    weights.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    worker = ["worker", "search", "--storage", address, "--data", "digits"]
    assert main(worker) == 2
    assert "a study that starts from pretrained weights needs --artifacts" in capsys.readouterr().err
    assert main([*worker, "--artifacts", str(tmp_path / "empty")]) == 2
    assert "does not contain the weights that the study starts from" in capsys.readouterr().err
    assert main([*worker, "--artifacts", str(store)]) == 0
    check_complete(address, 1, workers=1)
    copies = list((tmp_path / "cache" / "fitnas" / "weights").iterdir())
    assert [path.read_bytes() for path in copies] == [before]


def test_two_searches_at_once_make_one_study(tmp_path: Path) -> None:
    """What the record of a study is decided by whoever is first; here the other one differs and is told so."""
    from nas.config import load_config
    from nas.engine.search import study_at as made
    from nas.pipeline.shared_study import publish

    record = {
        "schema": 1,
        "config": {"seed": 0},
        "space": {},
        "data": {"images": {"train": 1}},
        "device": "",
        "recipe": {},
    }
    address = str(tmp_path / "study.journal")
    config = load_config(None, {"storage": address, "trials": 3})
    assert publish(config, record, None).study_name == made(open_storage(address), "search", ("accuracy",)).study_name
    with pytest.raises(InputError, match=r"seed: 0 in the study, 1 here"):
        publish(config, {**record, "config": {"seed": 1}}, None)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["journal", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "journal":
        return str(tmp_path / "study.journal")
    return str(request.getfixturevalue("postgres").new_database("shared"))


@pytest.mark.slow
def test_a_search_and_a_worker_evaluate_the_planned_number_together(address: str, tmp_path: Path) -> None:
    shared = ("--storage", address)
    search = start("search", *SHORT, *LIMIT, "--trials", "8", "--out", str(tmp_path / "run"), *shared)
    try:
        wait_for_record(address, search)
        assert main(["worker", "search", "--data", "digits", *shared]) == 0
        out, err = search.communicate(timeout=200)
        assert search.returncode == 0, err
        assert "8 candidates were trained" in out
    finally:
        search.kill()
    check_complete(address, 8, workers=2)
    kept = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(b"so secret" in path.read_bytes() or b"so%20secret" in path.read_bytes() for path in kept)
