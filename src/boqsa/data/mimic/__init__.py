"""Tiny stand-ins for every data set, in the layout of the original: to try a recipe end to end without a download.

The pictures are the built-in scenes. Nothing learned or scored on them says anything about the original.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from boqsa.atomic import atomic_folder
from boqsa.data.catalog import entry
from boqsa.data.mimic.arrays import write_arrays
from boqsa.data.mimic.birds import write_birds
from boqsa.data.mimic.clevrtex import write_clevrtex_camo, write_clevrtex_full, write_clevrtex_outd
from boqsa.data.mimic.coco_instances import write_coco_instances
from boqsa.data.mimic.content import Content
from boqsa.data.mimic.drc import write_cars, write_dogs
from boqsa.data.mimic.flowers import write_flowers
from boqsa.data.mimic.folder import write_folder
from boqsa.data.mimic.instances import write_coco, write_scannet, write_ycb
from boqsa.data.mimic.ptr import write_ptr
from boqsa.data.mimic.records import (
    write_clevr_with_masks,
    write_multi_dsprites,
    write_objectsroom,
    write_tetrominoes,
)
from boqsa.data.mimic.shapestacks import write_shapestacks
from boqsa.data.mimic.views import write_clevr567, write_room_chair, write_room_diverse
from boqsa.data.readers.source import STAND_IN
from boqsa.errors import InputError

WRITERS: dict[str, Callable[[Path, Content], Path]] = {
    "birds": write_birds,
    "cars": write_cars,
    "dogs": write_dogs,
    "flowers": write_flowers,
    "folder": write_folder,
    "arrays": write_arrays,
    "objectsroom": write_objectsroom,
    "clevr_with_masks": write_clevr_with_masks,
    "multi_dsprites": write_multi_dsprites,
    "tetrominoes": write_tetrominoes,
    "shapestacks": write_shapestacks,
    "clevrtex_full": write_clevrtex_full,
    "clevrtex_camo": write_clevrtex_camo,
    "clevrtex_outd": write_clevrtex_outd,
    "ptr": write_ptr,
    "clevr567": write_clevr567,
    "room_chair": write_room_chair,
    "room_diverse": write_room_diverse,
    "ycb": write_ycb,
    "scannet": write_scannet,
    "coco": write_coco,
    "coco_instances": write_coco_instances,
}
"""Writer by the data set's name. It fills a folder, which may exist, and returns the SOURCE of `prepare`."""

_IMAGES_BESIDE = {"coco_instances": "images"}
"""Data sets whose SOURCE is a file, and the folder in TARGET that `prepare` is given as `images`."""
_FEWEST = 6


@dataclass(frozen=True)
class Mimicked:
    """What to give to `prepare`."""

    path: Path
    """SOURCE."""
    options: dict[str, Path] = field(default_factory=dict)


def mimic(name: str, target: str | Path, *, count: int = 24, seed: int = 0) -> Mimicked:
    """Write a tiny stand-in for the data set `name` at `target`, in the layout of the original.

    Args:
        name: A data set of `boqsa.data.catalog`.
        target: The folder to make; it must not exist, or be empty.
        count: Scenes in all, from 6.
        seed: Of the scenes.

    Raises:
        InputError: if the name is unknown or built in, the target is taken, or a number is out of its range.
    """
    dataset = entry(name)
    if dataset.name not in WRITERS:
        raise InputError(f"'{name}' is {dataset.status} and needs no stand-in.")
    if count < _FEWEST or seed < 0:
        raise InputError(f"count {count} and seed {seed}: at least {_FEWEST} scenes, and a seed from 0 expected.")
    folder = Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"the target {folder} is not an empty folder; name another one.")
    with atomic_folder(folder) as partial:
        inside = WRITERS[name](partial, Content(count, seed)).relative_to(partial)
        (partial / STAND_IN).touch()
    beside = _IMAGES_BESIDE.get(name)
    return Mimicked(folder / inside, {} if beside is None else {"images": folder / beside})


__all__ = ["WRITERS", "Content", "Mimicked", "mimic"]
