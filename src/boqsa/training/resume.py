"""What a run folder holds, and whether a recipe may start there or go on. Nothing here writes."""

import os
from pathlib import Path
from typing import Any

from boqsa.errors import RunError
from boqsa.inference.run import CHECKPOINTS, RECIPE, read_manifest, read_recipe
from boqsa.recipes import Recipe
from boqsa.recipes.recipe import differences
from boqsa.training.checkpoint import load_trainer

LOCK = ".lock"
"""File of a run folder that the process holds which trains there."""


def state_of(run: str | Path) -> tuple[int, int] | None:
    """Finished steps and steps in all of the run in a folder; None if the folder is absent or empty.

    Raises:
        RunError: if it is not a run folder, or its last checkpoint is damaged.
    """
    run = Path(run)
    if not _holds_something(run):
        return None
    total = read_recipe(run).train.steps
    last = last_checkpoint(run)
    return (0 if last is None else _step(last)), total


def last_checkpoint(run: Path) -> Path | None:
    """The newest whole `last`; it may have been moved aside by a process that died between two renames."""
    folders = (run / CHECKPOINTS / "last", run / CHECKPOINTS / ".previous-last")
    return next((folder for folder in folders if folder.exists()), None)


def saved_training(recipe: Recipe, run: Path) -> dict[str, Any] | None:
    """The state of training that the recipe goes on from in this folder; None if it is to start at step 0.

    Raises:
        RunError: if the folder holds something else, a run of another recipe, a finished or a damaged one, or
            cannot be made.
    """
    if not _holds_something(run):
        _require_writable(run)
        return None
    there = read_recipe(run)
    if there.hash != recipe.hash:
        raise RunError(
            f"{run} holds a run of another recipe ({'; '.join(differences(there, recipe))}); "
            f"choose another --out, or continue that run with `boqsa train --resume {run}`."
        )
    last = last_checkpoint(run)
    if last is None:
        return None
    trainer = load_trainer(last)
    if read_manifest(last)["recipe"] != recipe.hash:
        raise RunError(
            f"{run / RECIPE} is not the recipe that {last} was trained with; "
            "put the recipe back, or choose another --out."
        )
    if trainer["step"] >= recipe.train.steps:
        raise RunError(
            f"{run} is finished ({trainer['step']} steps); `boqsa evaluate {run}` scores it, another --out starts anew."
        )
    return trainer


def _holds_something(run: Path) -> bool:
    """Whether a folder holds more than what a process left that died while it made the folder."""
    if run.exists() and not run.is_dir():
        raise RunError(f"{run} is a file, not a run folder; choose another one.")
    return run.is_dir() and any(
        entry.name != LOCK and not entry.name.startswith(".partial-") for entry in run.iterdir()
    )


def _require_writable(run: Path) -> None:
    nearest = next(path for path in (run, *run.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "it is not writable" if nearest.is_dir() else "it is a file"
        raise RunError(f"cannot make {run} in {nearest}: {why}; choose another --out.")


def _step(folder: Path) -> int:
    step = read_manifest(folder).get("step")
    if type(step) is not int:
        raise RunError(f"{folder} is damaged: its manifest names no step; use another checkpoint, or train again.")
    return step
