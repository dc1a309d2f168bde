"""The Multi-Object Datasets besides ObjectsRoom: shapes, axis order, crops, splits, filter, and damage."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boqsa.data import PackedDataset, check, prepare
from boqsa.data.mimic import Content, mimic
from boqsa.data.readers import Sample, Source, clevr_with_masks, multi_dsprites, records, tetrominoes
from boqsa.data.readers.tfrecord import read_records
from boqsa.data.resample import resize_image, resize_mask
from boqsa.errors import InputError

Writer = Callable[[Path, list[dict[str, Any]]], Path]
CLEVR = "clevr_with_masks_train.tfrecords"
TETROMINOES = "tetrominoes_train.tfrecords"


def loaded(source: Source) -> list[Sample]:
    return [source.load(item) for item in source.items()]


def maps(owner: np.ndarray, entities: int) -> np.ndarray:
    return (owner == np.arange(entities)[:, None, None]).astype(np.uint8) * 255


# Multi-dSprites.


def sprites(variant: str, seed: int = 0) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """A record with one sprite in the upper right; its image (64, 64, C) and labels."""
    entities, channels = {"binarized": (4, 1), "colored_on_grayscale": (6, 3), "colored_on_colored": (5, 3)}[variant]
    image = np.random.default_rng(seed).integers(0, 256, (64, 64, channels), dtype=np.uint8)
    labels = np.zeros((64, 64), int)
    labels[4:12, 50:60] = entities - 1
    in_file = np.zeros((64, 64, entities, 1), np.uint8)  # the entity is the third axis
    for row in range(64):
        for column in range(64):
            in_file[row, column, labels[row, column], 0] = 255
    visibility = np.zeros(entities, np.float32)
    visibility[[0, entities - 1]] = 1
    record = {"mask": in_file.tobytes(), "image": image.tobytes(), "visibility": visibility, "scale": visibility}
    return record, image, labels


@pytest.mark.parametrize("variant", ["binarized", "colored_on_grayscale", "colored_on_colored"])
def test_variants_are_recognised_and_axes_are_in_order(variant: str, tmp_path: Path, write_records: Writer) -> None:
    record, image, labels = sprites(variant)
    path = write_records(tmp_path / "any name.tfrecords", [record])
    source = multi_dsprites.read(path)
    assert source.options == {"variant": variant, "split": "clean"}
    sample = loaded(source)[0]
    np.testing.assert_array_equal(sample.mask, labels)
    np.testing.assert_array_equal(sample.image, np.broadcast_to(image, (64, 64, 3)))
    assert not sample.notices


def test_a_variant_is_chosen_from_a_folder(tmp_path: Path, write_records: Writer) -> None:
    for variant in ("binarized", "colored_on_colored"):
        write_records(tmp_path / f"multi_dsprites_{variant}.tfrecords", [sprites(variant)[0]])
    with pytest.raises(InputError, match=r"several variants: binarized, colored_on_colored; give one .* --variant"):
        multi_dsprites.read(tmp_path)
    assert loaded(multi_dsprites.read(tmp_path, variant="colored_on_colored"))[0].mask.max() == 4
    with pytest.raises(InputError, match="holds none of multi_dsprites_colored_on_grayscale"):
        multi_dsprites.read(tmp_path, variant="colored_on_grayscale")
    with pytest.raises(InputError, match="variant 'grey' is unknown"):
        multi_dsprites.read(tmp_path, variant="grey")
    with pytest.raises(InputError, match="has 4096 bytes of 'image', 12288 expected for Multi-dSprites colored_on_col"):
        multi_dsprites.read(tmp_path / "multi_dsprites_binarized.tfrecords", variant="colored_on_colored")


def test_other_sets_are_no_variant(tmp_path: Path, write_records: Writer) -> None:
    path = write_records(tmp_path / "a", [{"image": bytes(12288), "mask": bytes(28672)}])
    with pytest.raises(InputError, match="12288 bytes of 'image' and 28672 of 'mask'; 4096 and 16384"):
        multi_dsprites.read(path)
    with pytest.raises(InputError, match="holds no records"):
        multi_dsprites.read(write_records(tmp_path / "a", []))


def test_pixels_without_visibility_are_told(tmp_path: Path, write_records: Writer) -> None:
    record, _, _ = sprites("binarized")
    record["visibility"] = np.array([1, 1, 1, 0], np.float32)
    sample = loaded(multi_dsprites.read(write_records(tmp_path / "a", [record])))[0]
    assert sample.notices == (records.INVISIBLE,)


# Tetrominoes.


def tetromino(seed: int = 0) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    image = np.random.default_rng(seed).integers(0, 256, (35, 35, 3), dtype=np.uint8)
    labels = np.zeros((35, 35), int)
    labels[1:3, 20:34], labels[10:30, 5:9], labels[33:35, 33:35] = 1, 2, 3
    return {"image": image.tobytes(), "mask": maps(labels, 4).tobytes()}, image, labels


def test_tetrominoes_are_cropped_from_pixel_one(tmp_path: Path, write_records: Writer) -> None:
    record, image, labels = tetromino()
    write_records(tmp_path / TETROMINOES, [record])
    sample = loaded(tetrominoes.read(tmp_path))[0]
    np.testing.assert_array_equal(sample.image, image[1:33, 1:33])
    np.testing.assert_array_equal(sample.mask, labels[1:33, 1:33])
    source = tetrominoes.read(tmp_path, crop="none")
    assert source.image_size == (35, 35)
    np.testing.assert_array_equal(loaded(source)[0].mask, labels)
    assert loaded(tetrominoes.read(tmp_path, image_size=(16, 20)))[0].image.shape == (16, 20, 3)
    with pytest.raises(InputError, match="crop '35' is unknown; choose one of 32, none"):
        tetrominoes.read(tmp_path, crop="35")  # type: ignore[arg-type]


def test_splits_by_position_and_limits(tmp_path: Path, write_records: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records(tmp_path / TETROMINOES, [tetromino(seed)[0] for seed in range(9)])
    monkeypatch.setattr(records, "HELD_OUT", 2)
    monkeypatch.setattr(tetrominoes, "PUBLISHED_RECORDS", 9)
    monkeypatch.setattr(tetrominoes, "USED_BY_GENESIS", 6)

    def taken(**options: Any) -> list[tuple[str, int]]:
        source = tetrominoes.read(tmp_path, **options)
        found = [(item.split, int(item.name[-1])) for item in source.items()]
        assert source.total == len(found)
        assert found == [(item.split, int(item.name[-1])) for item in source.items()]  # the same at each call
        return found

    head = [("test", 0), ("test", 1), ("val", 2), ("val", 3)]
    assert taken() == head + [("train", index) for index in range(4, 9)]
    assert taken(split="published") == [*head, ("train", 4), ("train", 5)]
    assert taken(limit=1) == [("test", 0), ("val", 2), ("train", 4)]
    assert not tetrominoes.read(tmp_path).partial
    assert not tetrominoes.read(tmp_path, split="published").partial
    assert tetrominoes.read(tmp_path, limit=5).partial
    assert tetrominoes.read(tmp_path, split="published").split_rule.endswith("no record after the first 6")
    with pytest.raises(InputError, match="split 'official' is unknown; choose one of clean, published"):
        tetrominoes.read(tmp_path, split="official")  # type: ignore[arg-type]


# CLEVR.


def clevr(objects: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """A record of flat stripes: object k is rows 20 k to 20 k + 9, right of column 100."""
    labels = np.zeros((240, 320), int)
    for label in range(1, objects + 1):
        labels[20 * label : 20 * label + 10, 100 : 200 + label] = label
    image = np.stack([labels * 20, np.zeros_like(labels) + objects, labels], axis=2).astype(np.uint8)
    image[:, 64] = (9, 9, 200)
    visibility = (np.arange(11) <= objects).astype(np.float32)
    record = {"image": image.tobytes(), "mask": maps(labels, 11).tobytes(), "visibility": visibility}
    return record, image, labels


@pytest.fixture(scope="module")
def clevr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clevr")


@pytest.fixture
def clevr_file(clevr_folder: Path, write_records: Writer) -> Path:
    """Records with 5, 6, 7, 10 and 3 objects."""
    path = clevr_folder / CLEVR
    if not path.exists():
        write_records(path, [clevr(objects)[0] for objects in (5, 6, 7, 10, 3)])
    return path


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        ("192", slice(24, 216), slice(64, 256)),
        ("iodine", slice(29, 221), slice(64, 256)),
        ("none", slice(240), slice(320)),
    ],
)
def test_clevr_crops(crop: str, rows: slice, columns: slice, clevr_file: Path) -> None:
    source = clevr_with_masks.read(clevr_file, crop=crop, limit=1)  # type: ignore[arg-type]
    sample = source.load(next(iter(source.items())))
    _, image, labels = clevr(5)
    np.testing.assert_array_equal(sample.image, resize_image(image[rows, columns], (128, 128)))
    np.testing.assert_array_equal(sample.mask, resize_mask(labels[rows, columns].astype(np.uint8), (128, 128)))
    assert sample.mask.max() == 5
    assert not sample.notices


def test_clevr6_counts_objects_and_not_the_background(clevr_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "HELD_OUT", 1)
    source = clevr_with_masks.read(clevr_file.parent, max_objects=6)
    assert [(item.split, item.name[-1]) for item in source.items()] == [("test", "0"), ("val", "1"), ("train", "4")]
    assert source.total == 3
    assert source.options == {"crop": "192", "max_objects": 6, "split": "clean"}
    assert clevr_with_masks.read(clevr_file, max_objects=10).total == 5
    assert clevr_with_masks.read(clevr_file, max_objects=7, limit=1).total == 3
    with pytest.raises(InputError, match="none of its 5 records is wanted"):
        clevr_with_masks.read(clevr_file, max_objects=2)
    with pytest.raises(InputError, match="max_objects is 11; a whole number from 1 to 10"):
        clevr_with_masks.read(clevr_file, max_objects=11)


def test_clevr6_needs_visibility(tmp_path: Path, write_records: Writer) -> None:
    record, _, _ = clevr(3)
    for wrong in (np.zeros(10, np.float32), np.full(11, np.nan, np.float32)):
        write_records(tmp_path / CLEVR, [{**record, "visibility": wrong}])
        assert clevr_with_masks.read(tmp_path).total == 1
        with pytest.raises(InputError, match="has no 'visibility' of 11 numbers, which max_objects needs"):
            clevr_with_masks.read(tmp_path, max_objects=6)


def test_clevr_packs(clevr_file: Path, tmp_path: Path) -> None:
    manifest = prepare("clevr_with_masks", clevr_file, tmp_path / "packed", workers=2, max_objects=7)
    assert sum(manifest.counts.values()) == 4
    assert check(tmp_path / "packed").ok


# All of them.


@pytest.mark.parametrize("payload", [b"\x0a\xff", b"\xff"])
def test_a_record_that_is_no_example_is_named(payload: bytes) -> None:
    with pytest.raises(InputError, match=r"^a\.tfrecords record 1 is not a tf\.train\.Example: "):
        records.parse(payload, "a.tfrecords record 1")


def test_missing_files(tmp_path: Path) -> None:
    for reader, name in ((tetrominoes, TETROMINOES), (clevr_with_masks, CLEVR), (multi_dsprites, "multi_dsprites_bin")):
        with pytest.raises(InputError, match=f"holds none of {name}"):
            reader.read(tmp_path)
        with pytest.raises(InputError, match="does not exist"):
            reader.read(tmp_path / "none")


def test_an_interrupted_prepare_goes_on_to_the_same_bytes(tmp_path: Path, write_records: Writer) -> None:
    path = write_records(tmp_path / TETROMINOES, [tetromino(seed)[0] for seed in range(12)])
    whole = prepare("tetrominoes", path, tmp_path / "whole")

    def stop(what: str, done: int, _: int) -> None:
        if (what, done) == ("packing", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("tetrominoes", path, tmp_path / "resumed", progress=stop)
    seen: list[int] = []
    resumed = prepare(
        "tetrominoes",
        path,
        tmp_path / "resumed",
        progress=lambda what, done, _: seen.append(done) if what == "packing" else None,
    )
    assert min(seen) > 5
    assert resumed.fingerprint == whole.fingerprint


def test_mutations_are_refused_or_harmless(tmp_path: Path, write_records: Writer) -> None:
    path = write_records(tmp_path / TETROMINOES, [tetromino(seed)[0] for seed in range(3)])
    packed = path.read_bytes()
    plain = gzip.decompress(packed)
    good = prepare("tetrominoes", path, tmp_path / "good").fingerprint
    rng = random.Random(0)
    refused = []
    for trial in range(60):
        content = bytearray(packed if trial % 2 else plain)
        place = rng.randrange(len(content)) if trial % 4 < 2 else rng.randrange(30)
        if trial % 3 == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif trial % 3 == 1:
            del content[place:]
        else:
            other = rng.randrange(len(content))
            content[place], content[other] = content[other], content[place]
        path.write_bytes(content)
        try:
            result = prepare("tetrominoes", path, tmp_path / f"out{trial}")
        except InputError as error:
            refused.append(str(error))
        else:
            # Damage is found by its checksum, unless it is in a part of the gzip header that means nothing.
            assert result.fingerprint == good
    assert len(refused) > 50
    assert all(str(path) in message and "\n" not in message for message in refused)


def test_mutated_payloads_with_right_checksums(
    tmp_path: Path, tfrecord_bytes: Callable[[list[bytes]], bytes], write_records: Writer
) -> None:
    path = write_records(tmp_path / TETROMINOES, [tetromino()[0]])
    (payload,) = read_records(path)
    rng = random.Random(1)
    payloads = []
    for trial in range(60):
        content = bytearray(payload)
        place = rng.randrange(40) if trial % 2 else rng.randrange(len(content))
        if trial % 3 == 0:
            del content[place:]
        else:
            content[place] = rng.randrange(256)
        payloads.append(bytes(content))
    path.write_bytes(tfrecord_bytes([payload, *payloads]))
    manifest = prepare("tetrominoes", path, tmp_path / "out", skip_broken=60)
    assert len(manifest.skipped) > 30
    assert all(f"{TETROMINOES} record " in message for message in manifest.skipped)


@pytest.mark.parametrize("name", ["clevr_with_masks", "multi_dsprites", "tetrominoes"])
def test_mimic(name: str, tmp_path: Path) -> None:
    count = 6 if name == "clevr_with_masks" else 24
    stand_in = mimic(name, tmp_path / "in", count=count)
    manifest = prepare(name, stand_in.path, tmp_path / "out", crop=None if name == "multi_dsprites" else "none")
    assert manifest.counts == ({"train": 4, "val": 1, "test": 1} if count == 6 else {"train": 20, "val": 2, "test": 2})
    assert len(manifest.notices) == 1  # that it is a stand-in
    stored, most = {
        "clevr_with_masks": ((240, 320), 10),
        "multi_dsprites": ((64, 64), 4),
        "tetrominoes": ((35, 35), 3),
    }[name]
    for index, mask in enumerate(PackedDataset(tmp_path / "out", "train").batch([0, 1, 2, 3])["mask"].numpy()):
        expected = Content(count).scene(index, stored)[1]
        expected = np.where(expected > most, 0, expected).astype(np.uint8)
        np.testing.assert_array_equal(mask, resize_mask(expected, manifest.image_size))
