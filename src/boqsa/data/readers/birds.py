"""Caltech-UCSD Birds 2011 with its segmentations, in the arrangement of DRC (spec/datasets.md 9).

    SOURCE/CUB_200_2011/images/<class>/<name>.jpg
    SOURCE/CUB_200_2011/images.txt               id, path below images/
    SOURCE/CUB_200_2011/bounding_boxes.txt       id, x, y, width, height
    SOURCE/CUB_200_2011/train_test_split.txt     id, 1 = train or 0 = test; for `split="official"`
    SOURCE/segmentations/<class>/<name>.png      grey, bright = bird
    SOURCE/train_val_test_split.txt              id, 0 = train, 1 = val, 2 = test; from ReDO's code, not from Caltech

`images.txt`, `segmentations` and `train_val_test_split.txt` are each looked for in SOURCE and two levels below, so
the two archives may lie unpacked beside one another, and all of it may lie in one folder.

Notable choices:
 - `crop="box"` cuts out a square of 1.5 times the longer side of the ground-truth box, clipped at the border and then
   squeezed, as published; it is told, since it uses annotation of test images.
 - A mask is bird where its first channel is above 127; `mask_resample="published"` has the dither dots that the
   published code made of grey values.
 - The published split leaks nothing, so `clean` and `published` are the same.
 - Images stay as stored, since masks and boxes were made on them that way; an EXIF orientation is told.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from boqsa.data.readers.label_picture import read_foreground
from boqsa.data.readers.picture import check_pair, read_rgb
from boqsa.data.readers.source import (
    Item,
    Sample,
    Source,
    choose,
    find_root,
    held_out_by_hash,
    listed,
    some_of,
    take,
)
from boqsa.data.resample import centre_square, resize_image, resize_mask
from boqsa.errors import InputError

PUBLISHED_IMAGES = 11_788
SPLIT_FILE = "train_val_test_split.txt"
_MOST_BYTES = 64 << 20
"""Of a text file; the published ones have less than one MB."""
_CODES = {"0": "train", "1": "val", "2": "test"}
_OFFICIAL_CODES = {"1": "train", "0": "test"}

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""
Value = TypeVar("Value")


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    crop: Literal["box", "none", "centre"] = "box",
    mask_resample: Literal["pil-nearest", "published"] = "pil-nearest",
    split: Literal["clean", "published", "official"] = "clean",
    limit: int | None = None,
) -> Source:
    """Open the birds.

    Args:
        source: The folder that holds the unpacked archives and the split file, or all of it in one folder.
        image_size: Height and width.
        crop: Around the ground-truth box, as published; the whole image; or its largest central square.
        mask_resample: `published` dithers grey masks into dots first, as the published code did.
        split: `clean` and `published` are ReDO's split file; `official` is Caltech's own train and test, with 5 % of
            train held out as val.
        limit: At most this many images of each split, the first ones.

    Raises:
        InputError: if folders or text files are missing, or the text files are damaged or disagree.
    """
    choose("crop", crop, ("box", "none", "centre"))
    choose("mask_resample", mask_resample, ("pil-nearest", "published"))
    choose("split", split, ("clean", "published", "official"))
    root = find_root(source, "images", "images.txt", "bounding_boxes.txt")
    segmentations = find_root(source, "segmentations") / "segmentations"
    names = _read_table(root / "images.txt", _relative_path)
    boxes = _read_table(root / "bounding_boxes.txt", _box)
    splits = _read_official(root, names) if split == "official" else _read_split(source)
    for other, file_name in ((boxes, "bounding_boxes.txt"), (splits, SPLIT_FILE)):
        if missing := [number for number in names if number not in other]:
            raise InputError(f"images.txt of {root} has images that {file_name} has not: {some_of(missing)}.")
    items = [
        Item(
            name=name,
            split=splits[number],
            files=(root / "images" / name, segmentations / PurePosixPath(name).with_suffix(".png")),
            facts=boxes[number],
        )
        for number, name in names.items()
    ]
    items = take(items, limit)
    return Source(
        items=listed(items),
        load=partial(_load, size=image_size, crop=crop, dithered=mask_resample == "published"),
        total=len(items),
        image_size=image_size,
        split_rule="train_test_split.txt of Caltech; 5 % of train, by a hash of the name, are val"
        if split == "official"
        else f"ReDO's {SPLIT_FILE}, as published",
        partial=len(names) < PUBLISHED_IMAGES or limit is not None,
        options={"crop": crop, "mask_resample": mask_resample, "split": split},
        notices=["images are cropped around their ground-truth boxes, in test too"] if crop == "box" else [],
    )


def _load(item: Item, *, size: tuple[int, int], crop: str, dithered: bool) -> Sample:
    phrases: list[str] = []
    image_file, mask_file = item.files
    image = read_rgb(image_file, phrases.append, upright=False)
    mask = read_foreground(mask_file, dithered=dithered)
    check_pair(image_file, image.shape, mask_file, mask.shape)
    if crop == "box":
        if around_box(mask, item.facts).size == 0:
            found = f"{mask.shape[0]}x{mask.shape[1]}"
            raise InputError(f"{image_file} is {found}; its box (left, top, width, height) {item.facts} lies outside.")
        image, mask = around_box(image, item.facts), around_box(mask, item.facts)
    elif crop == "centre":
        image, mask = centre_square(image), centre_square(mask)
    return Sample(resize_image(image, size), resize_mask(mask, size), tuple(phrases))


def around_box(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """A square of 1.5 times the longer side of `box` around its middle, clipped to an array (H, W, ...)."""
    left, top, width, height = box
    half = int(0.75 * max(width, height))
    column, row = int((2 * left + width) / 2), int((2 * top + height) / 2)
    return pixels[max(0, row - half) : max(0, row + half), max(0, column - half) : max(0, column + half)]


# The text files.


def _read_split(source: Path) -> dict[str, str]:
    folder = find_root(
        source,
        SPLIT_FILE,
        missing=f"{source} has no {SPLIT_FILE}, nor have the folders in it. It is not part of Caltech's archives: it "
        f"lies in the code of ReDO (Chen, Artières & Denoyer 2019), which DRC took over. Put it into {source}, or give "
        "--split official for Caltech's own train and test.",
    )
    return _read_table(folder / SPLIT_FILE, lambda fields: _CODES.get(" ".join(fields)), "0, 1 or 2")


def _read_official(root: Path, names: dict[str, str]) -> dict[str, str]:
    path = root / "train_test_split.txt"
    splits = _read_table(path, lambda fields: _OFFICIAL_CODES.get(" ".join(fields)), "0 or 1")
    return {
        number: "val" if split == "train" and held_out_by_hash(names.get(number, number)) else split
        for number, split in splits.items()
    }


def _read_table(path: Path, parse: Callable[[list[str]], Value | None], what: str = "") -> dict[str, Value]:
    """Image number -> what `parse` makes of the other fields of its line; None means that they are wrong."""
    expected = what or ("a path below images/" if parse is _relative_path else "x, y, width and height")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than {_MOST_BYTES >> 20} MB; that is no list of the birds.")
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {path}: {reason}; take it from the archive again.") from None
    table: dict[str, Value] = {}
    for count, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        value = parse(fields[1:])
        if value is None or not fields[0].isdecimal() or fields[0] in table:
            raise InputError(f"{path}, line {count}: {line.strip()[:80]!r}; a new number, then {expected} expected.")
        table[fields[0]] = value
    if not table:
        raise InputError(f"{path} is empty; take it from the archive again.")
    return table


def _relative_path(fields: list[str]) -> str | None:
    name = " ".join(fields)
    path = PurePosixPath(name)
    return name if path.suffix and not path.is_absolute() and ".." not in path.parts and "\0" not in name else None


def _box(fields: list[str]) -> Box | None:
    try:
        left, top, width, height = (float(field) for field in fields)
    except ValueError:
        return None
    if not all(math.isfinite(value) and abs(value) < 1e6 for value in (left, top, width, height)):
        return None
    return (int(left), int(top), int(width), int(height)) if width >= 1 and height >= 1 else None
