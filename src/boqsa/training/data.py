"""From the data part of a recipe to its splits."""

from collections.abc import Callable

from boqsa.data import PackedDataset
from boqsa.data.builtin import builtin_scenes
from boqsa.data.scenes import SceneSettings
from boqsa.errors import InputError, RecipeError
from boqsa.recipes import DataRecipe

_ANY_SOURCE = ("arrays", "folder")
"""Readers of people's own files: what they made may stand in for any data set."""


def open_split(data: DataRecipe, split: str, *, progress: Callable[[int, int], None] | None = None) -> PackedDataset:
    """The images of a split; built-in scenes are rendered if they are not in the cache.

    Args:
        data: Of the recipe.
        split: One of its splits.
        progress: Called with (scenes done, scenes in all) while rendering.

    Raises:
        RecipeError: if `data.root` is missing, or given for the built-in scenes.
        InputError: if the folder is not packed, is another data set, or lacks the split.
    """
    if data.name == "scenes":
        if data.root is not None:
            raise RecipeError("data.root is given, but the data set 'scenes' is rendered by the package; leave it out.")
        settings = SceneSettings(image_size=data.image_size)
        return PackedDataset(
            builtin_scenes(settings, count=data.scene_count, seed=data.scene_seed, progress=progress), split
        )
    if data.root is None:
        raise RecipeError(
            f"data.root is missing: pass --data.root DIR, the folder that "
            f"`boqsa data prepare {data.name} SOURCE DIR --size {data.image_size}` made."
        )
    dataset = PackedDataset(data.root, split)
    found = dataset.manifest.name
    if found != data.name and found not in _ANY_SOURCE:
        raise InputError(
            f"{data.root} holds the data set {found!r}, the recipe wants {data.name!r}; "
            f"pass --data.name {found} if you mean it."
        )
    return dataset


def open_validation(data: DataRecipe) -> PackedDataset | None:
    """The validation split, or None where the data set has none.

    Raises:
        RecipeError, InputError: as `open_split`; a split that is there but damaged is an error too.
    """
    train = open_split(data, data.train_split)
    if data.validation_split not in train.manifest.counts:
        return None
    return PackedDataset(train.path, data.validation_split)
