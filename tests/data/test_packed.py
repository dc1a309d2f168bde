"""Packed data sets: what goes in comes out, and what is wrong is said."""

import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boqsa.data.manifest import Manifest
from boqsa.data.packed import PackedDataset
from boqsa.data.packing import Extra, PackedWriter, write_packed
from boqsa.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 3, 5, 7), dtype=np.uint8)
MASKS = RNG.integers(-1, 6, (12, 5, 7))
FIELDS: dict[str, Any] = {
    "name": "arrays",
    "source": "a.npz",
    "licence": "none",
    "task": "multi-object",
    "split_rule": "by hand",
}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    splits = {"test": (IMAGES[:4], None), "train": (IMAGES, MASKS)}
    write_packed(tmp_path / "packed", splits, **FIELDS)
    return tmp_path / "packed"


def test_round_trip(packed: Path) -> None:
    dataset = PackedDataset(packed, "train")
    assert len(dataset) == 12
    assert dataset.image_size == (5, 7)
    for index in (0, 5, -1):
        sample = dataset[index]
        assert sample["image"].dtype == torch.uint8
        assert sample["mask"].dtype == torch.int64
        np.testing.assert_array_equal(sample["image"], IMAGES[index])
        np.testing.assert_array_equal(sample["mask"], MASKS[index])


def test_a_split_without_masks(packed: Path) -> None:
    dataset = PackedDataset(packed, "test")
    assert not dataset.has_masks
    assert dataset[0].keys() == {"image"}
    assert PackedDataset(packed, "train").has_masks


@given(st.lists(st.integers(-12, 11), max_size=20))
@settings(max_examples=20, deadline=None)
def test_a_batch_is_its_items(tmp_path_factory: pytest.TempPathFactory, indices: list[int]) -> None:
    target = tmp_path_factory.getbasetemp() / "shared-packed"
    if not target.exists():
        write_packed(target, {"train": (IMAGES, MASKS)}, **FIELDS)
    batch = PackedDataset(target, "train").batch(indices)
    np.testing.assert_array_equal(batch["image"], IMAGES[indices].reshape(-1, 3, 5, 7))
    np.testing.assert_array_equal(batch["mask"], MASKS[indices].reshape(-1, 5, 7))


def test_out_of_range_is_an_index_error(packed: Path) -> None:
    dataset = PackedDataset(packed, "train")
    with pytest.raises(IndexError):
        dataset[12]
    assert len(list(dataset)) == 12  # iteration by index ends


def test_a_sample_can_be_changed_without_touching_the_file(packed: Path) -> None:
    dataset = PackedDataset(packed, "train")
    dataset[0]["image"].zero_()
    np.testing.assert_array_equal(dataset[0]["image"], IMAGES[0])


def test_pickling_sends_the_path_alone(packed: Path) -> None:
    content = pickle.dumps(PackedDataset(packed, "train"))
    assert len(content) < 1_000
    np.testing.assert_array_equal(pickle.loads(content)[3]["image"], IMAGES[3])


def test_anyone_can_read_the_files_with_numpy(packed: Path) -> None:
    np.testing.assert_array_equal(np.load(packed / "train.image.000.npy", mmap_mode="r"), IMAGES)
    np.testing.assert_array_equal(np.load(packed / "train.mask.000.npy"), np.where(MASKS < 0, 255, MASKS))


def test_writing_a_stream_equals_writing_at_once_and_uses_little_memory(tmp_path: Path) -> None:
    image = RNG.integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
    with PackedWriter(tmp_path, (64, 64)) as writer:
        writer.append("train", image, None)
        tracemalloc.start()
        for _ in range(500):  # 6 MB of images
            writer.append("train", image, None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        writer.finish(**FIELDS)
    assert peak < 300_000
    once = write_packed(tmp_path / "once", {"train": (image.repeat(501, axis=0), None)}, **FIELDS)
    assert once.sha256 == Manifest.load(tmp_path).sha256


def test_unknown_split_names_those_there(packed: Path) -> None:
    with pytest.raises(InputError, match="no split 'val'; it has train, test"):
        PackedDataset(packed, "val")


def test_what_is_not_packed_says_what_to_type(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="boqsa data prepare"):
            PackedDataset(path, "train")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="boqsa data prepare"):
        PackedDataset(tmp_path / "file", "train")


