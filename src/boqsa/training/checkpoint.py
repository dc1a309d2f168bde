"""Writing checkpoints, and reading back the state of training. `boqsa.inference.run` describes the folder.

A checkpoint is written beside, flushed and renamed: under its name it is always whole, whenever the process
dies.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from boqsa.errors import RunError
from boqsa.inference.run import MANIFEST, MODEL, TRAINER, read_manifest, write_checkpoint


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    *,
    config: dict[str, Any],
    step: int,
    recipe_hash: str,
    trainer: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint, with the state of training, so that `folder` is the old one or the new one.

    Args:
        folder, model, config, step, recipe_hash: As in `write_checkpoint`.
        trainer: State of training, plain data with its own `step`; None saves weights alone.
    """

    def write_trainer(partial: Path) -> list[str]:
        if trainer is None:
            return []
        torch.save(trainer, partial / TRAINER)
        return [TRAINER]

    write_checkpoint(folder, model, config=config, step=step, recipe_hash=recipe_hash, write_more=write_trainer)


def load_trainer(folder: Path) -> dict[str, Any]:
    """The state of training of a verified checkpoint, on the CPU; only plain data is ever unpickled.

    Raises:
        RunError: if the checkpoint is damaged, or holds weights alone.
    """
    manifest = read_manifest(folder)
    if TRAINER not in manifest["sha256"]:
        raise RunError(f"{folder} holds weights alone; start a new run from it with --train.init-from.")
    state: dict[str, Any] = torch.load(folder / TRAINER, map_location="cpu", weights_only=True)
    # The manifest's own bytes have no sha256: what it says is compared with what the other files know.
    if state["step"] != manifest.get("step") or "recipe" not in manifest or MODEL not in manifest["sha256"]:
        raise RunError(f"{folder} is damaged: {MANIFEST} and {TRAINER} disagree; train again with another --out.")
    return state
