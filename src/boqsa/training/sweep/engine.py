"""What `run_plan` needs of an engine, and what it tells while it works."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol

from boqsa.training.sweep.plan import PlannedRun


class Outcome(Enum):
    """How the process of a run ended; the value is its exit code where it is a process of this machine."""

    DONE = 0
    """Nothing is left to do."""
    BROKEN = 1
    """A bug, a kill, a full disk: it may go better another time."""
    REFUSED = 2
    """Told in one line: bad input, a loss that is not a number. Someone has to mend something first."""
    STOPPED = 3
    """A signal asked for it; the checkpoint is written."""
    BUSY = 75
    """Another process has the run; nothing was done."""


@dataclass(frozen=True)
class Ended:
    """The end of a process."""

    outcome: Outcome
    text: str = ""
    """Its last words, where it did not end well."""


class Job(Protocol):
    """A started process of one run."""

    def poll(self) -> Ended | None:
        """How it ended; None while it works or waits."""

    def stop(self) -> None:
        """Ask it to save and end."""

    def kill(self) -> None:
        """End it now."""


class Engine(Protocol):
    """Where processes run."""

    at_once: int
    """How many may be started at the same time; 0 means any number, because something else queues them."""
    stops_jobs: bool
    """Whether what it started ends with the sweep; False if it stays in a queue."""

    def start(self, sweep: Path, run: PlannedRun, *, evaluate: bool) -> Job:
        """Start the process of a run."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a run."""

    run: PlannedRun
    kind: Literal["skipped", "started", "elsewhere", "finished", "retried", "failed", "stopped", "left"]
    """skipped: it was done before. elsewhere: another process has it. left: it stays in a queue."""
    text: str = ""
    """More, for people."""
