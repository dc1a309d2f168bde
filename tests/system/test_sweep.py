"""Sweeps with real processes: a killed worker's run goes on, and two sweeps on one folder share the work."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boqsa.recipes import DataRecipe, MixtureRecipe, Recipe, TrainRecipe
from boqsa.training.log import read_log
from boqsa.training.sweep import Event, LocalEngine, PlannedRun, make_plan, run_plan, state_of_planned, write_plan

PATIENCE_S = 300.0


@pytest.fixture
def recipe(packed_noise: Path) -> Recipe:
    return Recipe(
        name="tiny",
        data=DataRecipe(name="arrays", root=str(packed_noise), image_size=16),
        model=MixtureRecipe(
            num_slots=3,
            slot_size=8,
            mlp_size=16,
            encoder_channels=(8,),
            encoder_strides=(2,),
            decoder_channels=(8,),
            decoder_strides=(2,),
        ),
        train=TrainRecipe(steps=20, batch_size=4, device="cpu", checkpoint_every=5, evaluate_every=10, log_every=1),
    )


def events(sweep: Path, run: PlannedRun) -> list[tuple[str, int]]:
    return [
        (row["event"], row["step"])
        for row in read_log(run.folder(sweep))
        if row["event"] in ("started", "resumed", "stopped", "finished")
    ]


class _KillsAWorker(LocalEngine):
    """Kills the process of a run, without warning, once it has a checkpoint."""

    def __init__(self, victim: PlannedRun, number: signal.Signals = signal.SIGKILL) -> None:
        super().__init__(3, workers=2, threads=1)
        self._victim, self._number = victim, number

    def start(self, sweep: Path, run: PlannedRun, *, evaluate: bool) -> Any:
        job = super().start(sweep, run, evaluate=evaluate)
        if run is self._victim:
            threading.Thread(target=self._kill, args=(sweep, job), daemon=True).start()
        return job

    def _kill(self, sweep: Path, job: Any) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not (self._victim.folder(sweep) / "checkpoints" / "last" / "manifest.json").exists():
            if time.monotonic() > deadline or job._process.poll() is not None:
                return
            time.sleep(0.005)
        os.kill(job._process.pid, self._number)


@pytest.mark.system
def test_a_killed_worker_loses_nothing_and_nothing_is_done_twice(tmp_path: Path, recipe: Recipe) -> None:
    # The victim is long, so that it cannot end before it is killed.
    plan = make_plan([recipe], seeds=[0, 1, 2])
    victim = make_plan(
        [replace(recipe, name="long", train=replace(recipe.train, steps=1500, checkpoint_every=100, log_every=100))]
    )[0]
    runs = [plan[0], victim, plan[1]]
    sweep = tmp_path / "sweep"
    write_plan(sweep, runs)

    end = run_plan(sweep, runs, engine=_KillsAWorker(victim), retries=0)
    assert list(end.failed) == [victim.name]
    assert "SIGKILL" in end.failed[victim.name]
    for run in (plan[0], plan[1]):
        assert events(sweep, run) == [("started", 0), ("finished", 20)]
    reached = state_of_planned(sweep, victim).step
    assert 100 <= reached < 1500

    # A SIGTERM to the worker as soon as the lost run has gone on: it saves, and is started again without a retry.
    told: list[Event] = []
    end = run_plan(sweep, runs, engine=_StopsOnceResumed(victim, signal.SIGTERM), retries=0, on_event=told.append)
    assert [event.kind for event in told] == ["skipped", "skipped", "started", "retried", "started", "finished"]
    assert not end.failed
    started, resumed, stopped, resumed_again, finished = events(sweep, victim)
    assert (started, resumed, finished) == (("started", 0), ("resumed", reached), ("finished", 1500))
    assert stopped[0] == "stopped"
    assert reached < stopped[1] < 1500
    assert resumed_again == ("resumed", stopped[1])
    for run in (plan[0], plan[1]):
        assert events(sweep, run) == [("started", 0), ("finished", 20)]


class _StopsOnceResumed(_KillsAWorker):
    def _kill(self, sweep: Path, job: Any) -> None:
        if any(event == "stopped" for event, _ in events(sweep, self._victim)):
            return
        deadline = time.monotonic() + PATIENCE_S
        while not any(event == "resumed" for event, _ in events(sweep, self._victim)):
            if time.monotonic() > deadline or job._process.poll() is not None:
                return
            time.sleep(0.005)
        os.kill(job._process.pid, self._number)


@pytest.mark.system
def test_two_sweeps_at_once_train_each_run_once(tmp_path: Path, recipe: Recipe) -> None:
    runs = make_plan([recipe], seeds=[0, 1])
    sweep = tmp_path / "sweep"
    ends = []

    def one(order: list[PlannedRun]) -> None:
        write_plan(sweep, runs)
        ends.append(run_plan(sweep, order, engine=LocalEngine(2, workers=1, threads=1)))

    both = [threading.Thread(target=one, args=(order,)) for order in (runs, runs[::-1])]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(PATIENCE_S)
    assert [(end.failed, end.stopped) for end in ends] == [({}, False)] * 2
    for run in runs:
        assert events(sweep, run) == [("started", 0), ("finished", 20)]
