"""Features computed once and packed: the encoder's own, beside what was there; continued to the same bytes."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boqsa.data import Manifest, PackedDataset, check, packing
from boqsa.data.packing import write_packed
from boqsa.data.preparing import workplace_of
from boqsa.errors import InputError
from boqsa.inference import features as features_module
from boqsa.inference import load_encoder
from boqsa.inference.features import seen_size, write_features
from boqsa.models import PretrainedViT


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 train images with masks, 7 test images without."""
    rng = np.random.default_rng(0)
    images = {split: rng.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8) for split, count in COUNTS.items()}
    masks = rng.integers(0, 3, (30, 16, 16), dtype=np.uint8)
    masks[:, 0] = 255  # ignore
    folder = tmp_path_factory.mktemp("features") / "packed"
    splits = {"train": (images["train"], masks), "test": (images["test"], None)}
    described = {"source": "drawn", "licence": "none", "task": "multi-object", "split_rule": "drawn"}
    write_packed(folder, splits, name="arrays", options={"limit": None}, **described)
    return folder


COUNTS = {"train": 30, "test": 7}


@pytest.fixture
def encoder(encoder_folder: Path) -> PretrainedViT:
    return load_encoder(encoder_folder)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_that_was_there_and_the_features(packed: Path, encoder: PretrainedViT, tmp_path: Path) -> None:
    done: list[tuple[str, int, int]] = []
    manifest = write_features(packed, encoder, tmp_path / "out", progress=lambda *told: done.append(told))
    assert manifest == Manifest.load(tmp_path / "out")
    assert (manifest.counts, manifest.extras, manifest.name) == (COUNTS, ("features",), "arrays")
    assert done == [("encoding", 16, 37), ("encoding", 30, 37), ("encoding", 37, 37)]
    for split in COUNTS:
        before, after = PackedDataset(packed, split), PackedDataset(tmp_path / "out", split)
        one, other = before.batch(range(len(before))), after.batch(range(len(after)))
        assert after.has_masks == before.has_masks
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert other["features"].dtype == torch.float16
        torch.testing.assert_close(other["features"].float(), encoder(one["image"]), atol=1e-2, rtol=1e-3)
    assert manifest.options == {
        "limit": None,
        "encoder": encoder.name,
        "encoder_sha256": encoder.sha256,
        "encoder_patch_size": 4,
        "encoder_feature_size": 16,
    }
    assert check(tmp_path / "out").ok
    assert not workplace_of(tmp_path / "out").exists()


def test_the_encoder_may_see_the_images_at_another_size(packed: Path, encoder: PretrainedViT, tmp_path: Path) -> None:
    manifest = write_features(packed, encoder, tmp_path / "out", image_size=8)
    assert (manifest.image_size, manifest.options["encoder_image_size"]) == ((16, 16), 8)
    assert seen_size(manifest) == (8, 8)
    assert seen_size(Manifest.load(packed)) == (16, 16), "no word of it: their own"
    before, after = PackedDataset(packed, "train").batch(range(30)), PackedDataset(tmp_path / "out", "train")
    found = after.batch(range(30))
    assert all(torch.equal(before[name], found[name]) for name in ("image", "mask"))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in before["image"]]
    small = np.stack([np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR)) for picture in pictures])
    expected = encoder(torch.from_numpy(small).permute(0, 3, 1, 2))  # (30, 4, 16)
    torch.testing.assert_close(found["features"].float(), expected, atol=1e-2, rtol=1e-3)
    assert check(tmp_path / "out").ok
    # Their own size, said or not, is the same set.
    assert write_features(packed, encoder, tmp_path / "said", image_size=16) == write_features(
        packed, encoder, tmp_path / "not"
    )


def test_names_and_wide_labels_and_other_extras_stay(encoder: PretrainedViT, tmp_path: Path) -> None:
    from boqsa.data.packing import Extra, PackedWriter

    described = {"source": "drawn", "licence": "none", "task": "multi-object", "split_rule": "drawn"}
    (tmp_path / "packed").mkdir()
    masks = np.full((2, 16, 16), 700, np.int16)
    masks[0, 0] = -1
    with PackedWriter(tmp_path / "packed", (16, 16), wide_labels=True, extras={"scene": Extra("<i4", ())}) as writer:
        images, scenes = np.zeros((2, 3, 16, 16), np.uint8), np.array([4, 9], np.int32)
        writer.append("train", images, masks, names=["a", "b"], extras={"scene": scenes})
        writer.finish(name="arrays", **described)
    write_features(tmp_path / "packed", encoder, tmp_path / "out")
    data = PackedDataset(tmp_path / "out", "train")
    assert data.names() == ["a", "b"]
    assert data.extra("scene").tolist() == [4, 9]
    assert data.wide_labels
    assert torch.equal(data.batch([0, 1])["mask"], torch.from_numpy(masks).long())


