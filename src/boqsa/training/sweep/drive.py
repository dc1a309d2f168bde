"""From a plan to finished runs: starting, retrying, leaving alone what others do, stopping."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from boqsa.errors import BoqsaError
from boqsa.training.signals import stop_signals
from boqsa.training.sweep.engine import Ended, Engine, Event, Job, Outcome
from boqsa.training.sweep.plan import PlannedRun
from boqsa.training.sweep.state import is_done, is_held, state_of_planned

_LOOK_EVERY_S = 0.2
_LOOK_ELSEWHERE_EVERY_S = 2.0
"""Locks on a shared disk are asked for less often."""
_STOPS_IN_VAIN = 10
"""So often in a row a run may be stopped before it has made a step; then something stops it on purpose."""


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended."""

    failed: dict[str, str] = field(default_factory=dict)
    """Last words of each run that failed, by its name."""
    stopped: bool = False
    """Whether a signal ended it before all was done."""


def run_plan(
    sweep: str | Path,
    runs: Sequence[PlannedRun],
    *,
    engine: Engine,
    evaluate: bool = False,
    retries: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
) -> SweepEnd:
    """Train all runs of a plan that are not finished; return when none is left to do.

    Several processes may call this on one folder at the same time, also from machines that share its disk if the disk
    passes `flock` on. A run that another one has is waited for, and taken up from its checkpoint if that one dies.

    Args:
        sweep: Folder with the plan (`write_plan`).
        runs: The plan, or a part of it.
        engine: Where to run them.
        evaluate: Whether to score each on its test split afterwards.
        retries: How often a run that broke (a kill, a bug, a full disk) is started again, after those that wait. What
            was refused (bad input, a loss that is not a number) is not. What a signal stopped is started again, and
            that is no retry.
        on_event: Called with all that happens, in the calling thread.

    Returns:
        Which runs failed, and whether a signal ended the sweep. After Ctrl-C or SIGTERM, processes of this machine
        are asked to save and are waited for; a second Ctrl-C kills them and raises KeyboardInterrupt.

    Raises:
        RunError: if a run's folder holds something else.
    """
    drive = _Drive(Path(sweep), engine, evaluate=evaluate, retries=retries, on_event=on_event)
    for run in runs:
        state = state_of_planned(drive.sweep, run)
        if is_done(state, evaluate=evaluate):
            on_event(Event(run, "skipped", "it is finished"))
        else:
            drive.waiting.append(run)
    with stop_signals() as stop:
        try:
            return drive.to_the_end(stop)
        except KeyboardInterrupt:  # the second Ctrl-C
            drive.kill()
            raise
        except BaseException:
            drive.ask_to_stop()
            raise


