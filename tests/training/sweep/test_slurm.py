"""The SLURM engine without SLURM: what a job does on its signals, and submitit's own executor on this machine."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boqsa.errors import InputError, RecipeError
from boqsa.training import step as training_step
from boqsa.training.log import read_log
from boqsa.training.sweep import PlannedRun, SlurmEngine, SlurmSettings, run_plan, state_of_planned, write_plan
from boqsa.training.sweep.engine import Outcome
from boqsa.training.sweep.slurm import SlurmTask
from boqsa.training.sweep.state import claimed

PATIENCE_S = 240.0


@pytest.fixture
def requeued() -> Iterator[list[int]]:
    """What submitit does in a job: SIGUSR2 requeues, SIGTERM is passed over. The list fills with the former."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    signal.signal(signal.SIGUSR2, lambda number, _: received.append(number))
    signal.signal(signal.SIGTERM, lambda *_: None)
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


def at_step(step: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    real = training_step.batch_indices

    def signalling(seed: int, now: int, *rest: int) -> object:
        if now == step:
            signal.raise_signal(number)
        return real(seed, now, *rest)

    monkeypatch.setattr(training_step, "batch_indices", signalling)


def test_the_step_is_finished_and_saved_before_the_job_is_requeued(
    sweep: Path, runs: list[PlannedRun], requeued: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SlurmTask(sweep, runs[0], threads=1, evaluate=False)
    at_step(5, signal.SIGUSR2, monkeypatch)
    assert Outcome(task()[0]) is Outcome.STOPPED
    assert requeued == [signal.SIGUSR2]
    assert state_of_planned(sweep, runs[0]).step == 6
    monkeypatch.undo()
    assert Outcome(task()[0]) is Outcome.DONE
    assert requeued == [signal.SIGUSR2]
    assert [row["step"] for row in read_log(runs[0].folder(sweep)) if row["event"] == "resumed"] == [6]


def test_a_cancelled_job_saves_and_is_not_requeued(
    sweep: Path, runs: list[PlannedRun], requeued: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(5, signal.SIGTERM, monkeypatch)
    assert Outcome(SlurmTask(sweep, runs[0], threads=1, evaluate=False)()[0]) is Outcome.STOPPED
    assert requeued == []
    assert state_of_planned(sweep, runs[0]).step == 6


def test_outside_the_training_the_job_is_requeued_at_once(
    sweep: Path, runs: list[PlannedRun], requeued: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from boqsa.training.sweep import worker

    real = worker.evaluate_run

    def signalling(*arguments: Any, **more: Any) -> Any:
        signal.raise_signal(signal.SIGUSR2)
        return real(*arguments, **more)

    monkeypatch.setattr(worker, "evaluate_run", signalling)
    SlurmTask(sweep, runs[0], threads=1, evaluate=True)()
    assert requeued == [signal.SIGUSR2]


def test_a_run_that_is_held_is_left_alone(sweep: Path, runs: list[PlannedRun]) -> None:
    with claimed(sweep, runs[0]):
        assert Outcome(SlurmTask(sweep, runs[0], threads=1, evaluate=False)()[0]) is Outcome.BUSY


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"timeout_min": 0}, "--slurm.timeout-min is 0"),
        ({"gpus_per_node": -1}, "--slurm.gpus-per-node is -1"),
        ({"additional": ("account",)}, "'account' is not KEY=VALUE"),
        ({"additional": ("=x",)}, "is not KEY=VALUE"),
    ],
)
def test_wrong_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        SlurmSettings(**fields)


def test_without_submitit_the_command_to_install_it_is_told(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install 'boqsa\[slurm\]'"):
        SlurmEngine(sweep)


def test_without_slurm_it_is_said(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="cannot submit to SLURM from here"):
        SlurmEngine(sweep)


def test_sbatch_is_told_what_the_settings_say(
    sweep: Path, runs: list[PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    for name, answer in (("srun", ""), ("sbatch", "echo Submitted batch job 17"), ("sacct", "echo 'JobID|State'")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    settings = SlurmSettings(
        partition="long", timeout_min=90, gpus_per_node=2, cpus_per_task=6, mem_gb=24, additional=("account=vision",)
    )
    engine = SlurmEngine(sweep, settings)
    engine.start(sweep, runs[0], evaluate=False)
    (script,) = (sweep / ".sweep" / "jobs").glob("*submission.sh")
    lines = script.read_text().splitlines()
    for option in (
        "partition=long",
        "time=90",
        "gpus-per-node=2",
        "cpus-per-task=6",
        "mem=24GB",
        "account=vision",
        "signal=USR2@90",
        "open-mode=append",
    ):
        assert f"#SBATCH --{option}" in lines, option


@pytest.mark.system
def test_a_job_trains_and_is_not_submitted_again(sweep: Path, runs: list[PlannedRun]) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    engine = SlurmEngine(sweep, SlurmSettings(gpus_per_node=0, cpus_per_task=1), cluster="local")
    end = run_plan(sweep, runs[:1], engine=engine)
    assert not end.failed
    assert state_of_planned(sweep, runs[0]).finished
    assert [row["threads"] for row in read_log(runs[0].folder(sweep)) if row["event"] == "started"] == [1]
    pickles = list((sweep / ".sweep" / "jobs").glob("*submitted.pkl"))
    run_plan(sweep, runs[:1], engine=engine)
    assert list((sweep / ".sweep" / "jobs").glob("*submitted.pkl")) == pickles


@pytest.mark.system
def test_a_job_whose_time_is_over_is_requeued_and_goes_on(tmp_path: Path, runs: list[PlannedRun]) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    children = Path("/proc/self/task") / str(os.getpid()) / "children"
    if not children.exists():
        pytest.skip("this system does not list the children of a process")
    recipe = runs[0].recipe
    long = replace(recipe, train=replace(recipe.train, steps=10**6, checkpoint_every=10**6, log_every=1))
    run = replace(runs[0], recipe=long)
    sweep = tmp_path / "long"
    write_plan(sweep, [run])
    engine = SlurmEngine(sweep, SlurmSettings(gpus_per_node=0, cpus_per_task=1), cluster="local")
    job = engine.start(sweep, run, evaluate=False)
    controller = job._job.job_id  # type: ignore[attr-defined]
    tasks = Path(f"/proc/{controller}/task/{controller}/children")
    try:
        wait_for(job, lambda: any(row["step"] >= 3 for row in read_log(run.folder(sweep))))
        (task,) = tasks.read_text().split()
        os.kill(int(task), signal.SIGUSR2)
        wait_for(job, lambda: any(row["event"] == "resumed" for row in read_log(run.folder(sweep))))
    finally:
        # A million steps: a task that was just being started might not hear of a stop.
        for process in (controller, *tasks.read_text().split()):
            os.kill(int(process), signal.SIGKILL)
        job.stop()
    stopped, resumed = (
        [row["step"] for row in read_log(run.folder(sweep)) if row["event"] == event]
        for event in ("stopped", "resumed")
    )
    assert stopped[0] >= 3
    assert resumed == stopped[:1]


def wait_for(job: Any, condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert job.poll() is None, job.poll()
        assert time.monotonic() < deadline
        time.sleep(0.05)
