"""ObjectsRoom of the Multi-Object Datasets, in its original gzip TFRecord files (spec/datasets.md 2).

    SOURCE/objects_room_train.tfrecords                     or that file itself
    SOURCE/objects_room_test_empty_room.tfrecords           the three official test sets, as far as they are there
    SOURCE/objects_room_test_six_objects.tfrecords
    SOURCE/objects_room_test_identical_color.tfrecords

A record has `image` (64, 64, 3) and `mask` (E, 64, 64, 1): one 0/255 map for each entity, in the order sky,
floor, two halves of the wall, objects. Entities 0-3 are background and entity k >= 4 becomes label k - 3, as
published.

Notable choices:
 - The published split is by position in the train file: frames 0-9,999 test, 10,000-19,999 val, the rest train. A
   file with fewer frames than that is split 80/10/10 in file order.
 - The three official test files are packed as splits of their own names.
 - Where one wall alone is in view, some frames have an object at entity 3, which counts as background, as published.
   `repair_background` finds such frames by how entity 3 touches its neighbours, and the manifest counts them. It is
   another library's rule, found by looking at frames: a wall that is alone in view and stands at entity 3 passes for an
   object too.
"""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from boqsa.data.readers.records import (
    Layout,
    RecordFile,
    decode,
    find_files,
    label_map,
    open_file,
    split_rule,
    tellers,
)
from boqsa.data.readers.source import Item, Progress, Sample, Source
from boqsa.data.resample import resize_image, resize_mask

PUBLISHED_FRAMES = 1_000_000
BACKGROUND = 4
FILES = {
    "train": "objects_room_train.tfrecords",
    "empty_room": "objects_room_test_empty_room.tfrecords",
    "six_objects": "objects_room_test_six_objects.tfrecords",
    "identical_color": "objects_room_test_identical_color.tfrecords",
}
LAYOUTS = {
    variant: Layout(image=(64, 64, 3), entities=entities, background=BACKGROUND)
    for variant, entities in {"train": 7, "empty_room": 4, "six_objects": 10, "identical_color": 10}.items()
}
SHIFTED = "entity 3 is an object (repair_background)"
NO_OBJECT = "no object, so the last background entity is one (repair_background)"
_SKY, _FLOOR, _FIRST_WALL, _SECOND_WALL = range(BACKGROUND)
_LEAST_CONTACT = 3
"""Pixels over which entities must touch."""


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (64, 64),
    repair_background: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Open ObjectsRoom.

    Args:
        source: A file, or the folder that holds them. A file whose name is not one of the official test sets' is read
            as the train file.
        image_size: Height and width; 64x64 is stored.
        repair_background: Call entity 3 an object where it looks like one.
        limit: At most this many frames of each split.
        progress: Called with ("verifying", compressed bytes read, of all).

    Raises:
        InputError: if files are missing, truncated, damaged or of another data set.
    """
    paths = _find(source)
    files: dict[str, RecordFile] = {}
    for (variant, path), told in zip(paths.items(), tellers(list(paths.values()), progress), strict=True):
        split = None if variant == "train" else variant
        what = f"ObjectsRoom {variant}"
        files[variant] = open_file(path, LAYOUTS[variant], what, split=split, limit=limit, verified=told)
    rules = [split_rule(files["train"])] if "train" in files else []
    if files.keys() - {"train"}:
        rules.append("official test files as splits of their names")
    return Source(
        items=lambda: (item for file in files.values() for item in file.items()),
        load=partial(_load, size=image_size, repair=repair_background),
        total=sum(file.total for file in files.values()),
        in_one_process=True,
        image_size=image_size,
        split_rule="; ".join(rules),
        partial=limit is not None or "train" not in files or files["train"].records < PUBLISHED_FRAMES,
        options={"repair_background": repair_background},
    )


def _find(source: Path) -> dict[str, Path]:
    if source.is_file():
        named = {name: variant for variant, name in FILES.items()}
        return {named.get(source.name, "train"): source}
    found = find_files(source, "objects_room", list(FILES.values()))
    return {variant: found[name] for variant, name in FILES.items() if name in found}


def _load(item: Item, *, size: tuple[int, int], repair: bool) -> Sample:
    variant = item.split if item.split in FILES else "train"
    record = decode(item.facts, LAYOUTS[variant], str(item.files[0].parent / item.name), f"ObjectsRoom {variant}")
    background, notices = BACKGROUND, record.notices
    if repair and variant != "empty_room":
        background = count_background(record.entities)
        if background != BACKGROUND:
            empty = not record.entities[BACKGROUND:].any() and not is_object(record.entities)
            notices = (*notices, NO_OBJECT if empty else SHIFTED)
    labels = label_map(record.entities, background)
    return Sample(resize_image(record.image, size), resize_mask(labels, size), notices)


def count_background(entities: Bool[np.ndarray, "e 64 64"]) -> int:
    """How many entities are background: 4, or 3 where entity 3 is an object (spec/datasets.md 2).

    A frame without an object otherwise has the last entity that is present as its object.
    """
    if entities[-1].any():  # all objects are there, none of them at entity 3
        return BACKGROUND
    if is_object(entities):
        return _SECOND_WALL
    if entities[BACKGROUND:].any():
        return BACKGROUND
    return int(np.flatnonzero(entities.any(axis=(1, 2))).max(initial=0)) or BACKGROUND


def is_object(entities: Bool[np.ndarray, "e 64 64"]) -> bool:
    """Whether entity 3 touches its neighbours as an object does and a wall does not."""
    entity, wall = entities[_SECOND_WALL], entities[_FIRST_WALL]
    outside = entities[_SKY] | entities[_FLOOR]
    above = (entity[1:] & wall[:-1]).any(axis=0).sum()  # columns
    below = (entity[:-1] & wall[1:]).any(axis=0).sum()
    left = (entity[:, 1:] & outside[:, :-1]).any(axis=1).sum() >= _LEAST_CONTACT  # rows
    right = (entity[:, :-1] & outside[:, 1:]).any(axis=1).sum() >= _LEAST_CONTACT
    if max(above, below) >= _LEAST_CONTACT or (left and right):
        return True
    return bool((left and not entity[:, -1].any()) or (right and not entity[:, 0].any()))
