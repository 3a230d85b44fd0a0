"""Threads and number format of a training with a limit of time, on a machine of which the test says how fast it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.data.in_memory import arrays_dataset
from compress.training import loop, pace
from compress.training.loop import Recipe, train
from compress.training.pace import Pace, Setting, more_threads_help, settings_to_try, threads_restored

ALL = settings_to_try({1, 2}, None)
ONE, TWO = Setting(1, False), Setting(2, False)
Speed = Callable[[Setting], float]  # seconds of a step


class Machine:
    """Runs steps of a Pace; beside a busy process two threads are fifty times slower than one, and are known to be."""

    def __init__(self, settings: list[Setting], speed: Speed, *, busy: bool = False, gate_fails: bool = True) -> None:
        self.now, self.busy, self.gate_fails, self.asked = 0.0, busy, gate_fails, 0
        self.speed, self.ran = speed, list[Setting]()
        self.pace = Pace(settings, helps=self.helps, clock=lambda: self.now)

    def helps(self, threads: int) -> bool:
        self.asked += 1
        return not (self.busy and self.gate_fails)

    def run(self, steps: int) -> list[Setting]:
        for _ in range(steps):
            setting = self.pace.setting
            seconds = self.speed(setting)
            if self.busy:
                seconds *= 50 if setting.threads > 1 else 1.5
            self.now += seconds
            self.ran.append(setting)
            self.pace.took(seconds)
        return self.ran[-steps:]


def speed_of(one: float, two: float, bfloat16: float = 1.0) -> Speed:
    return lambda setting: (one if setting.threads == 1 else two) * (bfloat16 if setting.bfloat16 else 1.0)


@pytest.mark.parametrize(
    ("one", "two", "bfloat16", "best"),
    [(0.1, 0.06, 0.5, Setting(2, True)), (0.1, 0.06, 2.0, TWO), (0.05, 0.08, 1.2, ONE), (0.05, 0.08, 0.6, Setting(1, True))],
)  # fmt: skip
def test_the_fastest_setting_is_found_by_steps_in_turn(one: float, two: float, bfloat16: float, best: Setting) -> None:
    machine = Machine(ALL, speed_of(one, two, bfloat16))
    first = machine.run(16)
    assert first[:4] == ALL
    assert machine.pace.chosen == best
    assert set(machine.run(30)) == {best}


def test_first_steps_find_kernels_and_are_not_compared() -> None:
    seen: set[Setting] = set()

    def speed(setting: Setting) -> float:
        slow = setting == TWO and setting not in seen
        seen.add(setting)
        return 5.0 if slow else speed_of(0.1, 0.06, 2.0)(setting)

    machine = Machine(ALL, speed)
    machine.run(16)
    assert machine.pace.chosen == TWO


def test_so_it_is_where_threads_come_in_later() -> None:
    seen: list[Setting] = []

    def speed(setting: Setting) -> float:
        seen.append(setting)
        return 5.0 if setting == TWO and seen.count(TWO) == 1 else speed_of(0.1, 0.06)(setting)

    machine = Machine([ONE, TWO], speed, busy=True)
    machine.run(50)
    machine.busy = False
    machine.run(200)
    assert machine.pace.chosen == TWO
    assert machine.asked == 2


def test_a_small_gain_is_none() -> None:
    machine = Machine([ONE, TWO], speed_of(0.1, 0.15))
    machine.run(10)
    machine.speed = speed_of(0.1, 0.098)
    machine.run(1000)
    assert machine.asked > 2
    assert machine.pace.chosen == ONE


def test_what_is_much_slower_is_left_soon() -> None:
    machine = Machine(ALL, speed_of(0.1, 0.06, 4.0))
    machine.run(30)
    assert sum(setting.bfloat16 for setting in machine.ran) == 4


def test_beside_a_busy_process_no_step_of_two_threads_is_run() -> None:
    machine = Machine(ALL, speed_of(0.1, 0.06), busy=True)
    machine.run(400)
    assert {setting.threads for setting in machine.ran} == {1}
    assert machine.pace.mean_threads == 1


def test_threads_change_when_the_machine_gets_busy_and_again_when_it_is_idle() -> None:
    machine = Machine([ONE, TWO], speed_of(0.1, 0.06))
    machine.run(50)
    assert machine.pace.chosen == TWO
    machine.busy = True
    assert machine.run(20).count(TWO) == 1  # the first slow step
    machine.busy = False
    machine.run(1000)  # some 100 steps until the next look
    assert machine.pace.chosen == TWO
    assert 1 < machine.pace.mean_threads < 2


def test_where_the_quick_look_sees_nothing_steps_tell() -> None:
    machine = Machine([ONE, TWO], speed_of(0.1, 0.06), gate_fails=False)
    machine.run(50)
    machine.busy = True
    assert machine.run(40).count(TWO) <= 4
    assert machine.pace.chosen == ONE


def test_steps_that_are_a_little_slower_change_nothing_at_once() -> None:
    slowness = 1.0
    machine = Machine([ONE, TWO], lambda setting: slowness * speed_of(0.1, 0.06)(setting))
    machine.run(20)
    asked, slowness = machine.asked, 1.4
    assert set(machine.run(100)) == {TWO}
    assert machine.asked == asked
    slowness = 2.0  # for both
    machine.run(100)
    assert machine.asked > asked
    assert machine.pace.chosen == TWO


def test_it_is_looked_again_after_20_seconds_or_100_steps_or_two_minutes() -> None:
    for step, seconds in ((0.01, 20), (0.5, 50), (2.0, 120)):
        machine = Machine([ONE, TWO], speed_of(step, 2 * step))
        machine.run(10)
        asked, began = machine.asked, machine.now
        while machine.asked == asked:
            machine.run(1)
        assert 0.9 * seconds <= machine.now - began <= 1.2 * seconds


def test_one_slow_step_is_soon_forgotten() -> None:
    machine = Machine([ONE, TWO], speed_of(0.06, 0.1), busy=True)
    machine.run(100)
    asked, machine.speed = machine.asked, speed_of(5.0, 5.0)
    machine.run(1)
    machine.speed = speed_of(0.06, 0.1)
    machine.run(10)
    assert machine.asked == asked + 1
    assert machine.pace._expected == pytest.approx(1.5 * 0.06)


def test_uneven_steps_are_not_looked_at_all_the_time() -> None:
    number = 0

    def uneven(setting: Setting) -> float:
        nonlocal number
        number += 1
        return 0.3 if number % 3 == 0 else 0.06

    machine = Machine([ONE, TWO], uneven, busy=True)
    machine.run(1000)
    assert machine.asked < machine.now / 2


def test_the_number_format_stays() -> None:
    machine = Machine(ALL, speed_of(0.1, 0.06, 0.5))
    assert not machine.pace.is_format_chosen
    machine.run(16)
    assert machine.pace.is_format_chosen
    machine.speed = speed_of(0.1, 0.06, 3.0)
    machine.run(500)
    assert all(setting.bfloat16 for setting in machine.ran[16:])


@pytest.fixture
def two_threads() -> Any:
    with threads_restored():
        torch.set_num_threads(2)
        yield


DATA = arrays_dataset(np.random.default_rng(0).integers(0, 256, (400, 8, 8, 1), np.uint8), np.arange(400) % 2)


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


class Noted(nn.Module):
    """Writes down how each of its steps runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.seen = small(), list[Setting]()

    def forward(self, x: torch.Tensor) -> Any:
        self.seen.append(Setting(torch.get_num_threads(), torch.is_autocast_enabled("cpu")))
        return self.layers(x)