def test_only_the_columns_asked_for_are_read(packed: Path, encoder: PretrainedViT, tmp_path: Path) -> None:
    write_features(packed, encoder, tmp_path / "out")
    data = PackedDataset(tmp_path / "out", "train")
    read: list[str] = []
    real = data._gather
    data._gather = lambda column, chosen: read.append(column) or real(column, chosen)  # type: ignore[method-assign]
    assert list(data.batch([3, 1], columns=["features"])) == ["features"]
    assert read == ["features"]
    assert data.column_bytes("features") == 30 * 16 * 16 * 2
    assert data.column_bytes("image") == 30 * 3 * 16 * 16


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", [1, 5, 9])
def test_continued_to_the_same_bytes(
    after: int, packed: Path, encoder: PretrainedViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_features(packed, encoder, tmp_path / "whole", batch_size=4)
    real, calls = features_module._append, []

    def dying(*arguments: Any) -> None:
        if len(calls) == after:
            raise Killed
        calls.append(1)
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(features_module, "_append", dying)
        with pytest.raises(Killed):
            write_features(packed, encoder, tmp_path / "broken", batch_size=4)
    assert not (tmp_path / "broken").exists()
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(features_module, "_append", lambda *given: (calls.append(1), real(*given)))
        write_features(packed, encoder, tmp_path / "broken", batch_size=4)
    assert len(calls) == 10 - after, "30 and 7 images are 8 and 2 batches of 4"
    assert files(tmp_path / "whole") == files(tmp_path / "broken")
    assert not workplace_of(tmp_path / "broken").exists()


@pytest.mark.parametrize("at", ["hashing", "fsync", "replace"])
def test_a_stop_after_the_last_image_loses_nothing(
    at: str, packed: Path, encoder: PretrainedViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise Killed

    write_features(packed, encoder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(features_module, "_SECONDS_BETWEEN_JOURNALS", 0.0)
        if at == "hashing":
            patch.setattr(packing.hashlib, "file_digest", die)
        else:
            real = features_module.move_into_place
            patch.setattr(features_module, "move_into_place", lambda *given: (patch.setattr(os, at, die), real(*given)))
        with pytest.raises(Killed):
            write_features(packed, encoder, tmp_path / "cut")
    encoded: list[tuple[str, int, int]] = []
    write_features(packed, encoder, tmp_path / "cut", progress=lambda *told: encoded.append(told))
    assert not encoded, "all images were done"
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_what_another_encoder_began_is_begun_anew(packed: Path, encoder: PretrainedViT, tmp_path: Path) -> None:
    place = workplace_of(tmp_path / "out")
    (place / "packed").mkdir(parents=True)
    (place / "packed" / "stray.npy").write_bytes(b"old")
    asked = {"source": Manifest.load(packed).fingerprint, "batch_size": 16, "encoder_sha256": "another"}
    (place / "journal.json").write_text(json.dumps({"asked": asked, "counts": {"train": 16}}))
    manifest = write_features(packed, encoder, tmp_path / "out")
    assert manifest.counts == COUNTS
    assert check(tmp_path / "out").ok


def test_refusals(packed: Path, encoder: PretrainedViT, make_encoder: Callable[..., Path], tmp_path: Path) -> None:
    write_features(packed, encoder, tmp_path / "out")
    with pytest.raises(InputError, match=r"has features already, of .*vit; name the set without"):
        write_features(tmp_path / "out", encoder, tmp_path / "again")
    with pytest.raises(InputError, match="is not empty"):
        write_features(packed, encoder, tmp_path / "out")
    coarse = load_encoder(make_encoder(patch_size=5, image_size=15))
    with pytest.raises(InputError, match=r"holds 16x16 images, no whole number of patches of 5 pixels; .* --size 15"):
        write_features(packed, coarse, tmp_path / "coarse")
    with pytest.raises(InputError, match=r"image_size is 9, no whole number of patches of 4 pixels; .* --size 8"):
        write_features(packed, encoder, tmp_path / "coarse", image_size=9)
    for size in (0, 4097):
        with pytest.raises(InputError, match=f"image_size is {size}; it must be from 1 to 4096"):
            write_features(packed, encoder, tmp_path / "coarse", image_size=size)
    with pytest.raises(InputError, match=r"images of 1024x1024 are 65536 patches of 4 pixels; at most 16384 .* --size"):
        write_features(packed, encoder, tmp_path / "coarse", image_size=1024)
    with pytest.raises(InputError, match=r"device 'abacus' cannot be used .*; pass cpu, or cuda"):
        write_features(packed, encoder, tmp_path / "none", device="abacus")
    with pytest.raises(InputError, match="batch_size is 0"):
        write_features(packed, encoder, tmp_path / "none", batch_size=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_numbers_beyond_16_bits_are_refused(packed: Path, encoder: PretrainedViT, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in encoder._last_block.parameters():
            parameter.mul_(1e5)
    with pytest.raises(InputError, match="that are no numbers in 16 bits"):
        write_features(packed, encoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_set_may_move(packed: Path, encoder: PretrainedViT, tmp_path: Path) -> None:
    first = write_features(packed, encoder, tmp_path / "out")
    moved = Path(shutil.copytree(packed, tmp_path / "moved"))
    assert write_features(moved, encoder, tmp_path / "out2").fingerprint == first.fingerprint
