"""ObjectsRoom of the Multi-Object Datasets, in its original gzip TFRecord files (spec/datasets.md 2).

A record has `image` (64, 64, 3) and `mask` (E, 64, 64, 1): one 0/255 map for each entity, in the order sky,
floor, two halves of the wall, objects. Entities 0-3 are background and entity k >= 4 becomes label k - 3, as
published.

Notable choices:
 - The published split is by position in the train file: frames 0-9,999 test, 10,000-19,999 val, the rest
   train. It is used when the file has the published million frames; a smaller one is split 80/10/10 in file
   order.
 - The files are read twice, first to count and verify every record, so that a damaged file is refused at once
   and not after hours of packing.
 - The three official test files are packed as splits of their own names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray

from boqsa.data.readers.source import ORDER_RULE, Sample, Source, some_of, split_by_order
from boqsa.data.readers.tfrecord import Feature, read_examples, read_records
from boqsa.data.resample import resize_image, resize_mask
from boqsa.errors import InputError

PUBLISHED_FRAMES = 1_000_000
HELD_OUT = 10_000
"""Frames of the published test split, and of val."""
SIDE = 64
BACKGROUND_ENTITIES = 4
TRAIN_FILE = "objects_room_train.tfrecords"
TEST_FILES = {
    "empty_room": "objects_room_test_empty_room.tfrecords",
    "six_objects": "objects_room_test_six_objects.tfrecords",
    "identical_color": "objects_room_test_identical_color.tfrecords",
}
ENTITIES = {"train": 7, "empty_room": 4, "six_objects": 10, "identical_color": 10}
_PUBLISHED_RULE = "published, by position: frames 0-9,999 test, 10,000-19,999 val, the rest train"


@dataclass(frozen=True)
class _RecordFile:
    path: Path
    variant: str
    """`train`, or the name of an official test set."""
    count: int


def read(source: str | Path, *, image_size: int | None = None, limit: int | None = None) -> Source:
    """Open ObjectsRoom: `source` is one `.tfrecords` file or the folder that holds them.

    Args:
        source: a file whose name is not one of the official test sets' is read as the train file.
        image_size: side in pixels; 64, the stored size, if not given.
        limit: at most this many records of each file.

    Raises:
        InputError: if files are missing, truncated, damaged or of another data set.
    """
    side = image_size or SIDE
    files = []
    for variant, path in _find(Path(source)).items():
        count = sum(1 for _ in islice(read_records(path), limit))
        if count == 0:
            raise InputError(f"{path} holds no records.")
        _decode(next(read_examples(path)), path, 0, variant)
        files.append(_RecordFile(path, variant, count))
    frames = sum(file.count for file in files if file.variant == "train")
    published = frames >= PUBLISHED_FRAMES
    rules = [_PUBLISHED_RULE if published else ORDER_RULE] if frames else []
    if any(file.variant != "train" for file in files):
        rules.append("official test files as splits of their names")
    notices: list[str] = []
    return Source(
        samples=_samples(files, (side, side), published, notices),
        total=sum(file.count for file in files),
        image_size=(side, side),
        split_rule="; ".join(rules),
        partial=not published,
        notices=notices,
    )


def _find(source: Path) -> dict[str, Path]:
    variants = {"train": TRAIN_FILE} | TEST_FILES
    if source.is_dir():
        found = {variant: source / name for variant, name in variants.items() if (source / name).is_file()}
        if not found:
            raise InputError(f"{source} holds no {TRAIN_FILE} (nor an official test file of ObjectsRoom).")
        return found
    if not source.is_file():
        raise InputError(f"{source} does not exist; give {TRAIN_FILE} or the folder that holds it.")
    named = {name: variant for variant, name in variants.items()}
    return {named.get(source.name, "train"): source}


def _samples(files: list[_RecordFile], size: tuple[int, int], published: bool, notices: list[str]) -> Iterator[Sample]:
    overlapping: list[str] = []
    uncovered: list[str] = []
    for file in files:
        for index, features in enumerate(islice(read_examples(file.path), file.count)):
            image, entities = _decode(features, file.path, index, file.variant)
            name = f"{file.path.name} record {index}"
            owners = entities.sum(axis=0)
            if owners.max() > 1:
                overlapping.append(name)
            if owners.min() < 1:
                uncovered.append(name)
            yield Sample(
                image=resize_image(image, size),
                mask=resize_mask(_label_map(entities), size),
                split=_split(index, file, published),
                name=name,
            )
    if overlapping:
        notices.append(f"{len(overlapping)} frames with entities that overlap: {some_of(overlapping)}")
    if uncovered:
        notices.append(f"{len(uncovered)} frames with pixels of no entity: {some_of(uncovered)}")


def _split(index: int, file: _RecordFile, published: bool) -> str:
    if file.variant != "train":
        return file.variant
    if not published:
        return split_by_order(index, file.count)
    if index < HELD_OUT:
        return "test"
    return "val" if index < 2 * HELD_OUT else "train"


def _decode(
    features: dict[str, Feature], path: Path, index: int, variant: str
) -> tuple[UInt8[np.ndarray, "64 64 3"], Bool[np.ndarray, "e 64 64"]]:
    shapes = {"image": (SIDE, SIDE, 3), "mask": (ENTITIES[variant], SIDE, SIDE)}
    arrays = {}
    for name, shape in shapes.items():
        content = features.get(name)
        if not isinstance(content, bytes):
            there = ", ".join(sorted(features)) or "none"
            raise InputError(f"{path}: record {index} has no bytes feature '{name}'; its features: {there}.")
        expected = int(np.prod(shape))
        if len(content) != expected:
            raise InputError(
                f"{path}: record {index} has {len(content)} bytes of '{name}', "
                f"{expected} expected for ObjectsRoom {variant}."
            )
        arrays[name] = np.frombuffer(content, np.uint8).reshape(shape)
    if not np.isin(arrays["mask"], (0, 255)).all():
        raise InputError(f"{path}: record {index} has mask values other than 0 and 255.")
    return arrays["image"], arrays["mask"] > 0


def _label_map(entities: Bool[np.ndarray, "e 64 64"]) -> UInt8[np.ndarray, "64 64"]:
    owner = entities.argmax(axis=0).astype(np.int16)
    labels: NDArray[np.uint8] = np.maximum(owner - (BACKGROUND_ENTITIES - 1), 0).astype(np.uint8)
    return labels
