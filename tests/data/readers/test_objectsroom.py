"""ObjectsRoom: labels, splits, official test files, the repair, damage, and the rendered fixture compared exactly."""

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boqsa.data import PackedDataset, prepare
from boqsa.data.mimic import Content, mimic
from boqsa.data.readers import Sample, Source, objectsroom, records
from boqsa.errors import InputError

Writer = Callable[..., tuple[np.ndarray, np.ndarray]]
TRAIN = "objects_room_train.tfrecords"


def loaded(source: Source) -> list[Sample]:
    return [source.load(item) for item in source.items()]


def splits(source: Source) -> list[str]:
    return [item.split for item in source.items()]


def test_images_labels_and_order(tmp_path: Path, write_objectsroom: Writer) -> None:
    images, owner = write_objectsroom(tmp_path / TRAIN, 5)
    source = objectsroom.read(tmp_path / TRAIN)
    assert source.total == 5
    assert source.partial
    samples = loaded(source)
    np.testing.assert_array_equal([sample.image for sample in samples], images)
    np.testing.assert_array_equal([sample.mask for sample in samples], np.where(owner >= 4, owner - 3, 0))
    assert splits(source) == ["train"] * 3 + ["val", "test"]
    assert [item.name for item in source.items()] == [f"{TRAIN} record {index}" for index in range(5)]
    assert not any(sample.notices for sample in samples)
    assert source.options == {"repair_background": False}


