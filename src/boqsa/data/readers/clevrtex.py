"""CLEVRTEX as published: full, outd and camo (spec/datasets.md 4).

    SOURCE/**/CLEVRTEX_<variant>_<000000>.png         image, 240x320
    SOURCE/**/CLEVRTEX_<variant>_<000000>_flat.png    mask: a palette index is the label, 0 = background

The published folders are `clevrtex_<variant>/<index // 1000>/`, but only file names count. The other renderings beside
them are not read. Splits go by the index: the first tenth is test, the second val, the rest train; outd is one
test set.

Notable choices:
 - `crop="192"` is the central square of the benchmark; `"none"` squashes the whole picture, as the published code does.
 - Indices must run from 0 without a gap, because the splits depend on how many there are.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from boqsa.data.readers.picture import open_picture, read_rgb
from boqsa.data.readers.source import (
    Item,
    Sample,
    Source,
    choose,
    listed,
    refuse_unreadable,
    require_folder,
    some_of,
    take,
)
from boqsa.data.resample import centre_crop, resize_image, resize_mask
from boqsa.errors import InputError

STORED = (240, 320)
BENCHMARK_CROP = (192, 192)
PUBLISHED_IMAGES = {"full": 50_000, "camo": 20_000, "outd": 10_000}
MOST_OBJECTS = 10


def read_full(
    source: Path, *, image_size: tuple[int, int] = (128, 128), crop: str = "192", limit: int | None = None
) -> Source:
    """Open the full set. `read` describes arguments and errors."""
    return read(source, "full", image_size=image_size, crop=crop, limit=limit)


def read_outd(
    source: Path, *, image_size: tuple[int, int] = (128, 128), crop: str = "192", limit: int | None = None
) -> Source:
    """Open the out-of-distribution test set. `read` describes arguments and errors."""
    return read(source, "outd", image_size=image_size, crop=crop, limit=limit)


def read_camo(
    source: Path, *, image_size: tuple[int, int] = (128, 128), crop: str = "192", limit: int | None = None
) -> Source:
    """Open the set of camouflaged objects. `read` describes arguments and errors."""
    return read(source, "camo", image_size=image_size, crop=crop, limit=limit)


def read(
    source: Path, which: str, *, image_size: tuple[int, int], crop: str = "192", limit: int | None = None
) -> Source:
    """Open one of the sets.

    Args:
        source: A folder that holds its images, at any depth; other files may lie among them.
        which: `full`, `outd` or `camo`.
        image_size: Height and width.
        crop: "192", the benchmark's central square, or "none".
        limit: At most this many images of each split, the first ones.

    Raises:
        InputError: if there are no images, an index is missing, or one occurs twice.
    """
    choose("crop", crop, ("192", "none"))
    images = _find_images(source, which)
    items = take((_item(source, path, _split(which, index, len(images))) for index, path in enumerate(images)), limit)
    by_index = "by index: the first 10 % are test, the next 10 % val, the rest train"
    return Source(
        items=listed(items),
        load=partial(_load, size=image_size, cropped=crop == "192"),
        total=len(items),
        image_size=image_size,
        split_rule="one test set, as published" if which == "outd" else f"{by_index}, as published",
        partial=len(images) < PUBLISHED_IMAGES[which] or limit is not None,
        options={"crop": crop},
    )


def _find_images(source: Path, which: str) -> list[Path]:
    """The images in the order of their index, which is their place in the list."""
    name = re.compile(rf"CLEVRTEX_{which}_([0-9]{{6}})\.png")
    wanted = f"CLEVRTEX_{which}_<six digits>.png"
    require_folder(source, f"give the folder that holds the files {wanted}")
    found: dict[int, Path] = {}
    for path in _walk(source):
        if (match := name.fullmatch(path.name)) is None:
            continue
        index = int(match[1])
        if index in found:
            both = some_of(sorted([str(found[index]), str(path)]))
            raise InputError(f"{both} have the same index; leave one of them in {source}.")
        found[index] = path
    if not found:
        raise InputError(f"{source} has no files {wanted}, nor have the folders in it; is it of another variant?")
    if missing := [str(index) for index in range(max(found)) if index not in found]:
        raise InputError(
            f"{source} has images up to index {max(found)}, but not {some_of(missing)}; add their files {wanted}: "
            "the splits go by the index."
        )
    return [found[index] for index in range(len(found))]


def _walk(folder: Path) -> Iterator[Path]:
    """All files at any depth. Folders may be links; a folder that was seen is not entered again."""
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse_unreadable):
        known = os.stat(root)
        if (known.st_dev, known.st_ino) in seen:
            folders.clear()
            continue
        seen.add((known.st_dev, known.st_ino))
        folders.sort()
        yield from (Path(root, name) for name in files)


def _split(which: str, index: int, total: int) -> str:
    if which == "outd" or index < total // 10:
        return "test"
    return "val" if index < total * 2 // 10 else "train"


def _item(source: Path, image: Path, split: str) -> Item:
    return Item(image.relative_to(source).as_posix(), split, (image, image.with_name(f"{image.stem}_flat.png")))


def _load(item: Item, *, size: tuple[int, int], cropped: bool) -> Sample:
    image_path, mask_path = item.files
    notices: list[str] = []
    image = read_rgb(image_path, notices.append)
    if image.shape[:2] != STORED:
        raise InputError(f"{image_path} is {image.shape[0]}x{image.shape[1]}; CLEVRTEX images are 240x320.")
    mask = _read_mask(mask_path)
    if cropped:
        image, mask = centre_crop(image, BENCHMARK_CROP), centre_crop(mask, BENCHMARK_CROP)
    return Sample(resize_image(image, size), resize_mask(mask, size), tuple(notices))


def _read_mask(path: Path) -> UInt8[np.ndarray, "240 320"]:
    picture = open_picture(path)
    if picture.mode not in ("P", "L"):  # a colour rendering, or a map whose labels were converted away
        raise InputError(f"{path} has {picture.mode} pixels; a palette PNG whose index is the label expected.")
    labels = np.asarray(picture)
    if labels.shape != STORED:
        raise InputError(f"{path} is {labels.shape[0]}x{labels.shape[1]}; CLEVRTEX masks are 240x320.")
    if labels.max() > MOST_OBJECTS:
        raise InputError(f"{path} has label {labels.max()}; palette indices from 0 to {MOST_OBJECTS} expected.")
    return labels
