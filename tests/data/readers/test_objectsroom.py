"""ObjectsRoom: labels, splits, official test files, damage, and the rendered fixture compared exactly."""

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boqsa.data.readers import objectsroom
from boqsa.errors import InputError

Writer = Callable[..., tuple[np.ndarray, np.ndarray]]
TRAIN = "objects_room_train.tfrecords"


def test_images_labels_and_order(tmp_path: Path, write_objectsroom: Writer) -> None:
    images, owner = write_objectsroom(tmp_path / TRAIN, 5)
    source = objectsroom.read(tmp_path / TRAIN)
    samples = list(source.samples)
    assert source.total == 5
    assert source.partial
    np.testing.assert_array_equal([sample.image for sample in samples], images)
    np.testing.assert_array_equal([sample.mask for sample in samples], np.where(owner >= 4, owner - 3, 0))
    assert [sample.split for sample in samples] == ["train"] * 3 + ["val", "test"]


def test_published_split_is_by_position(
    tmp_path: Path, write_objectsroom: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_objectsroom(tmp_path / TRAIN, 6)
    monkeypatch.setattr(objectsroom, "PUBLISHED_FRAMES", 6)
    monkeypatch.setattr(objectsroom, "HELD_OUT", 2)
    source = objectsroom.read(tmp_path)
    assert not source.partial
    assert [sample.split for sample in source.samples] == ["test"] * 2 + ["val"] * 2 + ["train"] * 2
    assert objectsroom.read(tmp_path, limit=5).partial


def test_official_test_files_are_splits(tmp_path: Path, write_objectsroom: Writer) -> None:
    write_objectsroom(tmp_path / TRAIN, 3)
    for name, entities in (("empty_room", 4), ("six_objects", 10)):
        write_objectsroom(tmp_path / f"objects_room_test_{name}.tfrecords", 2, entities)
    samples = list(objectsroom.read(tmp_path).samples)
    assert Counter(sample.split for sample in samples)["empty_room"] == 2
    assert {int(sample.mask.max()) for sample in samples if sample.split == "empty_room"} == {0}
    assert {int(sample.mask.max()) for sample in samples if sample.split == "six_objects"} == {6}
    alone = objectsroom.read(tmp_path / "objects_room_test_six_objects.tfrecords")
    assert {sample.split for sample in alone.samples} == {"six_objects"}


def test_limit_and_size(tmp_path: Path, write_objectsroom: Writer) -> None:
    write_objectsroom(tmp_path / TRAIN, 4)
    source = objectsroom.read(tmp_path, image_size=32, limit=2)
    samples = list(source.samples)
    assert len(samples) == source.total == 2
    assert samples[0].image.shape == (32, 32, 3)
    assert samples[0].mask.shape == (32, 32)


def test_wrong_variant_names_both_numbers(tmp_path: Path, write_objectsroom: Writer) -> None:
    write_objectsroom(tmp_path / TRAIN, 1, entities=10)
    with pytest.raises(InputError, match=r"40960 bytes of 'mask', 28672 expected"):
        objectsroom.read(tmp_path)


def test_damage_is_found_before_the_first_sample(tmp_path: Path, write_objectsroom: Writer) -> None:
    write_objectsroom(tmp_path / TRAIN, 3)
    plain = gzip.decompress((tmp_path / TRAIN).read_bytes())
    (tmp_path / TRAIN).write_bytes(gzip.compress(plain[:-1000], 1))
    with pytest.raises(InputError, match="truncated after 2 whole records"):
        objectsroom.read(tmp_path)
    flipped = bytearray(plain)
    flipped[len(plain) // 2] ^= 1
    (tmp_path / TRAIN).write_bytes(gzip.compress(bytes(flipped), 1))
    with pytest.raises(InputError, match="record 1 is damaged"):
        objectsroom.read(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no objects_room_train"):
        objectsroom.read(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        objectsroom.read(tmp_path / "none")
    (tmp_path / TRAIN).write_bytes(b"")
    with pytest.raises(InputError, match="no records"):
        objectsroom.read(tmp_path)


def test_rendered_fixture_exactly(shared: Path) -> None:
    folder = shared / "objectsroom_layout"
    expected = np.load(folder / "data.npz")
    samples = list(objectsroom.read(folder).samples)
    np.testing.assert_array_equal([sample.image.transpose(2, 0, 1) for sample in samples], expected["images"])
    np.testing.assert_array_equal([sample.mask for sample in samples], expected["masks"])
    assert Counter(sample.split for sample in samples) == {"train": 400, "val": 50, "test": 50}
