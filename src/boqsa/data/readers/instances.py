"""The YCB, ScanNet and COCO subsets of Yang & Yang (2022), whose background is black (spec/datasets.md 12).

    SOURCE/{train,test}/image/00000.png        RGB, 128x128
    SOURCE/{train,test}/mask/00000.png         grey = label, 0 = background, 1..6 = objects
    SOURCE/{train,test}/image_<V>, mask_<V>    ablations; V = C, S, T, U or several of them, masks for S, U, SU alone

or their TFRecords, SOURCE/*<set>*{train,test}*.tfrecord, or the release they were made from (see `releases`).

Notable choices:
 - Everything that is no object is black, so `load` counts images that are not black where their label is 0: the
   quickest test that images and masks belong together.
 - Another size than the stored one takes the nearest pixel of image and mask alike, as the images themselves were made:
   averaging would smear objects into the black.
 - The TFRecords are not compressed, so `read` skips from record to record, and `load` reads one by its place.
 - Clean splits hold out the last 5 % of train; published ones use test for val, and say that this leaks.
"""

import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from boqsa.data.readers import releases
from boqsa.data.readers.label_picture import read_labels
from boqsa.data.readers.picture import check_pair, read_rgb
from boqsa.data.readers.releases import FEWEST, LEAK, MOST, PUBLISHED, arrange, nearest, numbered
from boqsa.data.readers.source import (
    Item,
    Progress,
    Sample,
    Source,
    choose,
    listed,
    refuse_unreadable,
    require_folder,
    some_of,
    take,
)
from boqsa.data.readers.tfrecord import masked_checksum, parse_example
from boqsa.errors import InputError

VARIANTS = ("default", "C", "S", "T", "U", "CS", "CT", "CU", "ST", "SU", "TU", "CST", "CSU", "CTU", "STU", "CSTU")
ENTITIES = 7
"""Maps of a record: background and six objects."""
_NAMES = {"ycb": "YCB", "scannet": "ScanNet", "coco": "COCO"}
_SUFFIXES = (".tfrecord", ".tfrecords")
_MOST_RECORD_BYTES = 1 << 20
"""Three times a record."""


def read(
    dataset: str,
    source: Path,
    *,
    image_size: tuple[int, int] = PUBLISHED,
    split: Literal["clean", "published"] = "clean",
    variant: str = "default",
    limit: int | None = None,
    progress: Progress = lambda *_: None,
) -> Source:
    """Open one of the subsets, in whichever of its three forms `source` holds.

    Args:
        dataset: `ycb`, `scannet` or `coco`.
        source: The folder.
        image_size: Height and width.
        split: `clean`, or `published` with test as val.
        variant: The ablation: letters as in the folder's name, or `default`.
        limit: At most this many images of each split, the first ones.
        progress: Told about the survey of a release.

    Raises:
        InputError: if no form, or several, are found, or folders or files are missing or malformed.
    """
    choose("split", split, ("clean", "published"))
    choose("variant", variant, VARIANTS)
    form, root = _find(dataset, source)
    if form != "folders" and variant != "default":
        raise InputError(f"variant '{variant}' needs the folders image_{variant} of the download; {root} has none.")
    if form == "release":
        return releases.read(dataset, root, image_size=image_size, split=split, limit=limit, progress=progress)
    notices: list[str] = []
    load: Callable[[Item], Sample]
    if form == "folders":
        train, test = (_list_folder(root, part, variant, notices) for part in ("train", "test"))
        load = partial(_load_pair, size=image_size)
    else:
        train, test = (_list_records(_record_file(dataset, root, part)) for part in ("train", "test"))
        load = partial(_load_record, size=image_size)
    items, rule = arrange(train, test, split)
    items = take(items, limit)
    return Source(
        items=listed(items),
        load=load,
        total=len(items),
        image_size=image_size,
        split_rule=rule,
        partial=limit is not None,
        leak=LEAK if split == "published" else "",
        options={"made_from": form, "split": split, "variant": variant},
        notices=notices,
    )


def _find(dataset: str, source: Path) -> tuple[str, Path]:
    """The form of the data, and the folder that holds it: `source` or one up to two levels below."""
    require_folder(source, "give the folder that holds train and test")
    level: list[Path] = []
    for depth in range(3):
        level = [inner for folder in level for inner in _folders_in(folder)] if depth else [source]
        found = [(form, folder) for folder in level if (form := _form_of(dataset, folder))]
        if len(found) > 1:  # the three sets lie side by side
            named = [entry for entry in found if dataset in str(entry[1].relative_to(source)).lower()]
            found = named if len(named) == 1 else found
        if len(found) > 1:
            raise InputError(f"{some_of([str(folder) for _, folder in found])} all hold such a set; name one of them.")
        if found:
            return found[0]
    raise InputError(
        f"{source} holds neither train/image and test/image, nor TFRecords of train and test, nor the release of "
        f"{_NAMES[dataset]}; `boqsa data list` says what is needed."
    )


def _form_of(dataset: str, folder: Path) -> str | None:
    names = ["image", *(f"image_{variant}" for variant in VARIANTS[1:])]
    if any((folder / "train" / name).is_dir() for name in names):
        return "folders"
    if releases.has(dataset, folder):
        return "release"
    return "tfrecords" if _records_in(folder) else None


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / name for name in sorted(entry.name for entry in entries if entry.is_dir())]
    except OSError:
        return []  # not ours to read, so not the one that is looked for


# Folders of PNG files.