@pytest.mark.parametrize("change", ["cut", "other", "gone", "pipe"])
def test_arrays_that_disagree_with_the_manifest(change: str, packed: Path) -> None:
    file = packed / "train.image.000.npy"
    if change == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif change == "other":
        np.save(file, IMAGES[:11])
    else:
        file.unlink()
    if change == "pipe":
        os.mkfifo(file)  # opening it would wait for ever
    with pytest.raises(InputError, match="prepare the data set again"):
        PackedDataset(packed, "train")


def test_wrong_arrays_leave_nothing_behind(tmp_path: Path) -> None:
    wrong = [
        {"train": (IMAGES.astype(np.float32), None)},
        {"train": (IMAGES.transpose(0, 2, 3, 1), None)},
        {"train": (IMAGES, MASKS[:3])},
        {"train": (IMAGES, None), "val": (IMAGES[..., :5], None)},
        {"tr/ain": (IMAGES, None)},
        {},
    ]
    for splits in wrong:
        with pytest.raises(ValueError):
            write_packed(tmp_path / "packed", splits, **FIELDS)
    with pytest.raises(InputError, match="labels from -1 to 999"):
        write_packed(tmp_path / "packed", {"train": (IMAGES, np.where(MASKS == 5, 999, MASKS))}, **FIELDS)
    assert not list(tmp_path.iterdir())


def test_a_split_has_all_masks_or_none(tmp_path: Path) -> None:
    with PackedWriter(tmp_path, (5, 7)) as writer:
        writer.append("train", IMAGES, MASKS)
        with pytest.raises(ValueError, match="with a mask and images without"):
            writer.append("train", IMAGES, None)


def test_order_of_splits_and_leaks(packed: Path) -> None:
    manifest = Manifest.load(packed)
    assert list(manifest.counts.items()) == [("train", 12), ("test", 4)]
    assert manifest.notices == ("4 images occur both in train and in test",)


# --- shards, names, wide labels, extras ---

FIFTY = RNG.integers(0, 256, (50, 3, 5, 7), dtype=np.uint8)
POSES = RNG.normal(size=(50, 2)).astype(np.float32)
SHARD = 8 * 3 * 5 * 7
"""Bytes of eight images."""


def pack_fifty(
    folder: Path, pieces: list[int], *, counts: dict[str, int] | None = None, start: int = 0
) -> PackedWriter:
    """Append images `start`.. in pieces; the writer is left open."""
    writer = PackedWriter(
        folder, (5, 7), wide_labels=True, extras={"pose": Extra("<f4", (2,))}, counts=counts, shard_bytes=SHARD
    )
    for size in pieces:
        part = slice(start, start + size)
        names = [f"é {index}\n" for index in range(*part.indices(50))]
        masks = np.arange(50)[part, None, None] * np.ones((1, 5, 7), np.int64) * 600 - 1
        writer.append("train", FIFTY[part], masks, names=names, extras={"pose": POSES[part]})
        start += size
    return writer


def test_shards(tmp_path: Path) -> None:
    with pack_fifty(tmp_path, [3, 20, 1, 26]) as writer:
        manifest = writer.finish(**FIELDS)
    assert manifest.images_per_shard == 8
    assert max(path.stat().st_size for path in tmp_path.glob("*.image.*")) <= SHARD + 128
    assert len(list(tmp_path.glob("train.image.*.npy"))) == 7
    np.testing.assert_array_equal(np.load(tmp_path / "train.image.006.npy"), FIFTY[48:])
    dataset = PackedDataset(tmp_path, "train")
    chosen = [49, 0, 8, 7, -1, 16, 0]
    batch = dataset.batch(chosen)
    np.testing.assert_array_equal(batch["image"], FIFTY[chosen])
    np.testing.assert_array_equal(batch["pose"], POSES[chosen])
    np.testing.assert_array_equal(batch["mask"][:, 0, 0], np.arange(50)[chosen] * 600 - 1)
    assert batch["mask"].dtype == torch.int64
    assert dataset.names() == [f"é {index}\\n" for index in range(50)]
    with pytest.raises(IndexError):
        dataset[50]


