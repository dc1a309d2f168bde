"""A plan of three tiny runs, and an engine that works in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from boqsa.recipes import Recipe
from boqsa.training.sweep import PlannedRun, make_plan, write_plan
from boqsa.training.sweep import drive as drive_module
from boqsa.training.sweep.engine import Ended, Job
from boqsa.training.sweep.worker import work_on


@pytest.fixture
def runs(recipe: Recipe) -> list[PlannedRun]:
    """Seeds 0, 1 and 2 of the tiny recipe, twelve steps each."""
    return make_plan([recipe], seeds=[0, 1, 2])


@pytest.fixture
def sweep(tmp_path: Path, runs: list[PlannedRun]) -> Path:
    """A folder with the plan of `runs`."""
    folder = tmp_path / "sweep"
    write_plan(folder, runs)
    return folder


class InProcessJob:
    """A job that ends as told."""

    def __init__(self, end: Ended | None) -> None:
        self.end = end
        self.asked: list[str] = []

    def poll(self) -> Ended | None:
        return self.end

    def stop(self) -> None:
        self.asked.append("stop")

    def kill(self) -> None:
        self.asked.append("kill")


class InProcessEngine:
    """Trains a run when it is started, or does what `behave` says."""

    at_once = 1
    stops_jobs = True

    def __init__(self, behave: Callable[[Path, PlannedRun], Ended | None] | None = None) -> None:
        self.behave = behave
        self.started: list[str] = []
        self.jobs: list[InProcessJob] = []

    def start(self, sweep: Path, run: PlannedRun, *, evaluate: bool) -> Job:
        self.started.append(run.name)
        end = work_on(sweep, run, evaluate=evaluate) if self.behave is None else self.behave(sweep, run)
        self.jobs.append(InProcessJob(end))
        return self.jobs[-1]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> type[InProcessEngine]:
    """The engine; the driver looks without pauses."""
    monkeypatch.setattr(drive_module, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(drive_module, "_LOOK_ELSEWHERE_EVERY_S", 0.0)
    return InProcessEngine
