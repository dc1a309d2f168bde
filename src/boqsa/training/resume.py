"""What a run folder holds, and whether a recipe may start there or go on. Nothing here writes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from boqsa.data import PackedDataset
from boqsa.errors import RunError, as_typed
from boqsa.inference.run import (
    CHECKPOINTS,
    MANIFEST,
    RECIPE,
    read_manifest,
    read_recipe,
    refuse_links,
    resumable_folders,
)
from boqsa.plain import read_small_text
from boqsa.recipes import Recipe
from boqsa.recipes.recipe import differences
from boqsa.training.checkpoint import read_step, read_training
from boqsa.training.log import CHANGED, read_log

LOCK = ".lock"
"""File of a run folder that the process holds which trains there."""

CHANGEABLE = (
    *("train.steps", "train.accumulate", "train.precision", "train.learning_rate", "train.dvae.learning_rate"),
    *("train.half_life_steps", "train.dvae.half_life_steps", "train.patience", "train.clip_norm"),
    *("train.nonfinite_patience", "train.keep_last", "train.checkpoint_every", "train.evaluate_every"),
    *("train.log_every", "train.deterministic"),
    *("model.recompute", "evaluate.batch_size", "evaluate.validation_limit"),
)
"""Fields that a user may change in the middle of a run, on purpose. With any other the state of training would not fit,
or earlier steps would have another meaning: that is a new run, from these weights."""


Content = TypeVar("Content")


class Saved(NamedTuple):
    """What a run goes on from."""

    folder: Path
    """The newest whole checkpoint."""
    step: int
    """Its finished steps."""
    trainer: dict[str, Any]
    """Its state of training."""
    damaged: tuple[str, ...]
    """What is wrong with the newer ones."""
    data: tuple[str, ...]
    """Fingerprint of the data it was trained on, and of those that it was then told to go on with, if any."""
    images: int | None
    """How many images these data had; None in checkpoints of earlier versions."""


def state_of(run: str | Path) -> tuple[int, int] | None:
    """Finished steps, by the newest whole checkpoint, and steps in all of the run in a folder; None if the folder is
    absent or empty.

    Raises:
        RunError: if it is not a run folder, or none of its checkpoints is whole.
    """
    run = Path(run)
    if not _holds_something(run):
        return None
    total = read_recipe(run).train.steps
    found = _newest_whole(run, read_step)
    return (0 if found is None else found.content), total


def saved_training(recipe: Recipe, run: Path, *, allow_changes: bool = False) -> Saved | None:
    """What the recipe goes on from in this folder; None if it is to start at step 0.

    Args:
        recipe: What is to run.
        run: Run folder, or none yet.
        allow_changes: Whether the recipe may differ from that of the run so far, in `CHANGEABLE`.

    Raises:
        RunError: if the folder holds something else, a run of another recipe, a finished or a damaged one, or
            cannot be made.
    """
    if not _holds_something(run):
        _require_writable(run)
        return None
    refuse_links(run)
    _require_folder_of_checkpoints(run)
    there = read_recipe(run)
    _require_same_recipe(there, recipe, run, allow_changes=allow_changes)
    found = _newest_whole(run, read_training)
    if found is None:
        _require_unfinished(run, there)
        return None
    folder, (manifest, trainer), damaged = found
    if trainer is None:
        raise RunError(f"{folder} holds weights alone; start a new run from it with --train.init-from.")
    # A checkpoint from before a change has the hash that the recipe had then.
    changes = [row for row in read_log(run) if row["event"] == CHANGED]
    known = {there.hash, *(row.get("recipe_before") for row in changes)}
    if manifest["recipe"] not in known:
        raise RunError(
            f"{run / RECIPE} is not the recipe that {folder} was trained with; "
            "put the recipe back, or choose another --out."
        )
    if trainer["step"] >= recipe.train.steps:
        typed = as_typed(run)
        raise RunError(
            f"{run} is finished ({trainer['step']} steps); `boqsa evaluate {typed}` scores it, another --out starts "
            f"anew, `boqsa train --resume {typed} --allow-changes --train.steps N` goes on to N steps."
        )
    return Saved(
        folder=folder,
        step=trainer["step"],
        trainer=trainer,
        damaged=damaged,
        data=(str(trainer.get("data")), *(str(row.get("data")) for row in changes[-1:])),
        images=trainer.get("images"),
    )


def require_same_data(saved: Saved, data: PackedDataset, run: Path) -> None:
    """Go on if these are the images that the run was trained on.

    Raises:
        RunError: if they are others.
    """
    now = data.manifest.fingerprint
    if now not in saved.data:
        raise RunError(
            f"{run} was trained on other data than {data.path} ({saved.images or 'some'} images with fingerprint "
            f"{saved.data[0][:12]} -> {len(data)} images with fingerprint {now[:12]}); give the data it began with, or "
            "go on with these by --allow-changes."
        )


def checkpoints_now(run: Path) -> list[tuple[str, str]]:
    """What tells whether a process has saved something since: names and manifests of what a run can go on from."""
    found = []
    for folder in resumable_folders(run):
        try:
            found.append((folder.name, read_small_text(folder / MANIFEST)))
        except (OSError, ValueError):
            found.append((folder.name, ""))
    return found


def changes_between(there: Recipe, recipe: Recipe) -> list[str]:
    """The fields that decide the result in which two recipes differ, each as `train.steps: 100 -> 200`."""
    if there.hash == recipe.hash:
        return []
    ignored = {"data.root", "train.device", "train.threads", "train.radiance.perceptual_file"}
    ignored |= {"model.encoder", "model.encoder_sha256"}
    return [change for change in differences(there, recipe) if change.split(":")[0] not in ignored]


def kept(run: Path) -> str:
    """In words, what a run that has to stop can go on from."""
    try:
        found = _newest_whole(run, read_step)
    except RunError as error:
        return str(error).rstrip(".")
    if found is None:
        return "there is no checkpoint yet"
    return f"{found.folder} holds the last good state, of step {found.content}"


class _Found(NamedTuple, Generic[Content]):
    folder: Path
    content: Content
    damaged: tuple[str, ...]
    """What is wrong with newer ones."""


def _newest_whole(run: Path, read: Callable[[Path], Content]) -> _Found[Content] | None:
    """The newest checkpoint that `read` does not find damaged; None where there is no checkpoint at all.

    Raises:
        RunError: if there are some, and all are damaged.
    """
    damaged: list[str] = []
    for folder in resumable_folders(run):
        try:
            return _Found(folder, read(folder), tuple(damaged))
        except RunError as error:
            # Without what to do about it: that depends on the others.
            damaged.append(str(error).split("; use another")[0])
    if not damaged:
        return None
    also = "".join(f"; {words}, too" for words in damaged[1:])
    raise RunError(f"{damaged[0]}{also}; no other checkpoint of {run} can be resumed. {_from_weights(run)}")


def _from_weights(run: Path) -> str:
    """What to type where no state of training is left."""
    for folder in sorted((run / CHECKPOINTS).glob("best_*"), key=lambda path: path.name != "best_loss"):
        try:
            step = read_manifest(folder)["step"]
        except (RunError, KeyError):
            continue
        if type(step) is int:
            return (
                f"Start a new run from the weights of step {step}, with --train.init-from {as_typed(folder)} and "
                "another --out."
            )
    return "Train again, into another --out."


def _require_folder_of_checkpoints(run: Path) -> None:
    path = run / CHECKPOINTS
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file, where a run has the folder of its checkpoints; move it away.")


def _require_unfinished(run: Path, there: Recipe) -> None:
    """Refuse a run that came to its end, and whose checkpoints were deleted since: nobody means to train it again.

    A process that dies as it writes the first checkpoint of a short run has logged the end too; its folder of
    checkpoints is empty, and it had no earlier one.
    """
    settings = there.train
    ended = any(row["event"] == "finished" and row["step"] >= settings.steps for row in read_log(run))
    if ended and (settings.steps > settings.checkpoint_every or not (run / CHECKPOINTS).exists()):
        raise RunError(
            f"{run} is finished by its log, but its checkpoints are gone; put {run / CHECKPOINTS} back, or train again "
            "into another --out."
        )


def _require_same_recipe(there: Recipe, recipe: Recipe, run: Path, *, allow_changes: bool) -> None:
    changes = changes_between(there, recipe)
    if not changes:
        return
    fixed = [change for change in changes if change.split(":")[0] not in CHANGEABLE]
    typed = as_typed(run)
    if not allow_changes:
        raise RunError(
            f"{run} holds a run of another recipe ({'; '.join(changes)}); choose another --out, continue that run with "
            f"`boqsa train --resume {typed}`, or change it on purpose with --resume {typed} --allow-changes."
        )
    if fixed:
        raise RunError(
            f"this cannot be changed in the middle of a run: {'; '.join(fixed)}. "
            f"Start a new run from its weights, with --train.init-from {typed} and another --out."
        )


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
