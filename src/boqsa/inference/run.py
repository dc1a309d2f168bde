"""The run folder: reading its recipe and its checkpoints, verified, and writing a checkpoint whole.

    RUN/recipe.json, log.jsonl, metrics.json, pictures/
    RUN/checkpoints/<last | last-1 | ... | best_loss | best_...>/
        model.safetensors   weights alone, for everyone
        config.json         arguments of the model's constructor
        trainer.pt          optimiser and counters; absent where a run was converted, not trained
        manifest.json       step, recipe hash, sha256 of each file

A checkpoint is written beside and renamed: under its name it is always whole. `last-1` is what was `last` before.

A run may come from a stranger. Names in its manifest are those of files in the folder of the checkpoint and nothing
else, and nothing is written through a link that a run holds.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from boqsa.atomic import atomic_folder
from boqsa.errors import RecipeError, RunError, as_typed
from boqsa.plain import read_json, read_small_text
from boqsa.recipes import Recipe

RECIPE, CHECKPOINTS = "recipe.json", "checkpoints"
MODEL, CONFIG, TRAINER, MANIFEST = "model.safetensors", "config.json", "trainer.pt", "manifest.json"


def read_recipe(run: str | Path) -> Recipe:
    """The recipe of a run.

    Raises:
        RunError: if `run` is not a run folder, or the recipe is not text.
        RecipeError: if its recipe is damaged; the message names the file.
    """
    path = Path(run) / RECIPE
    if not Path(run).is_dir():
        raise RunError(f"there is no run folder {run}; `boqsa train RECIPE --out {as_typed(run)}` would make it.")
    if not path.is_file():
        raise RunError(
            f"{run} is not a run folder: it has no {RECIPE}. Give the folder that --out of a training named."
        )
    try:
        text = read_small_text(path)
    except UnicodeDecodeError:
        raise RunError(f"{path} is damaged: it is not text; restore it, or train again.") from None
    except ValueError as error:
        raise RunError(f"{path} is no recipe ({error}); restore it, or train again.") from None
    try:
        return Recipe.from_json(text)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def checkpoint_names(run: str | Path, *, older: bool = False) -> list[str]:
    """The checkpoints of a run by name, sorted; those that only resuming needs (`last-1`, ...) if `older`."""
    found = sorted(path.parent.name for path in (Path(run) / CHECKPOINTS).glob(f"[!.]*/{MANIFEST}"))
    return found if older else [name for name in found if not re.fullmatch(r"last-\d+", name)]


def resumable_folders(run: str | Path) -> list[Path]:
    """The folders that a run can go on from, newest first: `last`, `last-1`, ...

    A process that died between two renames may have left one as `.previous-<name>`. What has a larger number than
    `train.keep_last` allows is no folder of ours: the names before it would be made up, and fill memory.
    """
    places = {}
    for path in (Path(run) / CHECKPOINTS).glob("*last*"):
        named = re.fullmatch(r"(\.previous-)?last(?:-(\d{1,2}))?", path.name)
        if named:
            places[path] = (int(named[2] or 0), named[1] is not None)
    return sorted(places, key=places.__getitem__)


def older_names(count: int) -> list[str]:
    """The names of the checkpoints before `last` where `count` are kept, newest first."""
    return [f"last-{place}" for place in range(1, count)]


def refuse_links(run: str | Path) -> None:
    """Go on if no file or folder of a run is a link, through which something else would be written over.

    The run folder itself may be one.

    Raises:
        RunError: if there is one.
    """
    run = Path(run)
    for path in (*run.glob("*"), *(run / CHECKPOINTS).glob("*")):
        if path.is_symlink():
            raise RunError(
                f"{path} is a link, and what is written into a run would be written over {path.resolve()}; "
                "put the file or folder itself there. The whole run folder may be a link."
            )


def checkpoint_folder(run: str | Path, name: str = "last") -> Path:
    """The folder of a checkpoint of a run.

    Raises:
        RunError: if the run has no such checkpoint; the message names those it has.
    """
    found = checkpoint_names(run, older=True)
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
        manifest: dict[str, Any] = read_json(folder / MANIFEST)
        _require_own_files(folder, manifest["sha256"])
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


def misfit(model: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """In words, what of some weights does not fit a model: the first tensor, and how many more; None if all fit."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [name for name in expected | found if found.get(name) != expected.get(name)]
    if not wrong:
        return None
    name = wrong[0]
    has = f"has shape {found[name]}" if name in found else "is missing"
    wants = f"expected {expected[name]}" if name in expected else "expected no tensor of this name"
    more = f"; {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""
    shown = name if name.isprintable() else repr(name)  # terminals obey what cannot be printed
    return f"{shown} {has}, {wants}{more}"


def write_checkpoint(
    folder: Path,
    model: nn.Module,
    *,
    config: dict[str, Any],
    step: int,
    recipe_hash: str,
    write_more: Callable[[Path], Sequence[str]] = lambda partial: (),
    older: Sequence[str] = (),
) -> None:
    """Write a checkpoint so that `folder` is either the old one or the new one.

    Args:
        folder: `RUN/checkpoints/<name>`.
        model: Its weights are saved; tensors are made contiguous, which channels-last ones are not.
        config: Arguments of the model's constructor.
        step: Finished optimiser steps.
        recipe_hash: `Recipe.hash` of the run.
        write_more: Writes further files into the folder it is given and returns their names.
        older: Names beside `folder` that keep the checkpoints before, newest first.

    Raises:
        OSError: if the disk is full; what is there stays.
    """
    with atomic_folder(folder, older=older) as partial:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        # Bytes first: the writers of safetensors and of torch hide the reason when a disk is full.
        (partial / MODEL).write_bytes(save(weights, metadata={"format": "pt"}))
        (partial / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        files = [MODEL, CONFIG, *write_more(partial)]
        manifest = {
            "step": step,
            "recipe": recipe_hash,
            "sha256": {name: sha256(partial / name) for name in files},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _require_own_files(folder: Path, names: Any) -> None:
    """A name such as `../../key`, a link or a pipe would have us read what is no part of it, or never end."""
    for name in names:
        if Path(name).name != name or (folder / name).is_symlink() or not (folder / name).is_file():
            raise ValueError(f"{name!r} is no file of it")
    if MODEL not in names:
        raise ValueError(f"{MANIFEST} has no {MODEL}")


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
