"""One run in one process: done, gone on with, left alone, refused."""

import errno
import signal
from pathlib import Path

import pytest

from boqsa.errors import BusyError, FullDiskError
from boqsa.inference.run import read_recipe
from boqsa.training import step as training_step
from boqsa.training.log import read_log
from boqsa.training.sweep import PlannedRun, make_plan, state_of_planned, write_plan
from boqsa.training.sweep.engine import Outcome
from boqsa.training.sweep.state import claimed
from boqsa.training.sweep.worker import main, work_on


def events(sweep: Path, run: PlannedRun) -> list[str]:
    return [row["event"] for row in read_log(run.folder(sweep)) if row["event"] not in ("step", "diagnostics")]


def test_trained_once_and_not_again(sweep: Path, runs: list[PlannedRun]) -> None:
    assert work_on(sweep, runs[0]).outcome is Outcome.DONE
    log = read_log(runs[0].folder(sweep))
    assert work_on(sweep, runs[0]).outcome is Outcome.DONE
    assert read_log(runs[0].folder(sweep)) == log


def test_stopped_and_taken_up(sweep: Path, runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    real = training_step.batch_indices

    def terminating(seed: int, step: int, *rest: int) -> object:
        if step == 6:
            signal.raise_signal(signal.SIGTERM)
        return real(seed, step, *rest)

    monkeypatch.setattr(training_step, "batch_indices", terminating)
    assert work_on(sweep, runs[0]).outcome is Outcome.STOPPED
    assert state_of_planned(sweep, runs[0]).step == 7
    monkeypatch.undo()
    assert work_on(sweep, runs[0]).outcome is Outcome.DONE
    assert events(sweep, runs[0]) == ["started", "evaluation", "stopped", "resumed", "evaluation", "finished"]


def test_a_run_of_another_process_is_left_alone(sweep: Path, runs: list[PlannedRun]) -> None:
    with claimed(sweep, runs[0]):
        assert work_on(sweep, runs[0]).outcome is Outcome.BUSY
        assert main([str(sweep), runs[0].name]) == Outcome.BUSY.value
    assert not runs[0].folder(sweep).exists()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (FullDiskError("no space is left to write x"), Outcome.BROKEN),
        (OSError(errno.ENOSPC, "No space left on device", "x"), Outcome.BROKEN),
        (BusyError("another process is training it"), Outcome.BUSY),
    ],
    ids=["full disk", "full disk elsewhere", "lost race"],
)
def test_what_can_pass_is_not_refused(
    sweep: Path, runs: list[PlannedRun], error: Exception, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    from boqsa.training.sweep import worker

    def fail(*_: object, **__: object) -> bool:
        raise error

    monkeypatch.setattr(worker, "train", fail)
    ended = work_on(sweep, runs[0])
    assert ended.outcome is outcome
    assert ("no space is left to write x" in ended.text) == (outcome is Outcome.BROKEN)


def test_evaluated_after_the_training_and_later(sweep: Path, runs: list[PlannedRun]) -> None:
    work_on(sweep, runs[0], evaluate=True)
    assert (runs[0].folder(sweep) / "metrics.json").is_file()
    work_on(sweep, runs[1])
    assert not (runs[1].folder(sweep) / "metrics.json").exists()
    work_on(sweep, runs[1], evaluate=True)
    assert (runs[1].folder(sweep) / "metrics.json").is_file()
    assert events(sweep, runs[1]).count("started") == 1


def test_the_threads_of_a_run_are_those_it_began_with(
    sweep: Path, runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    from boqsa.training.sweep import worker

    used = []
    real = worker.train

    def noting(recipe: object, *rest: object, **more: object) -> bool:
        used.append(recipe.train.threads)  # type: ignore[attr-defined]
        return real(recipe, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "train", noting)
    work_on(sweep, runs[0], threads=1)
    assert read_recipe(runs[0].folder(sweep)).train.threads == 1
    for checkpoint in list((runs[0].folder(sweep) / "checkpoints").iterdir()):
        checkpoint.rename(checkpoint.with_name(f".partial-0-{checkpoint.name}"))
    work_on(sweep, runs[0], threads=2)
    assert used == [1, 1]


def test_refused_in_one_line(tmp_path: Path, runs: list[PlannedRun], capsys: pytest.CaptureFixture[str]) -> None:
    (lost,) = make_plan([runs[0].recipe], fixed={"data.root": str(tmp_path / "none")})
    write_plan(tmp_path / "other", [lost])
    assert main([str(tmp_path / "other"), lost.name]) == Outcome.REFUSED.value
    said = capsys.readouterr().err.strip()
    assert "does not exist" in said
    assert "\n" not in said
    assert main([str(tmp_path / "other"), "unknown"]) == Outcome.REFUSED.value
    assert "plans no run unknown" in capsys.readouterr().err
