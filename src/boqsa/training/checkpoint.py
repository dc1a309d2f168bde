"""Writing checkpoints, and reading back the state of training. `boqsa.inference.run` describes the folder.

A checkpoint is written beside, flushed and renamed: under its name it is always whole, whenever the process dies.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from boqsa.atomic import atomic_folder
from boqsa.errors import RunError
from boqsa.inference.run import CONFIG, MANIFEST, MODEL, TRAINER, read_manifest, sha256


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    *,
    config: dict[str, Any],
    step: int,
    recipe_hash: str,
    trainer: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint so that `folder` is either the old one or the new one.

    Args:
        folder: `RUN/checkpoints/<name>`.
        model: Its weights are saved; tensors are made contiguous, which channels-last ones are not.
        config: Arguments of the model's constructor.
        step: Finished optimiser steps.
        recipe_hash: `Recipe.hash` of the run.
        trainer: State of training: tensors, numbers, strings and containers of them.
    """
    with atomic_folder(folder) as partial:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, partial / MODEL, metadata={"format": "pt"})
        (partial / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        files = [MODEL, CONFIG]
        if trainer is not None:
            torch.save(trainer, partial / TRAINER)
            files.append(TRAINER)
        manifest = {
            "step": step,
            "recipe": recipe_hash,
            "sha256": {name: sha256(partial / name) for name in files},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def load_trainer(folder: Path) -> dict[str, Any]:
    """The state of training of a verified checkpoint, on the CPU; only plain data is ever unpickled.

    Raises:
        RunError: if the checkpoint is damaged, or holds weights alone.
    """
    if TRAINER not in read_manifest(folder)["sha256"]:
        raise RunError(f"{folder} holds weights alone; start a new run from it with --train.init-from.")
    state: dict[str, Any] = torch.load(folder / TRAINER, map_location="cpu", weights_only=True)
    return state
