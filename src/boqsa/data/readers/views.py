"""Several views of each scene, with cameras: CLEVR-567, Room-Chair and Room-Diverse of uORF (spec/datasets.md 14).

    SOURCE/<set>_{train,test}/<number>_sc<scene>_az<..>_el<..>.png    image, square
                              <the same>_RT.txt          camera to world, 4x4
                              <the same>_azi_rot.txt     rotation to the azimuth frame, 3x3; optional
                              <the same>_mask.png        one colour a surface; optional
                              <the same>_depth.npy       (H, W, 1), in world units; optional, and not read

`<set>` is clevr_567, room_chair or room_diverse. One image is one sample. Views of a scene follow one another in the
order of their names, so the first one is the published input view. Each sample has `scene`, `camera` (as stored) and
`azimuth`.

Notable choices:
 - Labels rank the colours of a mask by grey level: 0 is the second darkest, which is the background as published; the
   others are 1, 2, ... from dark to light. So the darkest, of which nobody says what it stands for, is an object
   with label 1, as published. A mask of one colour is background alone (the published code fails on it).
 - Ranks are made anew for each image: a label does not name the same object in two views. Only scores that compare
   partitions mean something across views.
 - Two colours of one grey level stay two objects; the published code would merge them.
 - `split="clean"` carves validation out of the training scenes; `"published"` has none.
 - A `limit` counts images, so it can cut the views of the last scene.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray
from PIL import Image

from boqsa.data.packing import IGNORE, Extra
from boqsa.data.readers.picture import check_pair, open_picture, read_rgb
from boqsa.data.readers.source import (
    Item,
    Sample,
    Source,
    choose,
    held_out_by_hash,
    levels,
    listed,
    require_folder,
    some_of,
    take,
)
from boqsa.data.resample import resize_image
from boqsa.errors import InputError

FOLDERS = {"clevr567": "clevr_567", "room_chair": "room_chair", "room_diverse": "room_diverse"}
PUBLISHED_SCENES = {
    "clevr567": {"train": 1_000, "test": 500},
    "room_chair": {"train": 1_000, "test": 500},
    "room_diverse": {"train": 5_000, "test": 500},
}
VIEW_EXTRAS = {"scene": Extra("<i4", ()), "camera": Extra("<f4", (4, 4)), "azimuth": Extra("<f4", (3, 3))}
"""What every set of views has beside its images."""
NO_IMAGES = (
    "_mask.png",
    "_mask_for_moving.png",
    "_moved.png",
    "_mask_for_bg.png",
    "_mask_for_providing_bg.png",
    "_changed.png",
    "_providing_bg.png",
)
"""Endings of files that belong to the editing of scenes, or are masks."""
_LARGEST_MATRIX_FILE = 10_000
_LARGEST_SCENE = 2**31 - 1
_TOLERANCE = 1e-3


def read_clevr567(
    source: Path, *, image_size: tuple[int, int] = (128, 128), split: str = "clean", limit: int | None = None
) -> Source:
    """Open CLEVR-567. `read` describes arguments and errors."""
    return read(source, "clevr567", image_size=image_size, split=split, limit=limit)


def read_room_chair(
    source: Path, *, image_size: tuple[int, int] = (128, 128), split: str = "clean", limit: int | None = None
) -> Source:
    """Open Room-Chair. `read` describes arguments and errors."""
    return read(source, "room_chair", image_size=image_size, split=split, limit=limit)


def read_room_diverse(
    source: Path, *, image_size: tuple[int, int] = (128, 128), split: str = "clean", limit: int | None = None
) -> Source:
    """Open Room-Diverse. `read` describes arguments and errors."""
    return read(source, "room_diverse", image_size=image_size, split=split, limit=limit)


def read(
    source: Path, which: str, *, image_size: tuple[int, int], split: str = "clean", limit: int | None = None
) -> Source:
    """Open one of the sets.

    Args:
        source: The folder that holds the folders of train and test, or one of these.
        which: `clevr567`, `room_chair` or `room_diverse`.
        image_size: Height and width.
        split: "clean" or "published", as the module says.
        limit: At most this many images of each split, the first ones.

    Raises:
        InputError: if there is no folder of this set, or no image in it.
    """
    choose("split", split, ("clean", "published"))
    notices: list[str] = []
    scenes: dict[str, int] = {}
    items: list[Item] = []
    for folder_split, folder in _find_folders(source, FOLDERS[which]).items():
        views = _list_views(folder, notices)
        scenes[folder_split] = len({view.scene for view in views})
        for name in ("train", "val") if folder_split == "train" and split == "clean" else (folder_split,):
            chosen = [view for view in views if _split_of(view.scene, folder_split, split) == name]
            items += _items(name, chosen, folder)
    if not items:
        raise InputError(f"{source} has no images <number>_sc<scene>_... .png in its folders of {FOLDERS[which]}.")
    items = take(items, limit)
    carved = "published folders; a hash of the scene number carves 5 % of the training scenes out as val"
    published = PUBLISHED_SCENES[which]
    return Source(
        items=listed(items),
        load=partial(_load, size=image_size),
        total=len(items),
        image_size=image_size,
        split_rule=carved if split == "clean" else "published folders; there is no val",
        partial=limit is not None or any(scenes.get(name, 0) < count for name, count in published.items()),
        extras=VIEW_EXTRAS,
        options={"split": split},
        notices=notices,
    )


@dataclass(frozen=True)
class _View:
    """One image of the folder."""

    scene: int
    stem: str
    masked: bool
    turned: bool
    """Whether it has an azimuth rotation."""


def _find_folders(source: Path, stem: str) -> dict[str, Path]:
    """The folders of train and test that there are: in `source`, or in one folder up to two levels below it."""
    names = {split: f"{stem}_{split}" for split in ("train", "test")}
    wanted = " or ".join(names.values())
    require_folder(source, f"give the folder that holds {wanted}")
    for level in levels(source):
        found = [folder for folder in level if any((folder / name).is_dir() for name in names.values())]
        if len(found) > 1:
            raise InputError(f"{some_of([str(folder) for folder in found])} all hold {wanted}; name one of them.")
        if found:
            return {split: found[0] / name for split, name in names.items() if (found[0] / name).is_dir()}
    here = os.path.basename(os.path.abspath(source))
    for split, name in names.items():
        if here == name:
            return {split: source}
    raise InputError(f"{source} does not hold {wanted}, nor do the folders in it.")


def _list_views(folder: Path, notices: list[str]) -> list[_View]:
    """All images, scene after scene, those of a scene in the order of their names."""
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror}; give a folder that can be read.") from None
    views: list[_View] = []
    unnamed: list[str] = []
    for name in sorted(names):
        if not name.endswith(".png") or name.startswith(".") or name.endswith(NO_IMAGES):
            continue
        stem = name.removesuffix(".png")
        found = re.findall(r"sc([0-9]+)", stem)
        if not found or int(found[-1]) > _LARGEST_SCENE:
            unnamed.append(name)
            continue
        views.append(_View(int(found[-1]), stem, f"{stem}_mask.png" in names, f"{stem}_azi_rot.txt" in names))
    if unnamed:
        pictures = f"{len(unnamed)} pictures of {folder.name}"
        notices.append(f"{pictures} have no scene number in their name and are left out: {some_of(unnamed)}")
    views.sort(key=lambda view: view.scene)  # stable: names stay in order
    of_scene = np.unique([view.scene for view in views], return_counts=True)[1]
    if views and of_scene.min() != of_scene.max():
        notices.append(f"scenes of {folder.name} have from {of_scene.min()} to {of_scene.max()} views")
    return views


def _split_of(scene: int, folder_split: str, split: str) -> str:
    if folder_split == "train" and split == "clean" and held_out_by_hash(str(scene)):
        return "val"
    return folder_split


def _items(split: str, views: Sequence[_View], folder: Path) -> list[Item]:
    """The items of a split; it has masks if any of its images has one."""
    masked = any(view.masked for view in views)
    items = []
    for view in views:
        files = [folder / f"{view.stem}.png", folder / f"{view.stem}_RT.txt"]
        files += [folder / f"{view.stem}_mask.png"] if masked else []
        files += [folder / f"{view.stem}_azi_rot.txt"] if view.turned else []
        facts = (view.scene, masked, view.turned)
        items.append(Item(f"{folder.name}/{view.stem}.png", split, tuple(files), facts))
    return items


def _load(item: Item, *, size: tuple[int, int]) -> Sample:
    scene, masked, turned = item.facts
    notices: list[str] = []
    image = read_rgb(item.files[0], notices.append)
    height, width = image.shape[:2]
    if height != width:
        raise InputError(f"{item.files[0]} is {height}x{width}; a square image expected.")
    camera = read_camera(item.files[1])
    if turned:
        azimuth = read_rotation(item.files[-1])
    else:
        azimuth = azimuth_rotation(camera[None])[0]
        notices.append("no _azi_rot.txt, the azimuth is computed from the camera")
    mask = None
    if masked:
        mask = _read_mask(item.files[2], item.files[0], (height, width), size, notices)
    extras = {"scene": np.array(scene, np.int32), "camera": camera, "azimuth": azimuth}
    return Sample(resize_image(image, size), mask, tuple(notices), extras)


def azimuth_rotation(camera: Float32[np.ndarray, "n 4 4"]) -> Float32[np.ndarray, "n 3 3"]:
    """The rotation about the vertical by the direction in which each camera looks (uorf 11).

    The published files may differ from it by an angle that is the same everywhere.
    """
    angle = np.arctan2(camera[:, 1, 2], camera[:, 0, 2])
    turn = np.zeros((len(camera), 3, 3), np.float32)
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 1, 0] = np.sin(angle)
    turn[:, 0, 1] = -np.sin(angle)
    turn[:, 2, 2] = 1
    return turn


def read_camera(path: Path) -> Float32[np.ndarray, "4 4"]:
    """The camera-to-world matrix in a text file.

    Raises:
        InputError: if the file is missing, or holds no such matrix.
    """
    camera = _read_matrix(path, 4)
    if (np.abs(camera[3] - [0, 0, 0, 1]) > _TOLERANCE).any():
        raise InputError(f"{path}: the last row is {camera[3].tolist()}; 0 0 0 1 of a camera-to-world matrix expected.")
    _check_rotation(camera[:3, :3], path)
    return camera


def read_rotation(path: Path) -> Float32[np.ndarray, "3 3"]:
    """The rotation in a text file; errors as `read_camera`."""
    rotation = _read_matrix(path, 3)
    _check_rotation(rotation, path)
    return rotation


def _check_rotation(block: NDArray[np.float32], path: Path) -> None:
    entries = np.abs(block).max()  # before products of them overflow
    if entries > 1 + _TOLERANCE or np.abs(block @ block.T - np.eye(3)).max() > _TOLERANCE:
        raise InputError(f"{path}: its rotation is not orthonormal within {_TOLERANCE}; download it again.")


def _read_matrix(path: Path, side: int) -> NDArray[np.float32]:
    expected = f"{side * side} numbers of a {side}x{side} matrix expected"
    try:
        with open(path, "rb") as file:
            words = file.read(_LARGEST_MATRIX_FILE).decode("ascii").split()
        with np.errstate(over="ignore"):
            values = np.array([float(word) for word in words]).astype(np.float32)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {path}: {reason}; {expected}.") from None
    if values.size != side * side or not np.isfinite(values).all():
        raise InputError(f"{path} has {values.size} numbers; {expected}, all of them finite.")
    return values.reshape(side, side)


def _read_mask(
    path: Path, image: Path, stored: tuple[int, int], size: tuple[int, int], notices: list[str]
) -> UInt8[np.ndarray, "h w"]:
    """Labels by the rank of the colour: 0 for the second darkest, 1, 2, ... for the others from dark to light.

    Resized first, ranked afterwards, as published: a colour that vanishes takes no rank.
    """
    picture = open_picture(path)
    if picture.mode not in ("1", "P", "L", "LA", "RGB", "RGBA"):
        raise InputError(f"{path} has {picture.mode} pixels; a mask with a colour a surface expected.")
    check_pair(image, stored, path, (picture.height, picture.width))
    colours = np.asarray(picture.convert("RGB").resize(size[::-1], Image.Resampling.NEAREST))  # pil-nearest
    codes = colours.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    unique, inverse = np.unique(codes, return_inverse=True)
    if len(unique) >= IGNORE:
        raise InputError(f"{path} has {len(unique)} colours; a mask has one for each surface.")
    greys = _grey(unique)
    levels = np.unique(greys)
    if len(levels) < len(unique):
        notices.append("colours of one grey level in the mask")
    if len(levels) == 1:
        notices.append("one grey level in the mask: all background")
    elif levels[0] > 0:
        notices.append("the darkest level of the mask is not black")
    background = levels[min(1, len(levels) - 1)]
    labels = np.zeros(len(unique), np.uint8)
    order = [place for place in np.lexsort((unique, greys)) if greys[place] != background]
    labels[order] = np.arange(1, len(order) + 1)
    return labels[inverse.reshape(codes.shape)]


def _grey(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    """The grey level of a colour, as Pillow rounds it: (299 R + 587 G + 114 B) / 1000 in 16 bits."""
    red, green, blue = codes >> 16, codes >> 8 & 255, codes & 255
    greys: NDArray[np.int32] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return greys
