"""The driver: everything once, again only where it helps, what others have left alone, and stopped gently."""

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from boqsa.training.sweep import Event, PlannedRun, run_plan
from boqsa.training.sweep import drive as drive_module
from boqsa.training.sweep.engine import Ended, Outcome
from boqsa.training.sweep.state import RunState, claimed
from boqsa.training.sweep.worker import work_on

BROKEN = Ended(Outcome.BROKEN, "first line\nlast line")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Steps of each run by name, instead of what its folder says."""
    made: dict[str, int] = {}
    monkeypatch.setattr(drive_module, "state_of_planned", lambda _, run: RunState(made.get(run.name, 0), 12))
    return made


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def test_all_are_trained_once(sweep: Path, runs: list[PlannedRun], in_process: Any) -> None:
    engine, events = in_process(), list[Event]()
    end = run_plan(sweep, runs, engine=engine, on_event=events.append)
    assert (end.failed, end.stopped) == ({}, False)
    assert engine.started == [run.name for run in runs]
    assert kinds(events) == ["started", "finished"] * 3

    again, events = in_process(), []
    assert run_plan(sweep, runs, engine=again, on_event=events.append) == end
    assert again.started == []
    assert kinds(events) == ["skipped"] * 3


def test_one_that_got_further_is_tried_again_as_often_as_allowed(
    sweep: Path, runs: list[PlannedRun], in_process: Any, steps: dict[str, int]
) -> None:
    def behave(_: Path, run: PlannedRun) -> Ended:
        steps[run.name] = steps.get(run.name, 0) + 1
        return BROKEN

    engine, events = in_process(behave), list[Event]()
    end = run_plan(sweep, runs[:1], engine=engine, retries=2, on_event=events.append)
    assert len(engine.started) == 3
    assert kinds(events) == ["started", "retried", "started", "retried", "started", "failed"]
    assert "goes on at step 1 of 12" in events[2].text
    assert end.failed == {runs[0].name: BROKEN.text}


def test_one_that_is_refused_is_not_tried_again(
    sweep: Path, runs: list[PlannedRun], in_process: Any, steps: dict[str, int]
) -> None:
    refused = Ended(Outcome.REFUSED, "the loss is not a number")

    def behave(_: Path, run: PlannedRun) -> Ended:
        steps[run.name] = 4
        return refused

    engine = in_process(behave)
    assert run_plan(sweep, runs[:1], engine=engine, retries=5).failed == {runs[0].name: refused.text}
    assert len(engine.started) == 1


def test_one_that_is_lost_before_its_first_checkpoint_is_tried_again(
    sweep: Path, runs: list[PlannedRun], in_process: Any
) -> None:
    ends = [BROKEN]
    engine = in_process(lambda folder, run: ends.pop() if ends else work_on(folder, run))
    assert not run_plan(sweep, runs[:1], engine=engine, retries=1).failed
    assert len(engine.started) == 2
    never = in_process(lambda *_: BROKEN)
    assert list(run_plan(sweep, runs[1:2], engine=never, retries=2).failed) == [runs[1].name]
    assert len(never.started) == 3


def test_one_that_broke_waits_for_the_others(sweep: Path, runs: list[PlannedRun], in_process: Any) -> None:
    ends = [BROKEN]
    engine = in_process(lambda folder, run: ends.pop() if ends else work_on(folder, run))
    assert not run_plan(sweep, runs, engine=engine, retries=1).failed
    assert engine.started == [run.name for run in (*runs, runs[0])]


def test_a_stop_is_no_retry(sweep: Path, runs: list[PlannedRun], in_process: Any) -> None:
    stops = 3

    def behave(folder: Path, run: PlannedRun) -> Ended:
        nonlocal stops
        stops -= 1
        return work_on(folder, run) if stops < 0 else Ended(Outcome.STOPPED)

    engine, events = in_process(behave), list[Event]()
    assert not run_plan(sweep, runs[:1], engine=engine, retries=0, on_event=events.append).failed
    assert kinds(events) == ["started", "retried"] * 3 + ["started", "finished"]
    assert events[1].text == "from step 0; a signal stopped it"


def test_what_is_stopped_again_and_again_without_a_step_is_given_up(
    sweep: Path, runs: list[PlannedRun], in_process: Any
) -> None:
    engine = in_process(lambda *_: Ended(Outcome.STOPPED, "ended by SIGTERM"))
    assert run_plan(sweep, runs[:1], engine=engine, retries=0).failed == {runs[0].name: "ended by SIGTERM"}
    assert len(engine.started) == drive_module._STOPS_IN_VAIN + 1


def test_a_process_that_ends_well_and_has_done_nothing_has_failed(
    sweep: Path, runs: list[PlannedRun], in_process: Any
) -> None:
    end = run_plan(sweep, runs[:1], engine=in_process(lambda *_: Ended(Outcome.DONE)))
    assert end.failed == {runs[0].name: "its process ended without an error or a result"}


def test_a_failure_does_not_keep_the_others_back(sweep: Path, runs: list[PlannedRun], in_process: Any) -> None:
    engine = in_process(lambda folder, run: BROKEN if run is runs[0] else work_on(folder, run))
    assert list(run_plan(sweep, runs, engine=engine).failed) == [runs[0].name]
    assert engine.started == [*(run.name for run in runs), runs[0].name]


def test_a_folder_that_is_spoilt_meanwhile_fails_alone(sweep: Path, runs: list[PlannedRun], in_process: Any) -> None:
    def behave(folder: Path, run: PlannedRun) -> Ended:
        if run is runs[0]:
            runs[1].folder(folder).mkdir()
            (runs[1].folder(folder) / "letter.txt").write_text("dear")
        return work_on(folder, run)

    engine = in_process(behave)
    end = run_plan(sweep, runs, engine=engine)
    assert list(end.failed) == [runs[1].name]
    assert "is not a run folder" in end.failed[runs[1].name]
    assert engine.started == [runs[0].name, runs[2].name]


def test_an_error_of_the_sweep_lets_its_processes_save(sweep: Path, runs: list[PlannedRun], in_process: Any) -> None:
    engine = in_process(lambda *_: None)

    def fail(event: Event) -> None:
        raise OSError("the console is gone")

    with pytest.raises(OSError, match="the console is gone"):
        run_plan(sweep, runs, engine=engine, on_event=fail)
    assert engine.jobs[0].asked == ["stop"]


def test_what_another_process_has_is_waited_for_and_taken_up(
    sweep: Path, runs: list[PlannedRun], in_process: Any
) -> None:
    claim = claimed(sweep, runs[0])
    claim.__enter__()
    engine, events = in_process(), list[Event]()

    def note(event: Event) -> None:
        events.append(event)
        if event.kind == "finished" and event.run is runs[2]:
            claim.__exit__(None, None, None)  # the other one dies without having trained it

    run_plan(sweep, runs, engine=engine, on_event=note)
    assert engine.started == [runs[1].name, runs[2].name, runs[0].name]
    assert kinds(events)[0] == "elsewhere"


def test_what_another_process_finished_is_not_trained_again(
    sweep: Path, runs: list[PlannedRun], in_process: Any
) -> None:
    claim = claimed(sweep, runs[0])
    claim.__enter__()
    engine = in_process()

    def note(event: Event) -> None:
        if event.kind == "finished" and event.run is runs[1]:
            claim.__exit__(None, None, None)
            work_on(sweep, runs[0])

    assert not run_plan(sweep, runs[:2], engine=engine, on_event=note).failed
    assert engine.started == [runs[1].name]


def test_one_that_finds_its_run_busy_is_no_failure(sweep: Path, runs: list[PlannedRun], in_process: Any) -> None:
    answers = [Ended(Outcome.BUSY)]
    engine = in_process(lambda folder, run: answers.pop() if answers else work_on(folder, run))
    events: list[Event] = []
    assert not run_plan(sweep, runs[:1], engine=engine, on_event=events.append).failed
    assert kinds(events) == ["started", "elsewhere", "started", "finished"]


def test_a_signal_asks_each_to_save_and_waits(
    sweep: Path, runs: list[PlannedRun], in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = in_process(lambda *_: None)
    engine.at_once = 2
    monkeypatch.setattr(
        engine, "start", start_then(engine.start, lambda: len(engine.jobs) == 2 and signal.raise_signal(signal.SIGTERM))
    )
    timer = threading.Timer(0.2, lambda: [setattr(job, "end", Ended(Outcome.STOPPED)) for job in engine.jobs])
    timer.start()
    events: list[Event] = []
    end = run_plan(sweep, runs, engine=engine, on_event=events.append)
    assert end.stopped
    assert not end.failed
    assert [job.asked for job in engine.jobs] == [["stop"], ["stop"]]
    assert kinds(events) == ["started", "started", "stopped", "stopped"]


def test_a_second_ctrl_c_kills(
    sweep: Path, runs: list[PlannedRun], in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = in_process(lambda *_: None)
    monkeypatch.setattr(engine, "start", start_then(engine.start, lambda: signal.raise_signal(signal.SIGINT)))
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_plan(sweep, runs, engine=engine)
    assert engine.jobs[0].asked == ["stop", "kill"]


def test_jobs_of_a_queue_stay_there(
    sweep: Path, runs: list[PlannedRun], in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = in_process(lambda *_: None)
    engine.stops_jobs = False
    monkeypatch.setattr(engine, "start", start_then(engine.start, lambda: signal.raise_signal(signal.SIGINT)))
    events: list[Event] = []
    assert run_plan(sweep, runs, engine=engine, on_event=events.append).stopped
    assert engine.jobs[0].asked == []
    assert kinds(events)[-1] == "left"


def start_then(start: Any, after: Any) -> Any:
    def both(*arguments: Any, **more: Any) -> Any:
        job = start(*arguments, **more)
        after()
        return job

    return both
