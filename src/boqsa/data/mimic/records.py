"""Stand-ins for the Multi-Object Datasets: gzip TFRecords of one-byte values (spec/datasets.md 1.1-1.4).

Where a set has fewer entities than a scene has objects, the objects too many are painted over and count as background.
"""

import gzip
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boqsa.data.mimic.content import Content
from boqsa.data.readers.tfrecord import masked_checksum

Values = NDArray[np.uint8] | NDArray[np.float32]
_TEST_FRAMES = 4


def write_objectsroom(target: Path, content: Content) -> Path:
    """Write the train file and the three official test files; the latter have four frames each.

    The background is cut into sky, floor and two halves of a wall. `empty_room` has its objects painted over.
    """
    target.mkdir(parents=True, exist_ok=True)
    sets = {"train": (7, 3), "test_empty_room": (4, 0), "test_six_objects": (10, 6), "test_identical_color": (10, 6)}
    for number, (name, (entities, objects)) in enumerate(sets.items()):
        count = content.count if number == 0 else _TEST_FRAMES
        first = 0 if number == 0 else content.count + (number - 1) * _TEST_FRAMES
        _write(
            target / f"objects_room_{name}.tfrecords", _rooms(content, range(first, first + count), entities, objects)
        )
    return target


def _rooms(content: Content, indices: range, entities: int, objects: int) -> Iterator[bytes]:
    for index in indices:
        image, mask = _scene(content, index, (64, 64), objects)
        room = np.ones((64, 64), np.uint8)  # floor
        room[:12] = 0  # sky
        room[12:32, :32], room[12:32, 32:] = 2, 3
        yield _example({"image": image, "mask": _maps(np.where(mask > 0, mask + 3, room), entities)})


def write_clevr_with_masks(target: Path, content: Content) -> Path:
    """Write the one file, with visibility and with zeros for the codes of the factors."""
    target.mkdir(parents=True, exist_ok=True)
    _write(target / "clevr_with_masks_train.tfrecords", (_clevr(content, index) for index in range(content.count)))
    return target


def _clevr(content: Content, index: int) -> bytes:
    image, mask = _scene(content, index, (240, 320), 10)
    maps = _maps(mask, 11)
    codes = np.zeros(11, np.uint8)
    floats: dict[str, Values] = {name: np.zeros(11, np.float32) for name in ("x", "y", "z", "rotation")}
    floats["pixel_coords"] = np.zeros((11, 3), np.float32)
    floats["visibility"] = _visibility(maps)
    return _example(
        {"image": image, "mask": maps, "color": codes, "material": codes, "shape": codes, "size": codes, **floats}
    )


def write_multi_dsprites(target: Path, content: Content) -> Path:
    """Write the variant `colored_on_colored`; the entity is the last axis of its masks."""
    target.mkdir(parents=True, exist_ok=True)
    _write(
        target / "multi_dsprites_colored_on_colored.tfrecords",
        (_sprites(content, index) for index in range(content.count)),
    )
    return target


def _sprites(content: Content, index: int) -> bytes:
    image, mask = _scene(content, index, (64, 64), 4)
    maps = _maps(mask, 5)
    return _example({"image": image, "mask": np.moveaxis(maps, 0, 2), "visibility": _visibility(maps)})


def write_tetrominoes(target: Path, content: Content) -> Path:
    """Write the one file."""
    target.mkdir(parents=True, exist_ok=True)
    _write(target / "tetrominoes_train.tfrecords", (_tetromino(content, index) for index in range(content.count)))
    return target


def _tetromino(content: Content, index: int) -> bytes:
    image, mask = _scene(content, index, (35, 35), 3)
    return _example({"image": image, "mask": _maps(mask, 4), "visibility": np.ones(4, np.float32)})


def _scene(
    content: Content, index: int, size: tuple[int, int], objects: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image, mask = content.scene(index, size)
    extra = mask > objects
    if extra.any():
        image = image.copy()
        image[extra] = image[mask == 0].mean(axis=0).astype(np.uint8)
    return image, np.where(extra, 0, mask)


def _maps(owners: NDArray[np.uint8], entities: int) -> NDArray[np.uint8]:
    present: NDArray[np.bool_] = owners == np.arange(entities)[:, None, None]
    return np.where(present, 255, 0).astype(np.uint8)


def _visibility(maps: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.array([map_of_one.any() for map_of_one in maps], np.float32)


def _write(path: Path, payloads: Iterable[bytes]) -> None:
    with gzip.GzipFile(path, "wb", compresslevel=1, mtime=0) as file:
        for payload in payloads:
            length = struct.pack("<Q", len(payload))
            checksums = [struct.pack("<I", masked_checksum(content)) for content in (length, payload)]
            file.write(length + checksums[0] + payload + checksums[1])


def _example(features: dict[str, Values]) -> bytes:
    """A tf.train.Example: 8-bit arrays as lists of one-byte strings, others as packed floats."""
    entries = b""
    for name, values in features.items():
        if values.dtype == np.uint8:
            strings = np.empty((values.size, 3), np.uint8)
            strings[:, 0], strings[:, 1], strings[:, 2] = 0x0A, 1, values.ravel()
            feature = _field(1, strings.tobytes())
        else:
            feature = _field(2, _field(1, values.astype("<f4").tobytes()))
        entries += _field(1, _field(1, name.encode()) + _field(2, feature))
    return _field(1, entries)


def _field(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