def test_only_the_shards_that_are_read_are_opened(tmp_path: Path) -> None:
    with pack_fifty(tmp_path, [50]) as writer:
        writer.finish(**FIELDS)
    (tmp_path / "train.image.003.npy").unlink()
    dataset = PackedDataset(tmp_path, "train")
    dataset.batch(range(24))
    with pytest.raises(InputError, match=r"train\.image\.003\.npy"):
        dataset[24]


@pytest.mark.parametrize("kept", [1, 7, 8, 9, 16, 31, 49])
def test_a_writer_goes_on_from_its_counts(kept: int, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    with pack_fifty(tmp_path / "whole", [50]) as writer:
        whole = writer.finish(**FIELDS)
    (tmp_path / "cut").mkdir()
    with pack_fifty(tmp_path / "cut", [kept]) as writer:
        counts = writer.flush()
        writer.append(
            "train", FIFTY[kept:], np.zeros((50 - kept, 5, 7)), names=["x"] * (50 - kept), extras={"pose": POSES[kept:]}
        )
    (tmp_path / "cut/val.image.000.npy").touch()  # a split that was not there when it was flushed
    with pack_fifty(tmp_path / "cut", [50 - kept], counts=counts, start=kept) as writer:
        assert writer.finish(**FIELDS) == whole


@pytest.mark.parametrize("kept", [0, 9, 16, 49, 50])
def test_a_writer_goes_on_from_a_folder_that_was_finished(kept: int, tmp_path: Path) -> None:
    """As after a stop between the last image and the final name of the folder."""
    with pack_fifty(tmp_path, [kept]) as writer:
        counts = writer.flush()
        writer.append("test", FIFTY[:3], None, names=list("abc"), extras={"pose": POSES[:3]})
        assert ("3 images occur both in train and in test" in writer.finish(**FIELDS).notices) == (kept > 0)
    with pack_fifty(tmp_path, [50 - kept], counts=counts, start=kept) as writer:
        again = writer.finish(**FIELDS)
    (tmp_path / "whole").mkdir()
    with pack_fifty(tmp_path / "whole", [50]) as writer:
        assert again == writer.finish(**FIELDS)


def test_counts_that_the_folder_cannot_have(tmp_path: Path) -> None:
    with pack_fifty(tmp_path, [9]) as writer:
        writer.flush()
    with pytest.raises(InputError, match="shorter than its journal says"):
        pack_fifty(tmp_path, [], counts={"train": 17})


def test_extras_and_names_are_for_all_or_none(tmp_path: Path) -> None:
    with pack_fifty(tmp_path, [9]) as writer:
        masks = np.zeros((1, 5, 7), np.int64)
        with pytest.raises(ValueError, match="images without"):
            writer.append("train", FIFTY[:1], masks, extras={"pose": POSES[:1]})
        with pytest.raises(ValueError, match=r"extras \['pose'\] expected"):
            writer.append("train", FIFTY[:1], masks, names=["a"])
        with pytest.raises(ValueError, match="shape"):
            writer.append("train", FIFTY[:1], masks, names=["a"], extras={"pose": POSES[:1, :1]})
        with pytest.raises(InputError, match=r"-1 .ignore. to 32767"):
            writer.append("train", FIFTY[:1], masks + 40_000, names=["a"], extras={"pose": POSES[:1]})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    writer = PackedWriter(tmp_path, (64, 64))
    (tmp_path / "train.image.000.npy").symlink_to("/dev/full")
    with pytest.raises(InputError, match="cannot write the packed data: No space left"):
        writer.append("train", RNG.integers(0, 256, (100, 3, 64, 64), dtype=np.uint8), None)
