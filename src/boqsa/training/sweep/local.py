"""Processes of this machine. Each run is a process with a console of its own: one that dies takes no other along."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from boqsa.cores import cores
from boqsa.errors import RecipeError
from boqsa.training.sweep.engine import Ended, Job, Outcome
from boqsa.training.sweep.plan import KEPT, PlannedRun

_LAST_LINES = 3
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class _Place:
    """Where one process at a time runs."""

    index: int
    device: str | None
    """Its CUDA_VISIBLE_DEVICES, where there are GPUs."""


_OF_A_JOB = ("SLURM_", "TORCHELASTIC_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""Variables that make a process one of several of a job, which no run of this engine is."""


class LocalEngine:
    """Starts a process for each run, so many at a time.

    Args:
        runs: How many runs there are; no more workers than that are of use.
        workers: Processes at a time. None: one for each GPU; without GPUs as many as the cores have room for.
        threads: CPU threads of each. None: the cores, divided by the workers.
        use_gpus: Whether the runs may use GPUs; each worker then sees one.

    Raises:
        RecipeError: if a number is below 1.
    """

    stops_jobs = True

    def __init__(
        self, runs: int, *, workers: int | None = None, threads: int | None = None, use_gpus: bool = True
    ) -> None:
        for name, value in (("workers", workers), ("threads-per-worker", threads)):
            if value is not None and value < 1:
                raise RecipeError(f"--{name} is {value}; it must be at least 1.")
        devices = visible_gpus() if use_gpus else []
        self.at_once, self.threads = share_out(cores(), len(devices), runs, workers=workers, threads=threads)
        self._free = [
            _Place(index, devices[index % len(devices)] if devices else None) for index in range(self.at_once)
        ]

    def start(self, sweep: Path, run: PlannedRun, *, evaluate: bool) -> Job:
        """Start the process of a run; at most `at_once` at a time."""
        place = self._free.pop(0)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_JOB)}
        environment["OMP_NUM_THREADS"] = str(run.recipe.train.threads or self.threads)
        if place.device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = place.device
        console = sweep / KEPT / "console" / f"{run.name}.txt"
        console.parent.mkdir(parents=True, exist_ok=True)
        before = console.stat().st_size if console.exists() else 0
        command = [sys.executable, "-m", "boqsa.training.sweep", str(sweep), run.name]
        command += ["--threads", str(self.threads), *(["--evaluate"] if evaluate else [])]
        with open(console, "ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which then asks each process once
            )
        return _Process(process, console, before, lambda: self._free.append(place))


class _Process:
    def __init__(
        self, process: "subprocess.Popen[bytes]", console: Path, before: int, release: Callable[[], None]
    ) -> None:
        self._process, self._console, self._before, self._release = process, console, before, release
        self._ended: Ended | None = None

    def poll(self) -> Ended | None:
        if self._ended is None and self._process.poll() is not None:
            self._ended = ended(self._process.returncode, _tail(self._console, self._before))
            self._release()
        return self._ended

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)


def ended(code: int, console: str) -> Ended:
    """What an exit code means; one below 0 is the signal that killed the process."""
    if code >= 0:
        known = code in {outcome.value for outcome in Outcome}
        return Ended(Outcome(code) if known else Outcome.BROKEN, "" if code == 0 else console)
    name = signal.Signals(-code).name
    if -code == signal.SIGTERM:  # before it could listen for it, or while it was scored; nothing is lost
        return Ended(Outcome.STOPPED, f"ended by {name}")
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return Ended(Outcome.BROKEN, "\n".join(filter(None, [console, f"killed by {name}{hint}"])))


def share_out(
    cores: int, gpus: int, runs: int, *, workers: int | None = None, threads: int | None = None
) -> tuple[int, int]:
    """Workers and CPU threads of each; what is given stays as it is.

    Args:
        cores: CPU cores, at least 1.
        gpus: GPUs, 0 if there are none or they are not wanted.
        runs: Runs that there are.
        workers, threads: What the user wants.
    """
    if workers is None:
        workers = gpus or (cores // threads if threads else cores)
    workers = max(1, min(workers, runs))
    return workers, threads or max(1, cores // workers)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it."""
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]


def _tail(console: Path, start: int) -> str:
    """The last lines that were written after `start`; without them, nothing."""
    with open(console, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-_LAST_LINES:])
