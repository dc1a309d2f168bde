"""The authors' released checkpoints become runs of ours (spec 10).

A released checkpoint is a pickle inside a zip, written by Lightning. No pickle from outside is ever trusted:
torch reads it with `weights_only=True`, and every class that torch does not allow by itself (Lightning's
callbacks, the authors' settings) is replaced by an inert stand-in: it is neither imported nor called. Only
the weights are used.
"""

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from boqsa.atomic import atomic_folder, write_text
from boqsa.errors import InputError, RunError
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, write_checkpoint
from boqsa.models import load_published
from boqsa.recipes import Recipe


class Published(NamedTuple):
    """What is used of a released checkpoint."""

    weights: dict[str, Tensor]
    """By the published names."""
    step: int
    """Finished optimiser steps; 0 where the file does not say."""


def convert(official: str | Path, recipe: Recipe, run: str | Path) -> None:
    """Make a run of a released checkpoint: a recipe and the checkpoint `last`, without the state of training.

    Args:
        official: A Lightning file, or a `.safetensors` file, with the published names.
        recipe: Its sizes and queries must be those of the checkpoint.
        run: Folder to make, or an empty one. It is written whole or not at all.

    Raises:
        InputError: if the file cannot be read, or does not fit the recipe; the message names every
            difference.
        RunError: if `run` already holds something.
    """
    run = Path(run)
    if run.exists() and not (run.is_dir() and not any(run.iterdir())):
        raise RunError(f"{run} already exists; choose another --out.")
    published = read_published(official)
    model = build_model(recipe)
    load_published(model, published.weights)
    with atomic_folder(run.resolve()) as partial:
        write_text(partial / RECIPE, recipe.to_json())
        write_checkpoint(
            partial / CHECKPOINTS / "last",
            model,
            config=model_config(recipe),
            step=published.step,
            recipe_hash=recipe.hash,
        )


def read_published(path: str | Path) -> Published:
    """The weights in a released checkpoint, without running anything that the file says.

    Raises:
        InputError: if the file is missing, damaged, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; name a released checkpoint (.ckpt) or a .safetensors file.")
    if path.suffix == ".safetensors":
        try:
            return Published(load_file(path), step=0)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a whole safetensors file ({error}); download it again.") from None
    content = _load_plain(path)
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{path} holds no weights: expected a Lightning checkpoint with a state_dict of tensors.")
    step = content.get("global_step", 0)
    return Published(dict(weights), step=step if type(step) is int else 0)


class _StandIn:
    """Takes the place of an object whose class is not torch's, and forgets what it is given."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _DictStandIn:
    """The same for dictionaries of another class: torch fills its own kinds alone, so this is one."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


def _stand_in(name: str) -> tuple[type, str]:
    return (_DictStandIn if name.lower().endswith("dict") else _StandIn), name


def _load_plain(path: Path) -> Any:
    try:
        strangers = get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # not a zip: a file of an old torch, which may be plain, or no checkpoint at all
        strangers = []
    try:
        with safe_globals([_stand_in(name) for name in strangers]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on foreign pickles; the error below says what counts
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file can provoke in the reader
        _, _, detail = str(error).rpartition("WeightsUnpickler error:")
        reason = (detail.strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} is damaged or not plain data ({reason[:200]}). "
            "Download it again; or, where you trust its author, save its state_dict as a .safetensors file."
        ) from None
