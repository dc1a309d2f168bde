"""CLEVRTEX: chunks, splits by index, both crops, palette masks, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data import prepare
from boqsa.data.mimic import Content
from boqsa.data.mimic.clevrtex import write_clevrtex_full, write_clevrtex_outd
from boqsa.data.packed import PackedDataset
from boqsa.data.readers import clevrtex
from boqsa.data.readers.source import Sample, Source
from boqsa.errors import InputError

PALETTE = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0]  # decoration: black, red, green, blue, yellow


def labels_of(index: int) -> np.ndarray:
    """Objects at both ends of the width, so that the crop cuts; wider than high."""
    labels = np.zeros((240, 320), np.uint8)
    labels[30:60, 0:70] = 1  # six columns of it inside the crop
    labels[100:140, 100 : 160 + index] = 3
    labels[200:216, 250:320] = 4
    labels[216:240, 0:320] = 2  # below the crop
    return labels


def write(root: Path, which: str = "full", count: int = 20) -> Path:
    """Ten images a chunk; image 3 has alpha; the other passes lie beside them."""
    draw = np.random.default_rng(0)
    for index in range(count):
        folder = root / f"clevrtex_{which}" / str(index // 10)
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"CLEVRTEX_{which}_{index:06d}"
        pixels = draw.integers(0, 256, (240, 320, 4 if index == 3 else 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{stem}.png", compress_level=0)
        flat = Image.fromarray(labels_of(index), mode="P")
        flat.putpalette(PALETTE)
        flat.save(folder / f"{stem}_flat.png")
        (folder / f"{stem}.json").write_text('{"objects": []}')
        (folder / f"{stem}_albedo.png").write_bytes(b"not read")
    return root


def samples(source: Source) -> list[Sample]:
    return [source.load(item) for item in source.items()]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("full"))


def test_splits_go_by_the_index(full: Path) -> None:
    source = clevrtex.read_full(full)
    items = list(source.items())
    assert [item.split for item in items] == ["test"] * 2 + ["val"] * 2 + ["train"] * 16
    assert [item.name for item in items][::10] == [f"clevrtex_full/{i}/CLEVRTEX_full_{i:05d}0.png" for i in (0, 1)]
    assert source.partial
    assert source.total == 20
    assert not source.leak
    assert source.options == {"crop": "192"}


def test_the_benchmark_crop(full: Path) -> None:
    source = clevrtex.read_full(full)
    item = list(source.items())[5]
    sample = source.load(item)
    rows = 24 + np.floor((np.arange(128) + 0.5) * 1.5).astype(int)
    columns = 64 + np.floor((np.arange(128) + 0.5) * 1.5).astype(int)
    np.testing.assert_array_equal(sample.mask, labels_of(5)[np.ix_(rows, columns)])
    assert set(np.unique(sample.mask)) == {0, 1, 3, 4}  # label 2 lies below the crop
    with Image.open(item.files[0]) as picture:
        expected = picture.crop((64, 24, 256, 216)).resize((128, 128), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample.image, np.asarray(expected))
    assert not sample.notices


def test_the_published_squash(full: Path) -> None:
    source = clevrtex.read_full(full, crop="none", image_size=(120, 160))
    item = list(source.items())[3]
    sample = source.load(item)
    np.testing.assert_array_equal(sample.mask, labels_of(3)[1::2, 1::2])
    assert sample.mask is not None
    assert sample.mask.max() == 4
    with Image.open(item.files[0]) as picture:
        expected = picture.convert("RGB").resize((160, 120), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample.image, np.asarray(expected))
    assert sample.notices == ("alpha dropped",)


def test_outd_is_one_test_set_and_variants_lie_side_by_side(tmp_path: Path) -> None:
    write(write(tmp_path, "outd", 5), "camo", 11)
    source = clevrtex.read_outd(tmp_path)
    assert [item.split for item in source.items()] == ["test"] * 5
    assert "one test set" in source.split_rule
    camo = clevrtex.read_camo(tmp_path, limit=1)
    assert [item.split for item in camo.items()] == ["test", "val", "train"]
    with pytest.raises(InputError, match="has no files CLEVRTEX_full_<six digits>"):
        clevrtex.read_full(tmp_path)


def test_one_folder_without_chunks_reached_through_a_link(full: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for path in full.rglob("*.png"):
        (tmp_path / "data" / path.name).symlink_to(path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "there").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "source")
    source = clevrtex.read_full(tmp_path / "source")
    assert source.total == 20
    np.testing.assert_array_equal(samples(source)[7].mask, samples(clevrtex.read_full(full))[7].mask)


def test_gaps_and_duplicates(tmp_path: Path) -> None:
    root = write(tmp_path, count=3)
    folder = root / "clevrtex_full" / "0"
    (root / "again").mkdir()
    (root / "again" / "CLEVRTEX_full_000001.png").touch()
    with pytest.raises(InputError, match="have the same index"):
        clevrtex.read_full(root)
    (root / "again" / "CLEVRTEX_full_000001.png").unlink()
    (folder / "CLEVRTEX_full_000001.png").unlink()
    with pytest.raises(InputError, match="up to index 2, but not 1; add"):
        clevrtex.read_full(root)
    with pytest.raises(InputError, match="does not exist"):
        clevrtex.read_full(root / "none")
    with pytest.raises(InputError, match="choose one of 192, none"):
        clevrtex.read_full(root, crop="centre")


def test_broken_samples(tmp_path: Path) -> None:
    root = write(tmp_path, count=6)
    paths = sorted((root / "clevrtex_full" / "0").glob("*_flat.png"))
    paths[0].unlink()
    Image.fromarray(labels_of(1)).convert("RGB").save(paths[1])
    Image.fromarray(labels_of(2)[:100], mode="P").save(paths[2])
    Image.fromarray(labels_of(3) + 8).save(paths[3])
    image = paths[4].with_name("CLEVRTEX_full_000004.png")
    Image.new("RGB", (240, 320)).save(image)
    Image.fromarray(labels_of(5)).save(paths[5])  # grey values are labels as well as indices are
    source = clevrtex.read_full(root)
    items = list(source.items())
    messages = [
        "000000_flat.png does not exist",
        "RGB pixels; a palette PNG",
        "100x320",
        "label 12",
        "320x240; CLEVRTEX",
    ]
    for item, message in zip(items[:5], messages, strict=True):
        with pytest.raises(InputError, match=message):
            source.load(item)
    assert source.load(items[5]).mask is not None
    manifest = prepare("clevrtex_full", root, tmp_path / "packed", skip_broken=5)
    assert len(manifest.skipped) == 5
    assert sum(manifest.counts.values()) == 1


def test_mutations_give_an_error_or_a_good_result(tmp_path: Path) -> None:
    root = write(tmp_path / "source", "outd", 2)
    paths = [path for path in sorted(root.rglob("*.png")) if "albedo" not in path.name]
    originals = {path: path.read_bytes() for path in paths}
    draw = np.random.default_rng(0)
    refused = 0
    for trial in range(30):
        path = paths[trial % len(paths)]
        content = bytearray(originals[path])
        if trial % 3 == 0:
            del content[int(draw.integers(0, len(content))) :]
        else:
            for place in draw.integers(0, min(len(content), 400), 3):
                content[place] = int(draw.integers(0, 256))
        path.write_bytes(content)
        try:
            prepare("clevrtex_outd", root, tmp_path / f"packed{trial}", image_size=(16, 16))
        except InputError:
            refused += 1
        else:
            masks = PackedDataset(tmp_path / f"packed{trial}", "test").batch([0, 1])["mask"]
            assert masks.max() <= 10
        path.write_bytes(originals[path])
    assert refused > 5


def test_mimicked(tmp_path: Path) -> None:
    content = Content(6, 0)
    manifest = prepare("clevrtex_full", write_clevrtex_full(tmp_path / "full", content), tmp_path / "a", crop="none")
    assert manifest.counts == {"train": 16, "val": 2, "test": 2}
    masks = PackedDataset(tmp_path / "a", "test").batch([0, 1])["mask"].numpy()
    rows = np.floor((np.arange(128) + 0.5) * 240 / 128).astype(int)
    columns = np.floor((np.arange(128) + 0.5) * 320 / 128).astype(int)
    for index in range(2):
        expected = content.scene(index, (240, 320))[1]
        assert (masks[index] != expected[np.ix_(rows, columns)]).mean() < 0.01  # Pillow rounds exact halves as it likes
        assert masks[index].max() > 0
    manifest = prepare("clevrtex_outd", write_clevrtex_outd(tmp_path / "outd", content), tmp_path / "b")
    assert manifest.counts == {"test": 20}
