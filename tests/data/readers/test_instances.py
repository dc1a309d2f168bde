"""The instance subsets as they are downloaded: folders, ablations, TFRecords, splits, and what is wrong with files."""

import gzip
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boqsa.data import PackedDataset, check, prepare
from boqsa.data.mimic import Content, mimic
from boqsa.data.readers import READERS
from boqsa.errors import InputError

RecordFile = Callable[[list[bytes]], bytes]


def picture(seed: int, objects: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Colours without a zero inside of `objects` rectangles, black outside; nothing about it is symmetric."""
    mask = np.zeros((128, 128), np.uint8)
    for label in range(1, objects + 1):
        mask[15 * label : 15 * label + 12, 5 + label : 40 + 10 * label] = label
    image = np.random.default_rng(seed).integers(1, 256, (128, 128, 3), dtype=np.uint8)
    image[mask == 0] = 0
    return image, mask


def write_pairs(root: Path, train: int = 6, test: int = 3, image: str = "image", mask: str = "mask") -> Path:
    for split, count in (("train", train), ("test", test)):
        for kind in (image, mask):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels, labels = picture(100 * (split == "test") + number)
            Image.fromarray(pixels).save(root / split / image / f"{number:05d}.png")
            Image.fromarray(labels).save(root / split / mask / f"{number:05d}.png")
    return root


def samples(root: Path, name: str = "ycb", **options: Any) -> list[tuple[str, Any]]:
    source = READERS[name](root, **options)
    return [(item.split, source.load(item)) for item in source.items()]


def overwrite(path: Path, labels: np.ndarray) -> None:
    Image.fromarray(labels).save(path)


@pytest.mark.parametrize("name", ["ycb", "scannet", "coco"])
def test_the_whole_way(name: str, tmp_path: Path) -> None:
    manifest = prepare(name, write_pairs(tmp_path / "image"), tmp_path / "packed")  # a root named like a folder in it
    assert manifest.counts == {"train": 4, "val": 2, "test": 3}
    assert manifest.leak == ""
    assert manifest.notices == ()
    test = PackedDataset(tmp_path / "packed", "test")
    assert test.names() == ["test/image/00000.png", "test/image/00001.png", "test/image/00002.png"]
    image, mask = picture(101)
    np.testing.assert_array_equal(test.batch([1])["image"][0].permute(1, 2, 0), image)
    np.testing.assert_array_equal(test.batch([1])["mask"][0], mask)
    assert check(tmp_path / "packed").ok


def test_the_last_twentieth_of_train_is_val(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, train=61, test=1)
    items = list(READERS["coco"](root).items())
    assert [item.name for item in items if item.split == "val"] == [f"train/image/{i:05d}.png" for i in (58, 59, 60)]
    assert len({item.name for item in items}) == 62
    assert [item.split for item in READERS["coco"](root, limit=1).items()] == ["train", "val", "test"]


def test_published_splits_leak_and_say_so(tmp_path: Path) -> None:
    manifest = prepare("ycb", write_pairs(tmp_path / "a"), tmp_path / "packed", split="published")
    assert manifest.counts == {"train": 6, "val": 3, "test": 3}
    assert manifest.leak == "selected on the test set"
    assert "3 images occur both in val and in test" in manifest.notices


def test_another_size_keeps_the_black(tmp_path: Path) -> None:
    image, mask = picture(0)
    _, sample = samples(write_pairs(tmp_path), image_size=(32, 64))[0]
    np.testing.assert_array_equal(sample.image, image[::4, ::2])
    np.testing.assert_array_equal(sample.mask, mask[::4, ::2])


@pytest.mark.parametrize(("variant", "mask"), [("T", "mask"), ("CS", "mask_S"), ("CU", "mask_U"), ("CSTU", "mask_SU")])
def test_ablations_have_masks_of_their_own(variant: str, mask: str, tmp_path: Path) -> None:
    write_pairs(tmp_path, image=f"image_{variant}", mask=mask)
    assert samples(tmp_path, variant=variant)[0][1].mask.max() == 3
    with pytest.raises(InputError, match=rf"image does not exist; .*train has image_{variant}, {mask}"):
        READERS["ycb"](tmp_path)


def test_what_is_odd_is_counted(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "a")
    image, mask = picture(0)
    overwrite(root / "train/mask/00000.png", np.roll(mask, 1, axis=0))
    overwrite(root / "train/mask/00001.png", np.where(mask == 2, 5, mask).astype(np.uint8))
    overwrite(root / "train/mask/00002.png", np.minimum(mask, 1))
    overwrite(root / "train/image/00003.png", image[:100])
    overwrite(root / "train/mask/00003.png", mask[:100])
    overwrite(root / "train/mask/99999.png", mask)
    found = [sample.notices for _, sample in samples(root)]
    assert found[0] == ("not black where the label is 0",)
    assert found[1] == ("labels with gaps, numbered anew",)
    assert found[2] == ("not 2 to 6 objects",)
    assert found[3] == ("stored at another size than 128x128",)
    assert found[4:] == [()] * 5
    np.testing.assert_array_equal(np.unique(samples(root)[1][1].mask), [0, 1, 2, 3])
    assert READERS["ycb"](root).notices == ["1 masks of train have no image: 99999.png"]
    prepare("ycb", root, tmp_path / "packed")
    assert any("not black" in finding for finding in check(tmp_path / "packed").findings)


def test_a_broken_pair_is_named(tmp_path: Path) -> None:
    root = write_pairs(tmp_path)
    mask = picture(0)[1]
    path = root / "train/mask/00000.png"
    for content, message in (
        (np.where(mask > 0, 255, 0).astype(np.uint8), "has the label 255; a grey label map"),
        (picture(0)[0], "has colours; a grey label map"),
        (mask[:64], r"is 128x128, .*mask/00000.png is 64x128; they must agree"),
    ):
        overwrite(path, content)
        with pytest.raises(InputError, match=message):
            samples(root)
    path.unlink()
    with pytest.raises(InputError, match=r"mask/00000.png does not exist"):
        samples(root)


def test_wrong_folders_and_options(tmp_path: Path) -> None:
    for source, message in ((tmp_path / "none", "does not exist"), (tmp_path, "holds neither train/image")):
        with pytest.raises(InputError, match=message):
            READERS["ycb"](source)
    root = write_pairs(tmp_path / "a")
    for options, message in (
        ({"split": "official"}, "choose one of clean, published"),
        ({"variant": "X"}, "variant 'X' is unknown"),
        ({"variant": "C"}, "image_C does not exist; .* has image, mask"),
    ):
        with pytest.raises(InputError, match=message):
            READERS["ycb"](root, **options)
    shutil.rmtree(root / "test/mask")
    with pytest.raises(InputError, match="test/mask does not exist"):
        READERS["ycb"](root)
    shutil.rmtree(root / "test/image")
    (root / "test/image").mkdir()
    with pytest.raises(InputError, match=r"test/image has no .png files"):
        READERS["ycb"](root)


def test_three_sets_side_by_side(tmp_path: Path) -> None:
    for name, count in (("YCB", 7), ("ScanNet", 8)):
        write_pairs(tmp_path / "Real" / name, train=count)
    assert READERS["ycb"](tmp_path).total == 10
    assert READERS["scannet"](tmp_path).total == 11
    with pytest.raises(InputError, match="all hold such a set; name one of them"):
        READERS["coco"](tmp_path)


# TFRecords.


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def record(image: np.ndarray, maps: np.ndarray) -> bytes:
    """A tf.train.Example with one value of bytes for each feature."""
    entries = [(b"mask", maps.tobytes()), (b"image", image.tobytes())]
    return field(1, b"".join(field(1, field(1, key) + field(2, field(1, field(1, value)))) for key, value in entries))


def entity_maps(mask: np.ndarray) -> np.ndarray:
    """(row, column, entity), 0 and 1."""
    return np.stack([mask == label for label in range(7)], axis=2).astype(np.uint8)


def write_records(root: Path, tfrecord_bytes: RecordFile, name: str = "video_YCB_no_bg") -> Path:
    root.mkdir(exist_ok=True)
    for split, count in (("train", 6), ("test", 3)):
        pictures = [picture(100 * (split == "test") + number) for number in range(count)]
        payloads = [record(image, entity_maps(mask)) for image, mask in pictures]
        (root / f"{name}_{split}.tfrecord").write_bytes(tfrecord_bytes(payloads))
    return root


def test_records_are_the_same_as_folders(tmp_path: Path, tfrecord_bytes: RecordFile) -> None:
    folders = prepare("ycb", write_pairs(tmp_path / "a"), tmp_path / "folders")
    root = write_records(tmp_path / "records", tfrecord_bytes)
    write_records(tmp_path / "records", tfrecord_bytes, name="coco_no_bg")  # another set's beside it
    records = prepare("ycb", root, tmp_path / "packed")
    assert records.counts == folders.counts
    for name in ("train.image.000.npy", "val.mask.000.npy", "test.image.000.npy", "test.mask.000.npy"):
        assert records.sha256[name] == folders.sha256[name]
    names = PackedDataset(tmp_path / "packed", "val").names()
    assert names == ["video_YCB_no_bg_train.tfrecord/4", "video_YCB_no_bg_train.tfrecord/5"]
    with pytest.raises(InputError, match="one TFRecord file of scannet with 'train' in its name expected"):
        READERS["scannet"](root)
    with pytest.raises(InputError, match="variant 'C' needs the folders image_C"):
        READERS["ycb"](root, variant="C")


def test_damaged_records(tmp_path: Path, tfrecord_bytes: RecordFile) -> None:
    root = write_records(tmp_path / "r", tfrecord_bytes)
    path = root / "video_YCB_no_bg_train.tfrecord"
    whole = path.read_bytes()
    for content, message in (
        (whole[:-5], "truncated after 5 whole records"),
        (whole + b"\1\2\3", "truncated after 6 whole records"),
        (b"\0" + whole[1:], "record 0 has a wrong checksum"),
        (gzip.compress(whole), "decompress it first"),
        (b"", "is empty"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            READERS["ycb"](root)
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(InputError, match=r"train.tfrecord/0 is damaged"):
        samples(root)


def test_records_of_another_kind(tmp_path: Path, tfrecord_bytes: RecordFile) -> None:
    root = write_records(tmp_path / "r", tfrecord_bytes)
    image, mask = picture(0)
    maps = entity_maps(mask)
    for payload, message in (
        (record(image, maps * 255), "'mask' has the value 255; 0 and 1 expected"),
        (record(image[:64], maps), "'image' has 24576 bytes; 49152 bytes for 128x128x3 expected"),
        (field(1, b""), "'image' has none"),
        (b"\xff", "not a tf.train.Example"),
    ):
        (root / "video_YCB_no_bg_train.tfrecord").write_bytes(tfrecord_bytes([payload] * 6))
        with pytest.raises(InputError, match=message):
            samples(root)
    maps[3:5, 3:5, 1:3] = 1
    (root / "video_YCB_no_bg_train.tfrecord").write_bytes(tfrecord_bytes([record(image, maps)] * 6))
    assert "entities overlap" in samples(root)[0][1].notices


@pytest.mark.parametrize("form", ["pairs", "records"])
def test_damage_is_an_input_error_or_harmless(form: str, tmp_path: Path, tfrecord_bytes: RecordFile) -> None:
    root = tmp_path / "source"
    if form == "pairs":
        write_pairs(root, train=4, test=2)
    else:
        write_records(root, tfrecord_bytes)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    rng = random.Random(0)
    refused: list[str] = []
    for attempt in range(30):
        path = rng.choice(files)
        whole = path.read_bytes()
        changed = bytearray(whole)
        match attempt % 3:
            case 0:
                for _ in range(4):
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            case 1:
                del changed[rng.randrange(len(changed)) :]
            case 2:
                changed = bytearray(rng.choice(files).read_bytes())
        path.write_bytes(changed)
        try:
            manifest = prepare("ycb", root, tmp_path / f"packed{attempt}", workers=1)
            assert set(manifest.counts) == {"train", "val", "test"}
        except InputError as error:
            refused.append(str(error))
        path.write_bytes(whole)
    assert len(refused) >= 10
    assert not any("\n" in message for message in refused)


@pytest.mark.parametrize("name", ["ycb", "scannet", "coco"])
def test_stand_in(name: str, tmp_path: Path) -> None:
    source = mimic(name, tmp_path / "source", count=8, seed=3)
    manifest = prepare(name, source.path, tmp_path / "packed")
    assert manifest.counts == {"train": 4, "val": 2, "test": 2}
    assert len(manifest.notices) == 1  # that it is a stand-in
    batch = PackedDataset(tmp_path / "packed", "train").batch([0])
    content = Content(8, 3)
    scenes = [content.scene(index, (128, 128)) for index in range(20)]
    image, mask = next(scene for scene in scenes if len(np.unique(scene[1])) > 2)
    np.testing.assert_array_equal(batch["mask"][0] > 0, mask > 0)
    np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0), image * (mask > 0)[..., None])
