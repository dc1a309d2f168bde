"""The run folder: reading its recipe and its checkpoints, verified, and writing a checkpoint whole.

    RUN/recipe.json, log.jsonl, metrics.json, pictures/
    RUN/checkpoints/<last | best_loss | best_...>/
        model.safetensors   weights alone, for everyone
        config.json         arguments of the model's constructor
        trainer.pt          optimiser and counters; absent where a run was converted, not trained
        manifest.json       step, recipe hash, sha256 of each file

A checkpoint is written beside and renamed: under its name it is always whole.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from boqsa.atomic import atomic_folder
from boqsa.errors import RunError
from boqsa.recipes import Recipe

RECIPE, CHECKPOINTS = "recipe.json", "checkpoints"
MODEL, CONFIG, TRAINER, MANIFEST = "model.safetensors", "config.json", "trainer.pt", "manifest.json"


def read_recipe(run: str | Path) -> Recipe:
    """The recipe of a run.

    Raises:
        RunError: if `run` is not a run folder, or the recipe is not text.
        RecipeError: if its recipe is damaged.
    """
    path = Path(run) / RECIPE
    if not Path(run).is_dir():
        raise RunError(f"there is no run folder {run}; `boqsa train RECIPE --out {run}` would make it.")
    if not path.is_file():
        raise RunError(
            f"{run} is not a run folder: it has no {RECIPE}. Give the folder that --out of a training named."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RunError(f"{path} is damaged: it is not text; restore it, or train again.") from None
    return Recipe.from_json(text)


def checkpoint_folder(run: str | Path, name: str = "last") -> Path:
    """The folder of a checkpoint of a run.

    Raises:
        RunError: if the run has no such checkpoint; the message names those it has.
    """
    found = sorted(path.parent.name for path in (Path(run) / CHECKPOINTS).glob(f"[!.]*/{MANIFEST}"))
    if name not in found:
        has = f"it has {', '.join(found)}" if found else "it has none yet; let it train up to its first checkpoint"
        raise RunError(f"{run} has no checkpoint {name!r}; {has}.")
    return Path(run) / CHECKPOINTS / name


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after comparing the sha256 of every file with it.

    Raises:
        RunError: if the checkpoint is incomplete or a file of it is damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        damaged = [name for name, expected in manifest["sha256"].items() if sha256(folder / name) != expected]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder} is not a whole checkpoint ({error}); use another one, or train again.") from None
    if damaged:
        raise RunError(
            f"{folder} is damaged: the sha256 of {', '.join(damaged)} is not the one in {MANIFEST}; "
            "use another checkpoint of the run, or train again."
        )
    return manifest


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a verified checkpoint, on the CPU."""
    read_manifest(folder)
    try:
        return load_file(folder / MODEL)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{folder / MODEL} cannot be read ({error}); use another checkpoint.") from None


def write_checkpoint(
    folder: Path,
    model: nn.Module,
    *,
    config: dict[str, Any],
    step: int,
    recipe_hash: str,
    write_more: Callable[[Path], Sequence[str]] = lambda partial: (),
) -> None:
    """Write a checkpoint so that `folder` is either the old one or the new one.

    Args:
        folder: `RUN/checkpoints/<name>`.
        model: Its weights are saved; tensors are made contiguous, which channels-last ones are not.
        config: Arguments of the model's constructor.
        step: Finished optimiser steps.
        recipe_hash: `Recipe.hash` of the run.
        write_more: Writes further files into the folder it is given and returns their names.
    """
    with atomic_folder(folder) as partial:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, partial / MODEL, metadata={"format": "pt"})
        (partial / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        files = [MODEL, CONFIG, *write_more(partial)]
        manifest = {
            "step": step,
            "recipe": recipe_hash,
            "sha256": {name: sha256(partial / name) for name in files},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
