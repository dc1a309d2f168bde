"""From the data part of a recipe to its splits, and to the images of a step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from boqsa.data import CATALOG, PackedDataset
from boqsa.data.builtin import RENDERER, builtin_scenes
from boqsa.data.catalog import no_such_set
from boqsa.data.scenes import ORBIT_OF_VIEWS, SceneSettings
from boqsa.errors import InputError, RecipeError
from boqsa.recipes import DataRecipe
from boqsa.training.machine import sent

_ANY_SOURCE = ("arrays", "folder")
"""Readers of people's own files: what they made may stand in for any data set."""


def open_split(data: DataRecipe, split: str, *, progress: Callable[[int, int], None] | None = None) -> PackedDataset:
    """The images of a split; built-in scenes are rendered if they are not in the cache.

    Args:
        data: Of the recipe.
        split: One of its splits.
        progress: Called with (scenes done, scenes in all) while rendering.

    Raises:
        RecipeError: if `data.root` is missing, or given for the built-in scenes; without it, if the catalog lacks the
            data set.
        InputError: if the folder is not packed, is another data set, or lacks the split.
    """
    if data.name == "scenes":
        if data.root is not None:
            raise RecipeError("data.root is given, but the data set 'scenes' is rendered by the package; leave it out.")
        fewest, most = data.scene_objects
        settings = SceneSettings(
            image_size=data.image_size,
            min_objects=fewest,
            max_objects=most,
            orbit=SceneSettings.orbit if data.scene_views == 1 else ORBIT_OF_VIEWS,
        )
        folder = builtin_scenes(
            settings, count=data.scene_count, seed=data.scene_seed, views=data.scene_views, progress=progress
        )
        return PackedDataset(folder, split)
    if data.root is None and data.name not in CATALOG:
        raise RecipeError(f"{no_such_set(data.name)} For one of your own, pass --data.root DIR, its packed folder.")
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


def require_image_size(data: PackedDataset, size: int) -> None:
    """Go on if the images have the size that a recipe wants.

    Args:
        data: A split.
        size: Height and width in pixels.

    Raises:
        RecipeError: if they have another one.
    """
    height, width = data.image_size
    if (height, width) != (size, size):
        raise RecipeError(
            f"{data.path} holds {height}x{width} images, the recipe wants {size}x{size}; prepare it with --size {size}."
        )


_PIECE = 4_096
"""Images sent to an accelerator at a time."""


class StepImages:
    """The images of a split, or their features, where the steps want them: all on the device if they fit there, else
    read as needed. Nothing else of the split is read.

    On a CPU they are read through the memory map, which the system keeps in memory as far as it has some. An
    accelerator holds them itself when they take no more than half of what it has free: then a step sends it nothing.

    Args:
        data: The split.
        device: Of the model.
        resident: Whether to hold all of them on the device; decided by their size if not given.
        column: What the model takes: "image", or "features" (B, N, F).
    """

    def __init__(
        self, data: PackedDataset, device: torch.device, *, resident: bool | None = None, column: str = "image"
    ) -> None:
        self._data = data
        self._device = device
        self._column = column
        self._bytes = data.column_bytes(column)
        if resident is None:
            resident = device.type != "cpu" and self._bytes <= _free_bytes(device) // 2
        self._resident: Tensor | None = None
        if resident:
            first = self._read([0])
            self._resident = torch.empty((len(data), *first.shape[1:]), dtype=first.dtype, device=device)
            for start in range(0, len(data), _PIECE):
                stop = min(start + _PIECE, len(data))
                self._resident[start:stop] = self._read(range(start, stop)).to(device)

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, indices: Sequence[int] | Int[np.ndarray, "B"]) -> Tensor:
        """The images of these indices, or their features, on the device."""
        if self._resident is not None:
            return self._resident[sent(torch.from_numpy(np.asarray(indices)), self._device)]
        return sent(self._read(indices), self._device)

    @property
    def resident(self) -> bool:
        """Whether all of them are on the device."""
        return self._resident is not None

    def __str__(self) -> str:
        where = f"all on {self._device}" if self.resident else "through the memory map"
        what = "images" if self._column == "image" else f"images as {self._column}"
        return f"{len(self._data)} {what}, {self._bytes / 1e6:.0f} MB, read {where}"

    def _read(self, indices: Sequence[int] | Int[np.ndarray, "B"]) -> Tensor:
        return self._data.batch(indices, columns=[self._column])[self._column]


def data_identity(data: DataRecipe, fingerprint: str) -> str:
    """What tells whether two runs saw the same images: the fingerprint, or for built-in scenes the renderer's version.

    The recipe says the rest of built-in scenes, and how they are packed does not matter.
    """
    return f"renderer {RENDERER}" if data.name == "scenes" else fingerprint


def logged_identity(data: DataRecipe, rows: Iterable[Mapping[str, Any]]) -> str:
    """`data_identity` as it was when the run of these log rows started; logs of earlier versions take today's."""
    started = next((row for row in rows if row.get("event") == "started"), {})
    identity = started.get("identity")
    return identity if isinstance(identity, str) else data_identity(data, str(started.get("data", "")))


def _free_bytes(device: torch.device) -> int:
    """Free memory of an accelerator; 0 where nobody can tell."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
