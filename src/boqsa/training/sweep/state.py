"""How far a planned run is, and who has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boqsa import atomic
from boqsa.atomic import DISK_IS_FULL, one_process
from boqsa.errors import BusyError, InputError, RunError
from boqsa.inference.run import RECIPE, read_recipe
from boqsa.plain import read_json
from boqsa.recipes import Recipe
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
    """Whether `METRICS` scores its last step on its test split."""
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
    step = 0 if state is None else state[0]
    return RunState(step, total, evaluated=read_metrics(folder, run.recipe) is not None)


def read_metrics(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """What an evaluation of the finished run wrote; None if there is none, or one of another recipe or step."""
    try:
        metrics = read_json(folder / METRICS)
        is_own = (metrics["recipe_hash"], metrics["scores"]["last"]["step"]) == (recipe.hash, recipe.train.steps)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return metrics if is_own else None


def is_done(state: RunState, *, evaluate: bool) -> bool:
    """Whether nothing is left to do for a run."""
    return state.finished and (state.evaluated or not evaluate)


@contextmanager
def claimed(sweep: Path, run: PlannedRun) -> Iterator[None]:
    """Hold a run for this process while the body runs.

    The claim covers what the lock in the run folder does not: the time before the first step, and the evaluation. The
    system frees it when the process dies, so a run is never held by nobody.

    Raises:
        BusyError: if another process has the run.
        InputError: if the folder of the sweep cannot be written to.
        OSError: if the disk is full.
    """
    lock, busy = _claim(sweep, run), f"another process has {run.name}."
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_IS_FULL:
            raise
        raise InputError(f"cannot make {lock.parent}: {error.strerror}; choose a folder that is writable.") from None
    with one_process(lock, wait=False, busy=busy):
        if atomic.is_held(run.folder(sweep) / LOCK):  # someone trains the folder by hand: `boqsa train --resume`
            raise BusyError(busy)
        yield


def is_held(sweep: Path, run: PlannedRun) -> bool:
    """Whether a process works on a run at this moment, here or on a machine that shares the disk."""
    return atomic.is_held(_claim(sweep, run)) or atomic.is_held(run.folder(sweep) / LOCK)


def _claim(sweep: Path, run: PlannedRun) -> Path:
    return sweep / KEPT / "claims" / f"{run.name}.lock"
