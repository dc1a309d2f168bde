"""Writing checkpoints, and reading back the state of training. `boqsa.inference.run` describes the folder.

A checkpoint is written beside, flushed and renamed: under its name it is always whole, whenever the process
dies.
"""

import io
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from boqsa.atomic import recover_folder
from boqsa.errors import RunError
from boqsa.inference.run import (
    CHECKPOINTS,
    MANIFEST,
    MODEL,
    TRAINER,
    older_names,
    read_manifest,
    resumable_folders,
    write_checkpoint,
)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    *,
    config: dict[str, Any],
    step: int,
    recipe_hash: str,
    trainer: dict[str, Any] | None = None,
    keep: int = 1,
) -> None:
    """Write a checkpoint, with the state of training, so that `folder` is the old one or the new one.

    Args:
        folder, model, config, step, recipe_hash: As in `write_checkpoint`.
        trainer: State of training, plain data with its own `step`; None saves weights alone.
        keep: How many to have in the end, this one included. The others keep the names that `older_names` gives; what
            is left over goes once the new one is in its place.
    """

    def write_trainer(partial: Path) -> list[str]:
        if trainer is None:
            return []
        content = io.BytesIO()
        torch.save(trainer, content)
        (partial / TRAINER).write_bytes(content.getbuffer())
        return [TRAINER]

    older = older_names(keep)
    write_checkpoint(
        folder, model, config=config, step=step, recipe_hash=recipe_hash, write_more=write_trainer, older=older
    )
    if trainer is not None:
        for path in resumable_folders(folder.parent.parent):
            if path.name not in (folder.name, *older):
                shutil.rmtree(path, ignore_errors=True)


def set_aside(run: Path, good: Path | None) -> None:
    """Make a whole checkpoint `last` again: newer ones, which are damaged, become `.damaged-<name>`.

    They are kept, the latest of each name, for whoever wants to look into them. Also what a death between two renames
    left is put right.
    """
    found = resumable_folders(run)
    for damaged in found[: found.index(good)] if good is not None else ():
        aside = damaged.with_name(f".damaged-{damaged.name.removeprefix('.previous-')}")
        shutil.rmtree(aside, ignore_errors=True)
        damaged.rename(aside)
    places = [int(path.name.rpartition("-")[2]) for path in found if path.name[-1].isdigit()]
    recover_folder(run / CHECKPOINTS / "last", older=older_names(1 + max(places, default=0)))


def read_step(folder: Path) -> int:
    """Finished steps of a verified checkpoint. Its state of training is compared with its sha256, and not unpickled.

    Raises:
        RunError: if the checkpoint is damaged.
    """
    step: int = _manifest_with_step(folder)["step"]
    return step


def read_training(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Manifest and state of training of a verified checkpoint; None for the state where it holds weights alone.

    Raises:
        RunError: if the checkpoint is damaged.
    """
    manifest = _manifest_with_step(folder)
    if TRAINER not in manifest["sha256"]:
        return manifest, None
    disagree = f"{folder} is damaged: {MANIFEST} and {TRAINER} disagree; use another checkpoint, or train again."
    try:
        state: dict[str, Any] = torch.load(folder / TRAINER, map_location="cpu", weights_only=True)
        # The manifest's own bytes have no sha256: what it says is compared with what the other files know.
        if state["step"] != manifest["step"] or "recipe" not in manifest or MODEL not in manifest["sha256"]:
            raise RunError(disagree)
    except RunError:
        raise
    except Exception:  # whatever a hostile or damaged file provokes in the reader
        raise RunError(
            f"{folder} is damaged: {TRAINER} is no state of training; use another checkpoint, or train again."
        ) from None
    return manifest, state


def _manifest_with_step(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if type(manifest.get("step")) is not int:
        raise RunError(f"{folder} is damaged: its manifest names no step; use another checkpoint, or train again.")
    return manifest