def _list_folder(root: Path, part: str, variant: str, notices: list[str]) -> list[Item]:
    letters = "" if variant == "default" else variant
    shape_letters = "".join(letter for letter in letters if letter in "SU")
    images = root / part / (f"image_{letters}" if letters else "image")
    masks = root / part / (f"mask_{shape_letters}" if shape_letters else "mask")
    names = _png_names(images)
    if not names:
        raise InputError(f"{images} has no .png files; unpack the download again.")
    if not masks.is_dir():
        raise InputError(f"{masks} does not exist; the masks of {images} belong there.")
    if alone := sorted(set(_png_names(masks)) - set(names)):
        notices.append(f"{len(alone)} masks of {part} have no image: {some_of(alone)}")
    return [Item(f"{part}/{images.name}/{name}", part, (images / name, masks / name)) for name in names]


def _png_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.lower().endswith(".png")]
    except FileNotFoundError:
        there = [inner.name for inner in _folders_in(folder.parent)] if folder.parent.is_dir() else []
        raise InputError(f"{folder} does not exist; {folder.parent} has {', '.join(there) or 'nothing'}.") from None
    except OSError as error:
        refuse_unreadable(error)
    return sorted((name for name in names if not name.startswith(".")), key=os.fsencode)


def _load_pair(item: Item, *, size: tuple[int, int]) -> Sample:
    image_path, mask_path = item.files
    notices: list[str] = []
    image = read_rgb(image_path, notices.append)
    labels = read_labels(mask_path, "labels")
    if labels.ndim != 2 or labels.max() == 255:
        found = "colours" if labels.ndim != 2 else "the label 255"
        raise InputError(f"{mask_path} has {found}; a grey label map with 0 = background, 1, 2, ... expected.")
    check_pair(image_path, image.shape, mask_path, labels.shape)
    return _sample(image, labels, size, notices)


def _sample(
    image: UInt8[np.ndarray, "h w 3"], labels: UInt8[np.ndarray, "h w"], size: tuple[int, int], notices: list[str]
) -> Sample:
    found = np.unique(labels[labels > 0])
    if image.shape[:2] != PUBLISHED:
        notices.append("stored at another size than 128x128")
    if image[labels == 0].any():
        notices.append("not black where the label is 0")
    if not FEWEST <= len(found) <= MOST:
        notices.append(f"not {FEWEST} to {MOST} objects")
    if len(found) and found[-1] != len(found):
        notices.append("labels with gaps, numbered anew")
    return Sample(nearest(image, size), numbered(nearest(labels, size), found), tuple(notices))


# TFRecords.


def _records_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name.lower().endswith(_SUFFIXES))
    except OSError:
        return []


def _record_file(dataset: str, folder: Path, part: str) -> Path:
    names = [name for name in _records_in(folder) if part in name.lower()]
    named = [name for name in names if dataset in name.lower()]
    chosen = named or names
    if len(chosen) != 1:
        found = some_of(chosen) if chosen else "none"
        raise InputError(f"{folder}: one TFRecord file of {dataset} with '{part}' in its name expected, {found} found.")
    return folder / chosen[0]


def _list_records(path: Path) -> list[Item]:
    """Every record, with its place as `facts`; only lengths are read."""
    items: list[Item] = []
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            position = 0
            while position < size:
                file.seek(position)
                header = file.read(12)
                if header[:2] == b"\x1f\x8b" and position == 0:
                    raise InputError(f"{path} is compressed; decompress it first (gunzip).")
                length, checksum = struct.unpack("<QI", header) if len(header) == 12 else (size, None)
                if checksum is not None and masked_checksum(header[:8]) != checksum:
                    raise InputError(f"{path} is not a whole TFRecord file: record {len(items)} has a wrong checksum.")
                position += 12 + length + 4
                if position > size:
                    raise InputError(f"{path} is truncated after {len(items)} whole records; download it again.")
                if length > _MOST_RECORD_BYTES:
                    raise InputError(f"{path}: record {len(items)} has {length} bytes; some 164,000 expected.")
                items.append(Item(f"{path.name}/{len(items)}", "", (path,), (position - 4 - length, length)))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    if not items:
        raise InputError(f"{path} is empty; download it again.")
    return items


def _load_record(item: Item, *, size: tuple[int, int]) -> Sample:
    path = item.files[0]
    offset, length = item.facts
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            payload, checksum = file.read(length), file.read(4)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    if masked_checksum(payload) != int.from_bytes(checksum, "little"):
        raise InputError(f"record {item.name} is damaged (wrong checksum); download the file again.")
    try:
        features = parse_example(payload, ("image", "mask"))
    except ValueError as error:
        raise InputError(f"record {item.name} is not a tf.train.Example: {error}.") from None
    height, width = PUBLISHED
    image = _bytes_of(features.get("image"), (height, width, 3), f"record {item.name}: 'image'")
    maps = _bytes_of(features.get("mask"), (height, width, ENTITIES), f"record {item.name}: 'mask'")
    if maps.max() > 1:
        raise InputError(f"record {item.name}: 'mask' has the value {maps.max()}; 0 and 1 expected.")
    notices = ["entities overlap"] if (maps.sum(axis=2) > 1).any() else []
    labels = (maps * np.arange(ENTITIES, dtype=np.uint8)).max(axis=2)  # of no entity: background
    return _sample(image, labels, size, notices)


def _bytes_of(feature: object, shape: tuple[int, ...], what: str) -> UInt8[np.ndarray, "..."]:
    expected = int(np.prod(shape))
    if not isinstance(feature, bytes) or len(feature) != expected:
        found = f"{len(feature)} bytes" if isinstance(feature, bytes) else "none"
        raise InputError(f"{what} has {found}; {expected} bytes for {'x'.join(map(str, shape))} expected.")
    return np.frombuffer(feature, np.uint8).reshape(shape)


read_ycb = partial(read, "ycb")
read_scannet = partial(read, "scannet")
read_coco = partial(read, "coco")