class _Drive:
    def __init__(
        self, sweep: Path, engine: Engine, *, evaluate: bool, retries: int, on_event: Callable[[Event], None]
    ) -> None:
        self.sweep, self.engine, self.evaluate, self.retries, self.on_event = sweep, engine, evaluate, retries, on_event
        self.waiting: list[PlannedRun] = []
        self.elsewhere: list[PlannedRun] = []
        self.working: list[tuple[PlannedRun, Job, int]] = []
        """Run, its process, and its step when that was started."""
        self.tries_left: dict[str, int] = {}
        self.stops_in_vain: dict[str, int] = {}
        self.failed: dict[str, str] = {}
        self._looked_elsewhere = float("-inf")

    def to_the_end(self, stop: Sequence[object]) -> SweepEnd:
        while self.waiting or self.working or self.elsewhere:
            if stop:
                self.stop()
                return SweepEnd(self.failed, stopped=True)
            self.collect()
            self.look_elsewhere()
            self.start()
            time.sleep(_LOOK_EVERY_S)
        return SweepEnd(self.failed)

    def start(self) -> None:
        """Start what there is room for; what another process has by now is left to it."""
        while self.waiting and (not self.engine.at_once or len(self.working) < self.engine.at_once):
            run = self.waiting.pop(0)
            if is_held(self.sweep, run):
                self.leave(run)
                continue
            try:
                state = state_of_planned(self.sweep, run)
            except BoqsaError as error:  # someone has put something else there meanwhile
                self.fail(run, str(error))
                continue
            if is_done(state, evaluate=self.evaluate):
                self.on_event(Event(run, "finished", "by another process"))
                continue
            job = self.engine.start(self.sweep, run, evaluate=self.evaluate)
            self.working.append((run, job, state.step))
            where = f"goes on at step {state.step} of {state.total}" if state.step else f"{state.total} steps"
            self.on_event(Event(run, "started", where))

    def collect(self) -> None:
        """Take note of what has ended."""
        for entry in list(self.working):
            run, job, began = entry
            end = job.poll()
            if end is None:
                continue
            self.working.remove(entry)
            if end.outcome is Outcome.BUSY:
                self.leave(run)
            elif end.outcome is Outcome.DONE and self.is_done(run):
                self.on_event(Event(run, "finished"))
            elif end.outcome is Outcome.DONE:
                self.retry_or_fail(run, Ended(Outcome.BROKEN, "its process ended without an error or a result"), began)
            else:
                self.retry_or_fail(run, end, began)

    def retry_or_fail(self, run: PlannedRun, end: Ended, began: int) -> None:
        step = self.step_of(run)
        if self.may_try_again(run, end, in_vain=step <= began):
            self.waiting.append(run)  # what broke it may be over when the others have had their turn
            self.on_event(Event(run, "retried", f"from step {step}; {_last_line(end)}"))
        else:
            self.fail(run, end.text)

    def may_try_again(self, run: PlannedRun, end: Ended, *, in_vain: bool) -> bool:
        """Whether a run that has not ended well is started once more; this counts it."""
        if end.outcome is Outcome.STOPPED:
            stops = self.stops_in_vain[run.name] = self.stops_in_vain.get(run.name, 0) + 1 if in_vain else 0
            return stops <= _STOPS_IN_VAIN
        left = self.tries_left.get(run.name, self.retries)
        if end.outcome is Outcome.REFUSED or not left:
            return False
        self.tries_left[run.name] = left - 1
        return True

    def fail(self, run: PlannedRun, text: str) -> None:
        self.failed[run.name] = text
        self.on_event(Event(run, "failed", text))

    def is_done(self, run: PlannedRun) -> bool:
        try:
            return is_done(state_of_planned(self.sweep, run), evaluate=self.evaluate)
        except BoqsaError:
            return False

    def step_of(self, run: PlannedRun) -> int:
        """Its last checkpoint's; one that cannot be used counts as none."""
        try:
            return state_of_planned(self.sweep, run).step
        except BoqsaError:
            return 0

    def leave(self, run: PlannedRun) -> None:
        self.elsewhere.append(run)
        self.on_event(Event(run, "elsewhere", "another process has it"))

    def look_elsewhere(self) -> None:
        """Take up what another process has let go."""
        now = time.monotonic()
        if now - self._looked_elsewhere < _LOOK_ELSEWHERE_EVERY_S:
            return
        self._looked_elsewhere = now
        for run in list(self.elsewhere):
            if not is_held(self.sweep, run):
                self.elsewhere.remove(run)
                self.waiting.append(run)

    def stop(self) -> None:
        """Ask all processes to save, and wait for them."""
        if not self.engine.stops_jobs:
            for run, _, _ in self.working:
                self.on_event(Event(run, "left", "its job stays in the queue"))
            return
        self.ask_to_stop()
        while self.working:
            for entry in list(self.working):
                run, job, _ = entry
                end = job.poll()
                if end is None:
                    continue
                self.working.remove(entry)
                self.note_stopped(run, end)
            time.sleep(_LOOK_EVERY_S)

    def note_stopped(self, run: PlannedRun, end: Ended) -> None:
        if end.outcome is Outcome.DONE:
            self.on_event(Event(run, "finished"))
        elif end.outcome in (Outcome.STOPPED, Outcome.BUSY):
            self.on_event(Event(run, "stopped", f"at step {self.step_of(run)}"))
        else:
            self.fail(run, end.text)

    def ask_to_stop(self) -> None:
        if self.engine.stops_jobs:
            for _, job, _ in self.working:
                job.stop()

    def kill(self) -> None:
        if self.engine.stops_jobs:
            for _, job, _ in self.working:
                job.kill()


def _last_line(end: Ended) -> str:
    if end.text:
        return end.text.splitlines()[-1]
    return "a signal stopped it" if end.outcome is Outcome.STOPPED else "it ended without a word"