def test_a_limited_training_takes_what_is_fastest_and_restores_the_threads(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "more_threads_help", lambda threads: True)
    model = Noted()
    found = train(model, DATA, Recipe(seconds=1.0, epochs=1e6, bfloat16=None))
    assert model.seen[:4] == ALL
    assert len(set(model.seen[100:])) <= 2
    assert 1 <= found.threads <= 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("recipe", [Recipe(epochs=2), Recipe(epochs=2, bfloat16=True)])
def test_without_a_limit_of_time_nothing_is_chosen(
    recipe: Recipe, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "more_threads_help", lambda threads: pytest.fail("the clock was asked"))
    model = Noted()
    found = train(model, DATA, recipe)
    assert set(model.seen) == {Setting(2, bool(recipe.bfloat16))}
    assert found.threads == 2


def test_threads_are_restored_after_an_error(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "more_threads_help", lambda threads: False)

    def fail(share: float, note: str) -> None:
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), DATA, Recipe(seconds=1.0), report=fail)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("chosen", [False, True])
def test_a_resumed_training_keeps_its_number_format(
    chosen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is faster now."""
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(pace._Trial, "typical", lambda self, setting: 1.0 if setting.bfloat16 == chosen else 2.0)
    path = tmp_path / "checkpoint.pt"
    recipe = Recipe(seconds=600, epochs=8, bfloat16=None)

    def stop(share: float, note: str) -> None:
        if share > 0.5:  # after 32 of 64 steps; the format is chosen in the first 16
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Noted(), DATA, recipe, checkpoint=path, report=stop)
    monkeypatch.undo()
    model = Noted()
    found = train(model, DATA, recipe, checkpoint=path)
    assert found.bfloat16 is chosen
    assert {setting.bfloat16 for setting in model.seen} == {chosen}


def test_the_quick_look_leaves_the_threads_as_they_are() -> None:
    before = torch.get_num_threads()
    assert more_threads_help(before) in (True, False)
    assert torch.get_num_threads() == before
