"""SLURM through submitit (extra `slurm`): one job a run, put back into the queue when its time is over.

submitit sends a job SIGUSR2 some time before its limit. The training then finishes its step and saves, and the job
requeues itself; SIGTERM alone, which is what `scancel` sends, makes it save and end.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from boqsa.atomic import write_text
from boqsa.errors import InputError, RecipeError
from boqsa.plain import read_json
from boqsa.training.sweep.engine import Ended, Job, Outcome
from boqsa.training.sweep.plan import KEPT, PlannedRun
from boqsa.training.sweep.worker import work_on

_TIMEOUTS = 10_000
"""How often a job may run out of time: as often as its steps need. A run that breaks is another matter."""
_LAST_LINES = 3


@dataclass(frozen=True, kw_only=True)
class SlurmSettings:
    """What each job asks the cluster for."""

    partition: str | None = None
    """Partition; by default the cluster's."""
    timeout_min: int = 240
    """Minutes a job may take; it then saves, and goes back into the queue."""
    gpus_per_node: int = 1
    """GPUs of a job; 0 trains on CPUs."""
    cpus_per_task: int = 4
    """CPU cores of a job, and the threads of its training."""
    mem_gb: float | None = None
    """Memory of a job, in GB; by default the cluster's."""
    additional: tuple[str, ...] = ()
    """More options of sbatch, each as KEY=VALUE: account=vision qos=low."""

    def __post_init__(self) -> None:
        for name, least in (("timeout_min", 1), ("gpus_per_node", 0), ("cpus_per_task", 1)):
            if getattr(self, name) < least:
                raise RecipeError(
                    f"--slurm.{name.replace('_', '-')} is {getattr(self, name)}; it must be at least {least}."
                )
        for option in self.additional:
            if "=" not in option.strip("="):
                raise RecipeError(f"--slurm.additional {option!r} is not KEY=VALUE; write it as account=vision.")


class SlurmEngine:
    """Submits a job for each run.

    Args:
        sweep: Folder of the sweep, on a disk that the nodes share.
        settings: What each job asks for.
        at_once: Jobs in the queue at a time; 0 means all.
        cluster: submitit's name of the executor; "local" runs jobs as processes of this machine, for tests.

    Raises:
        InputError: if submitit is not installed, or there is no SLURM here.
    """

    stops_jobs = False

    def __init__(
        self, sweep: str | Path, settings: SlurmSettings | None = None, *, at_once: int = 0, cluster: str = "slurm"
    ) -> None:
        self.at_once = at_once
        self.settings = settings or SlurmSettings()
        self._folder = (Path(sweep) / KEPT / "jobs").absolute()
        self._executor = _executor(self._folder, self.settings, cluster)

    def start(self, sweep: Path, run: PlannedRun, *, evaluate: bool) -> Job:
        """Submit the job of a run; one that is in the queue since an earlier call is taken up instead."""
        note = self._folder / f"{run.name}.json"
        job = self._queued(note)
        if job is None:
            task = SlurmTask(sweep.absolute(), run, threads=self.settings.cpus_per_task, evaluate=evaluate)
            job = self._executor.submit(task)
            write_text(note, json.dumps({"job": job.job_id}))
        return _Submitted(job)

    def _queued(self, note: Path) -> Any:
        """The job that an earlier call submitted, if it is not over."""
        try:
            number = str(read_json(note)["job"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        job = self._executor.job_class(self._folder, number)
        # What the cluster does not know any more is over. If it is not, the second job finds the run claimed.
        return None if job.done(force_check=True) or job.state == "UNKNOWN" else job


class SlurmTask:
    """What a job does; submitit pickles it, calls it, and asks `checkpoint` what to requeue."""

    def __init__(self, sweep: Path, run: PlannedRun, *, threads: int, evaluate: bool) -> None:
        self.sweep, self.run, self.threads, self.evaluate = sweep, run, threads, evaluate

    def __call__(self) -> tuple[int, str]:
        """The outcome's value and last words, which any version of this package can read."""
        with _stopping_gently_on(signal.SIGUSR2) as asked:
            end = work_on(self.sweep, self.run, threads=self.threads, evaluate=self.evaluate)
        if asked and end.outcome is Outcome.STOPPED:
            os.kill(os.getpid(), signal.SIGUSR2)  # submitit's own handler is back: it requeues, and exits
        return end.outcome.value, end.text

    def checkpoint(self) -> Any:
        """The same again: the run folder knows how far it is."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@contextmanager
def _stopping_gently_on(number: signal.Signals) -> Iterator[list[int]]:
    """Pass a signal on to the training as SIGTERM; yields what came. Where no training listens, the old handler acts.

    submitit's handler would requeue in the middle of a step, and lose all steps since the last checkpoint.
    """
    received: list[int] = []
    before = signal.getsignal(number)
    idle = signal.getsignal(signal.SIGTERM)

    def pass_on(got: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGTERM) is idle:
            if callable(before):
                before(got, frame)
            return
        received.append(got)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(number, pass_on)
    try:
        yield received
    finally:
        signal.signal(number, before)


class _Submitted:
    """A job in the queue, or one that runs."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> Ended | None:
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is None:
            code, text = self._job.result()
            return Ended(Outcome(code), text)
        lines = [line for line in str(error).splitlines() if line.strip(" -")]
        return Ended(Outcome.BROKEN, "\n".join(lines[-_LAST_LINES:]))

    def stop(self) -> None:
        self._job.cancel()

    def kill(self) -> None:
        self._job.cancel()


def _executor(folder: Path, settings: SlurmSettings, cluster: str) -> Any:
    try:
        import submitit
    except ImportError:
        raise InputError("SLURM needs the package submitit; type `pip install 'boqsa[slurm]'`.") from None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, **{f"{cluster}_max_num_timeout": _TIMEOUTS})
    except RuntimeError as error:
        raise InputError(f"cannot submit to SLURM from here ({error}); use a login node, or --engine local.") from None
    parameters: dict[str, Any] = {
        "name": "boqsa",
        "timeout_min": settings.timeout_min,
        "cpus_per_task": settings.cpus_per_task,
        "mem_gb": settings.mem_gb,
        "tasks_per_node": 1,
    }
    if settings.gpus_per_node:
        parameters["gpus_per_node"] = settings.gpus_per_node
    if cluster == "slurm":
        parameters["slurm_partition"] = settings.partition
        parameters["slurm_additional_parameters"] = dict(option.split("=", 1) for option in settings.additional)
    executor.update_parameters(**parameters)
    return executor
