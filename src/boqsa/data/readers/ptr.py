"""PTR in its original folders (spec/datasets.md 5).

    SOURCE/{train,val}_images/<image_filename>     image, 600x800
    SOURCE/{train,val}_scenes/PTR_*.json           one an image: `image_filename`, `image_index`, `objects`

Each object has its mask as COCO run lengths, compressed or as a list. Object k of the list has label k + 1. The
published test images have no masks and are not read.

Notable choices:
 - `split="clean"` halves the published val images by the parity of their index: even ones are val, to select by, odd
   ones test, to report. `"published"` uses all of them as both.
 - `crop="400x700"` is the published central crop.
 - `mask_resample="pil-nearest"` paints one label map, a later object over an earlier one. `"published"` shrinks each
   object's mask by itself and rounds; then pixels between touching objects, and those that two objects cover,
   become background.
 - A scene whose image is missing, and one with more than six objects, is left out and counted, as published.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy.typing import NDArray

from boqsa.data.readers.picture import read_rgb
from boqsa.data.readers.source import Item, Progress, Sample, Source, choose, find_root, listed, some_of
from boqsa.data.resample import centre_crop, centre_square, resize_image, resize_mask
from boqsa.data.run_lengths import decode_run_lengths
from boqsa.errors import InputError

STORED = (600, 800)
PUBLISHED_CROP = (400, 700)
MOST_OBJECTS = 6
FEWEST_SCENES = 50_000
"""The published counts are not known but for "about 70,000" with test; what has fewer with masks is not all of it."""
_LARGEST_JSON = 16 << 20


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    crop: str = "400x700",
    mask_resample: str = "pil-nearest",
    split: str = "clean",
    limit: int | None = None,
    progress: Progress = lambda *_: None,
) -> Source:
    """Open PTR: `source` is the folder that holds the folders of images and scenes of train and val.

    Args:
        source: The folder.
        image_size: Height and width.
        crop: "400x700", the published one, "centre", the largest central square, or "none".
        mask_resample: "pil-nearest" or "published", as the module says.
        split: "clean" or "published", as the module says.
        limit: At most this many images of each split, the first ones.
        progress: Called with ("listing", scenes, scenes in all) now and then.

    Raises:
        InputError: if a folder is missing, or no scene can be used.
    """
    choose("crop", crop, ("400x700", "centre", "none"))
    choose("mask_resample", mask_resample, ("pil-nearest", "published"))
    choose("split", split, ("clean", "published"))
    root = find_root(source, "train_images", "train_scenes", "val_images", "val_scenes")
    listing = _Listing(root, halved=split == "clean", limit=limit, progress=progress)
    if not listing.items:
        raise InputError(f"{root} has no scene of train or val that can be used; JSON files in the folders expected.")
    halves = "published train; published val by the image index: even is val, odd is test"
    return Source(
        items=listed(listing.items),
        load=partial(_load, size=image_size, crop=crop, mask_resample=mask_resample),
        total=len(listing.items),
        image_size=image_size,
        split_rule=halves if split == "clean" else "published train; all of published val is both val and test",
        partial=len({item.files for item in listing.items}) < FEWEST_SCENES or limit is not None,
        leak="" if split == "clean" else "selected on the test set",
        options={"crop": crop, "mask_resample": mask_resample, "split": split},
        notices=listing.notices(),
    )


@dataclass(frozen=True)
class _Scene:
    """What is needed of one JSON file."""

    image_name: str
    index: int
    objects: list[Any]


class _Listing:
    """The items of both folders, and what was left out. Scenes that cannot be read stay: `_load` says why."""

    def __init__(self, root: Path, *, halved: bool, limit: int | None, progress: Progress) -> None:
        self.items: list[Item] = []
        self._without_image: list[str] = []
        self._crowded: list[str] = []
        self._progress = progress
        self._limit = limit
        self._add(root, "train", ("train",))
        self._add(root, "val", ("val", "test"), halved=halved)

    def notices(self) -> list[str]:
        """What was left out, in words."""
        notices = []
        if self._without_image:
            notices.append(f"{len(self._without_image)} scenes have no image: {some_of(self._without_image)}")
        if self._crowded:
            found = some_of(self._crowded)
            notices.append(f"{len(self._crowded)} scenes have more than {MOST_OBJECTS} objects: {found}")
        return notices

    def _add(self, root: Path, folder: str, splits: tuple[str, ...], *, halved: bool = False) -> None:
        images, scenes = root / f"{folder}_images", root / f"{folder}_scenes"
        try:
            there = set(os.listdir(images))
            paths = sorted(scenes / name for name in os.listdir(scenes) if _is_scene(name))
        except OSError as error:
            raise InputError(f"cannot list {error.filename}: {error.strerror}; a folder of PTR expected.") from None
        of_split: dict[str, list[Item]] = {split: [] for split in splits}
        for done, path in enumerate(paths):
            if self._limit is not None and all(len(items) >= self._limit for items in of_split.values()):
                break
            if done % 100 == 0:
                self._progress("listing", done, len(paths))
            name, index = f"{folder}_scenes/{path.name}", done
            files: tuple[Path, ...] = (path,)
            try:
                scene = _read_scene(path)
            except InputError:
                pass  # it is of the split that its place gives it
            else:
                if scene.image_name not in there:
                    self._without_image.append(name)
                    continue
                if len(scene.objects) > MOST_OBJECTS:
                    self._crowded.append(name)
                    continue
                name, index = f"{folder}_images/{scene.image_name}", scene.index
                files = (path, images / scene.image_name)
            for split in (splits[index % 2],) if halved else splits:
                of_split[split].append(Item(name, split, files, facts=images))
        for items in of_split.values():
            self.items += items[: self._limit]


def _is_scene(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _load(item: Item, *, size: tuple[int, int], crop: str, mask_resample: str) -> Sample:
    path = item.files[0]
    scene = _read_scene(path)
    masks = list(_object_masks(scene, path))
    notices: list[str] = []
    image = read_rgb(item.facts / scene.image_name, notices.append)
    if image.shape[:2] != STORED:
        found = f"{image.shape[0]}x{image.shape[1]}"
        raise InputError(f"{item.facts / scene.image_name} is {found}; PTR images are 600x800.")
    labels = np.zeros(STORED, np.uint8)
    for label, mask in enumerate(masks, start=1):
        if labels[mask].any():
            notices.append("objects overlap")
        labels[mask] = label
    if mask_resample == "published":
        resized = _published_labels([_cropped(mask, crop) for mask in masks], size)
    else:
        resized = resize_mask(_cropped(labels, crop), size)
    return Sample(resize_image(_cropped(image, crop), size), resized, tuple(dict.fromkeys(notices)))


def _cropped(pixels: NDArray[Any], crop: str) -> NDArray[Any]:
    if crop == "none":
        return pixels
    return centre_square(pixels) if crop == "centre" else centre_crop(pixels, PUBLISHED_CROP)


def _read_scene(path: Path) -> _Scene:
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_JSON + 1)
        if len(content) > _LARGEST_JSON:
            raise InputError(f"{path} is larger than {_LARGEST_JSON >> 20} MiB; the scene of one image expected.")
        scene = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read the scene {path}: {error}; download it again.") from None
    name, index, objects = (
        scene.get(key) if isinstance(scene, dict) else None for key in ("image_filename", "image_index", "objects")
    )
    if not isinstance(name, str) or name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise InputError(f"{path} has no `image_filename` that names a file in the folder of images.")
    if type(index) is not int or index < 0:
        raise InputError(f"{path} has no `image_index` that is a whole number.")
    if not isinstance(objects, list):
        raise InputError(f"{path} has no list `objects`.")
    return _Scene(name, index, objects)


def _object_masks(scene: _Scene, path: Path) -> Iterator[Bool[np.ndarray, "600 800"]]:
    if len(scene.objects) > MOST_OBJECTS:
        raise InputError(f"{path} has {len(scene.objects)} objects; at most {MOST_OBJECTS} expected.")
    for number, found in enumerate(scene.objects):
        mask: Any = found.get("obj_mask") if isinstance(found, dict) else None
        if not isinstance(mask, dict) or mask.get("size") != list(STORED):
            raise InputError(f"{path}: object {number} has no `obj_mask` of size [600, 800].")
        counts: Any = mask.get("counts")
        try:
            yield decode_run_lengths(counts, STORED)
        except ValueError as error:
            raise InputError(f"{path}: `obj_mask` of object {number}: {error}.") from None


# The published mask resampling.


def _published_labels(masks: list[Bool[np.ndarray, "h w"]], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2"]:
    """Labels by the highest of the shrunk masks; background is one minus their sum, which wraps around in 8 bits."""
    shrunk = [_linear(mask.astype(np.float32), size) for mask in masks]
    background = np.ones(size, np.uint8)
    for mask in shrunk:
        background -= mask
    labels: UInt8[np.ndarray, "h2 w2"] = np.argmax(np.stack([background, *shrunk]), axis=0).astype(np.uint8)
    return labels


def _linear(mask: Float32[np.ndarray, "h w"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2"]:
    """Resize by `torch-bilinear` and round half to even."""
    if mask.shape == size:
        return mask.astype(np.uint8)
    top, bottom, down = _taps(mask.shape[0], size[0])
    left, right, across = _taps(mask.shape[1], size[1])
    one = np.float32(1)

    def row(index: NDArray[np.int64]) -> Float32[np.ndarray, "h2 w2"]:
        lines = mask[index]
        mixed: Float32[np.ndarray, "h2 w2"] = (one - across) * lines[:, left] + across * lines[:, right]
        return mixed

    rounded: UInt8[np.ndarray, "h2 w2"] = np.rint(
        (one - down[:, None]) * row(top) + down[:, None] * row(bottom)
    ).astype(np.uint8)
    return rounded


def _taps(stored: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32[np.ndarray, " wanted"]]:
    """For each output pixel the two source pixels it lies between, and the weight of the second."""
    scale = np.float32(stored) / np.float32(wanted)
    place = scale * (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    place = np.maximum(place, np.float32(0))
    first = np.minimum(place.astype(np.int64), stored - 1)
    return first, np.minimum(first + 1, stored - 1), place - first.astype(np.float32)
