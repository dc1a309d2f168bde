"""How far a planned run is, and who has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from boqsa.errors import InputError, RunError
from boqsa.inference.run import RECIPE, read_recipe
from boqsa.recipes.recipe import differences
from boqsa.training.resume import LOCK, state_of
from boqsa.training.sweep.plan import KEPT, PlannedRun

METRICS = "metrics.json"
"""What an evaluation leaves in a run folder."""


@dataclass(frozen=True)
class RunState:
    """What the run folder of a planned run says."""

    step: int
    """Steps up to its last checkpoint; 0 where there is none."""
    total: int
    """Steps in all."""
    evaluated: bool = False
    """Whether it was scored on its test split."""
    damage: str | None = None
    """Why its last checkpoint cannot be used, if it cannot."""

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.total and self.damage is None


def state_of_planned(sweep: Path, run: PlannedRun) -> RunState:
    """How far a run is. Its last checkpoint is verified, so do not ask often.

    Raises:
        RunError: if its folder holds something else than a run of this recipe.
    """
    folder, total = run.folder(sweep), run.recipe.train.steps
    if not (folder / RECIPE).exists():
        # An empty folder is what a process left that died early; another content makes `state_of` refuse.
        state_of(folder)
        return RunState(0, total)
    there = read_recipe(folder)
    if there.hash != run.recipe.hash:
        raise RunError(
            f"{folder} holds a run of another recipe ({'; '.join(differences(there, run.recipe))}); "
            "move it away, or choose another --out."
        )
    try:
        state = state_of(folder)
    except RunError as error:
        return RunState(0, total, damage=str(error))
    return RunState(0 if state is None else state[0], total, evaluated=(folder / METRICS).is_file())


def is_done(state: RunState, *, evaluate: bool) -> bool:
    """Whether nothing is left to do for a run."""
    return state.finished and (state.evaluated or not evaluate)


@contextmanager
def claimed(sweep: Path, run: PlannedRun) -> Iterator[bool]:
    """Hold a run for this process while the body runs; yields False at once if another process has it.

    The claim covers what the lock in the run folder does not: the time before the first step, and the evaluation. The
    system frees it when the process dies, so a run is never held by nobody.
    """
    with _tried(_claim(sweep, run)) as got:
        if not got:
            yield False
            return
        # Someone may train the folder by hand, with `boqsa train --resume`.
        yield not _is_locked(run.folder(sweep) / LOCK)


def is_held(sweep: Path, run: PlannedRun) -> bool:
    """Whether a process works on a run at this moment, here or on a machine that shares the disk."""
    return _is_locked(_claim(sweep, run)) or _is_locked(run.folder(sweep) / LOCK)


def _claim(sweep: Path, run: PlannedRun) -> Path:
    return sweep / KEPT / "claims" / f"{run.name}.lock"


def _is_locked(lock: Path) -> bool:
    if not lock.exists():
        return False
    with _tried(lock) as got:
        return not got


@contextmanager
def _tried(lock: Path) -> Iterator[bool]:
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise InputError(f"cannot write {lock}: {error.strerror}; choose a folder that is writable.") from None
    try:
        yield True
    finally:
        held.release()