def test_published_split_is_by_position(
    tmp_path: Path, write_objectsroom: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_objectsroom(tmp_path / TRAIN, 6)
    monkeypatch.setattr(objectsroom, "PUBLISHED_FRAMES", 6)
    monkeypatch.setattr(records, "HELD_OUT", 2)
    source = objectsroom.read(tmp_path)
    assert not source.partial
    assert splits(source) == ["test"] * 2 + ["val"] * 2 + ["train"] * 2
    assert source.split_rule == "by position: records 0-1 test, 2-3 val, all after them train"
    limited = objectsroom.read(tmp_path, limit=1)
    assert limited.partial
    assert limited.total == 3
    assert [item.name[-1] for item in limited.items()] == ["0", "2", "4"]


def test_a_limit_reads_no_further_than_it_needs(
    tmp_path: Path, write_objectsroom: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_objectsroom(tmp_path / TRAIN, 6)
    plain = gzip.decompress((tmp_path / TRAIN).read_bytes())
    (tmp_path / TRAIN).write_bytes(gzip.compress(plain[:-10], 1))
    monkeypatch.setattr(records, "HELD_OUT", 2)
    assert len(loaded(objectsroom.read(tmp_path, limit=1))) == 3
    with pytest.raises(InputError, match="truncated after 5 whole records"):
        objectsroom.read(tmp_path, limit=2)


def test_official_test_files_are_splits(tmp_path: Path, write_objectsroom: Writer) -> None:
    folder = tmp_path / "objects_room"  # the publisher's folder is found too
    folder.mkdir()
    write_objectsroom(folder / TRAIN, 3)
    for name, entities in (("empty_room", 4), ("six_objects", 10)):
        write_objectsroom(folder / f"objects_room_test_{name}.tfrecords", 2, entities)
    source = objectsroom.read(tmp_path)
    highest = [(item.split, int(source.load(item).mask.max())) for item in source.items()]
    assert Counter(highest)["empty_room", 0] == 2
    assert Counter(highest)["six_objects", 6] == 2
    alone = objectsroom.read(folder / "objects_room_test_six_objects.tfrecords", limit=1)
    assert splits(alone) == ["six_objects"]
    assert alone.partial


def test_size(tmp_path: Path, write_objectsroom: Writer) -> None:
    write_objectsroom(tmp_path / TRAIN, 1)
    sample = loaded(objectsroom.read(tmp_path, image_size=(32, 16)))[0]
    assert sample.image.shape == (32, 16, 3)
    assert sample.mask.shape == (32, 16)


# The repair. A room of 64x64: sky above row 20, floor below row 40, a wall (2) between, and an entity 3.


def room(**boxes: tuple[slice, slice]) -> np.ndarray:
    owner = np.ones((64, 64), int)
    owner[:20], owner[20:40] = 0, 2
    for name, box in boxes.items():
        owner[box] = int(name[1:])
    return owner == np.arange(7)[:, None, None]


@pytest.mark.parametrize(
    ("name", "entities", "background"),
    [
        ("a wall beside a wall", room(e3=(slice(20, 40), slice(40, 64)), e4=(slice(50, 54), slice(5, 9))), 4),
        ("below entity 2, over 3 columns", room(e3=(slice(36, 40), slice(61, 64)), e4=(slice(50, 54), slice(5, 9))), 3),
        ("below entity 2, over 2 columns", room(e3=(slice(36, 40), slice(62, 64)), e4=(slice(50, 54), slice(5, 9))), 4),
        ("above entity 2", room(e3=(slice(20, 30), slice(0, 3)), e4=(slice(50, 54), slice(5, 9))), 3),
        ("floor at both sides", room(e3=(slice(41, 44), slice(20, 30)), e4=(slice(50, 54), slice(5, 9))), 3),
        ("floor at both sides, 2 rows", room(e3=(slice(41, 43), slice(20, 30)), e4=(slice(50, 54), slice(5, 9))), 4),
        ("to the left border", room(e3=(slice(41, 44), slice(0, 9)), e4=(slice(50, 54), slice(5, 9))), 4),
        ("all entities used", room(e3=(slice(41, 44), slice(20, 30)), e6=(slice(50, 54), slice(5, 9))), 4),
        ("no object: the last one", room(e3=(slice(20, 40), slice(40, 64))), 3),
        ("no object and no second wall", room(), 2),
    ],
)
def test_repair_rules(name: str, entities: np.ndarray, background: int) -> None:
    assert objectsroom.count_background(entities) == background, name


def test_repair_when_one_side_touches_and_the_other_ends_in_the_picture() -> None:
    owner = np.ones((64, 64), int)
    owner[:20] = 0
    owner[20:60, 30:64] = 2
    owner[30:50, 28:31] = 3  # floor to its left, a wall to its right, far from the border
    owner[62, :4] = 4
    assert objectsroom.count_background(owner == np.arange(7)[:, None, None]) == 3
    owner[30:50, 28:64] = 3  # as above, and it reaches the border
    owner[20:30] = owner[50:60] = 1  # the wall is gone, so that nothing lies above or below
    assert objectsroom.count_background(owner == np.arange(7)[:, None, None]) == 4


def test_repair_when_both_sides_touch_and_both_borders_are_reached() -> None:
    owner = np.ones((64, 64), int)
    owner[:20], owner[20:40] = 0, 2
    owner[41:44, :40] = owner[44:47, 30:] = 3  # floor to the right of the upper part and to the left of the lower one
    owner[62, :4] = 4
    assert objectsroom.count_background(owner == np.arange(7)[:, None, None]) == 3


def test_repair_shifts_labels_and_counts_frames(
    tmp_path: Path, write_records: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted = room(e3=(slice(41, 44), slice(20, 30)), e4=(slice(50, 54), slice(5, 9)))
    alone = room(e3=(slice(20, 40), slice(40, 64)))
    image = bytes(64 * 64 * 3)
    write_records(
        tmp_path / TRAIN, [{"image": image, "mask": (e * np.uint8(255)).tobytes()} for e in (shifted, alone, shifted)]
    )
    as_published = loaded(objectsroom.read(tmp_path))
    assert [int(sample.mask.max()) for sample in as_published] == [1, 0, 1]
    repaired = loaded(objectsroom.read(tmp_path, repair_background=True))
    assert repaired[0].mask[42, 25] == 1
    assert repaired[0].mask[52, 6] == 2
    assert repaired[1].mask[30, 50] == 1
    assert [sample.notices for sample in repaired] == [
        (objectsroom.SHIFTED,),
        (objectsroom.NO_OBJECT,),
        (objectsroom.SHIFTED,),
    ]
    manifest = prepare("objectsroom", tmp_path, tmp_path / "packed", repair_background=True)
    assert any(notice.startswith("2 images: entity 3 is an object") for notice in manifest.notices)


def test_overlap_and_holes_are_told(tmp_path: Path, write_records: Callable[..., Path]) -> None:
    entities = room(e5=(slice(41, 44), slice(20, 30)))
    entities[4, 42, 25] = True
    entities[0, 0, 0] = False
    write_records(tmp_path / TRAIN, [{"image": bytes(12288), "mask": (entities * np.uint8(255)).tobytes()}])
    sample = loaded(objectsroom.read(tmp_path))[0]
    assert set(sample.notices) == {records.OVERLAP, records.UNCOVERED}
    assert sample.mask[42, 25] == 1
    assert sample.mask[0, 0] == 0


def test_wrong_variant_names_both_numbers(tmp_path: Path, write_objectsroom: Writer) -> None:
    write_objectsroom(tmp_path / TRAIN, 1, entities=10)
    with pytest.raises(InputError, match=r"record 0 has 40960 bytes of 'mask', 28672 expected for ObjectsRoom train"):
        objectsroom.read(tmp_path)


def test_a_broken_record_can_be_skipped(tmp_path: Path, write_records: Callable[..., Path]) -> None:
    good = {"image": bytes(12288), "mask": (room() * np.uint8(255)).tobytes()}
    bad = {"image": bytes(12288), "mask": (room() * np.uint8(128)).tobytes()}
    write_records(tmp_path / TRAIN, [good, good, bad, {"image": bytes(12288)}, good])
    with pytest.raises(InputError, match=r"record 2 has mask values other than 0 and 255"):
        prepare("objectsroom", tmp_path, tmp_path / "packed")
    manifest = prepare("objectsroom", tmp_path, tmp_path / "packed", skip_broken=2)
    assert sum(manifest.counts.values()) == 3
    assert "has no bytes feature 'mask' as ObjectsRoom train has; its features: 'image'" in manifest.skipped[1]


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
    with pytest.raises(InputError, match="holds none of objects_room_train"):
        objectsroom.read(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        objectsroom.read(tmp_path / "none")
    (tmp_path / TRAIN).write_bytes(b"")
    with pytest.raises(InputError, match="no records"):
        objectsroom.read(tmp_path)


def test_progress_counts_compressed_bytes_of_all_files(tmp_path: Path, write_objectsroom: Writer) -> None:
    write_objectsroom(tmp_path / TRAIN, 3)
    write_objectsroom(tmp_path / "objects_room_test_empty_room.tfrecords", 2, 4)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    seen: list[tuple[str, int, int]] = []
    objectsroom.read(tmp_path, progress=lambda *told: seen.append(told))
    assert {(what, total) for what, _, total in seen} == {("verifying", size)}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1] == size


def test_rendered_fixture_exactly(shared: Path) -> None:
    folder = shared / "objectsroom_layout"
    expected = np.load(folder / "data.npz")
    source = objectsroom.read(folder)
    samples = loaded(source)
    np.testing.assert_array_equal([sample.image.transpose(2, 0, 1) for sample in samples], expected["images"])
    np.testing.assert_array_equal([sample.mask for sample in samples], expected["masks"])
    assert Counter(splits(source)) == {"train": 400, "val": 50, "test": 50}


def test_mimic(tmp_path: Path) -> None:
    stand_in = mimic("objectsroom", tmp_path / "in", count=24)
    manifest = prepare("objectsroom", stand_in.path, tmp_path / "out")
    assert manifest.counts == {"train": 20, "val": 2, "test": 2} | dict.fromkeys(
        ("empty_room", "six_objects", "identical_color"), 4
    )
    assert len(manifest.notices) == 1  # that it is a stand-in
    batch = PackedDataset(tmp_path / "out", "val").batch([1])
    image, mask = Content(24).scene(21, (64, 64))
    np.testing.assert_array_equal(batch["mask"][0], np.where(mask > 3, 0, mask))
    seen = mask <= 3
    np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0).numpy()[seen], image[seen])
    assert PackedDataset(tmp_path / "out", "empty_room").batch([0, 1, 2, 3])["mask"].max() == 0
