"""ShapeStacks: crop, both mask grids, split files, missing maps and scenarios."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data.readers import shapestacks
from boqsa.errors import InputError

Writer = Callable[[Path], Path]


def maps(root: Path) -> list[Path]:
    return sorted(root.glob("recordings/*/*.map"))


def test_splits_and_sizes(tmp_path: Path, write_shapestacks: Writer) -> None:
    source = shapestacks.read(write_shapestacks(tmp_path))
    samples = list(source.samples)
    assert [sample.split for sample in samples] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert [int(sample.mask.max()) for sample in samples] == [2, 2, 3, 3, 4, 4]
    assert {sample.image.shape for sample in samples} == {(128, 128, 3)}
    assert source.partial
    assert not source.notices


@pytest.mark.parametrize(("grid", "half"), [("pil-nearest", 0.5), ("published", 0.0)])
def test_mask_takes_the_named_pixel_of_the_crop(
    grid: str, half: float, tmp_path: Path, write_shapestacks: Writer
) -> None:
    root = write_shapestacks(tmp_path)
    sample = next(shapestacks.read(root, mask_resample=grid).samples)
    stored = np.asarray(Image.open(maps(root)[0]))[14:210, 14:210, 0] // 32
    rows = np.floor((np.arange(128) + half) * 196 / 128).astype(int)
    np.testing.assert_array_equal(sample.mask, stored[np.ix_(rows, rows)])


def test_image_is_the_crop_by_pillow_bilinear(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    sample = next(shapestacks.read(root).samples)
    with Image.open(sorted(root.glob("recordings/*h=2*/rgb*"))[0]) as picture:
        expected = picture.crop((14, 14, 210, 210)).resize((128, 128), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample.image, np.asarray(expected))


def test_codes_may_be_off_by_one(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    clean = shapestacks.decode_map(maps(root)[0])
    codes = np.asarray(Image.open(maps(root)[0])).copy()
    codes[..., :3] += 1
    Image.fromarray(codes).save(maps(root)[0], format="PNG")
    np.testing.assert_array_equal(shapestacks.decode_map(maps(root)[0]), clean)
    codes[..., :3] += 5
    Image.fromarray(codes).save(maps(root)[0], format="PNG")
    with pytest.raises(InputError, match="not an iseg map"):
        shapestacks.decode_map(maps(root)[0])


def test_a_missing_map_is_ignored_and_named(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    maps(root)[0].unlink()
    source = shapestacks.read(root)
    samples = list(source.samples)
    assert sum(bool((sample.mask == 255).all()) for sample in samples) == 1
    assert "1 images have no iseg map" in source.notices[0]


def test_maps_in_their_own_tree_and_a_split_without(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    expected = [sample.mask for sample in shapestacks.read(root).samples]
    for path in maps(root):
        folder = root / "iseg" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    np.testing.assert_array_equal([sample.mask for sample in shapestacks.read(root).samples], expected)
    for path in root.glob("iseg/*h=2*/*.map"):
        path.unlink()
    assert [sample.mask is None for sample in shapestacks.read(root).samples] == [True] * 2 + [False] * 4


def test_missing_scenarios_are_counted(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    with (root / "splits/default/test.txt").open("a") as file:
        file.write("env_ccs-hard-h=6-vcom=0-vpsf=0-v=9\n\n")
    assert "1 scenarios of the split files have no recordings" in shapestacks.read(root).notices[0]


def test_limit_counts_images_of_each_split(tmp_path: Path, write_shapestacks: Writer) -> None:
    assert len(list(shapestacks.read(write_shapestacks(tmp_path), limit=1).samples)) == 3


def test_wrong_folders_and_names(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path / "stacks")
    with pytest.raises(InputError, match="it has default"):
        shapestacks.read(root, split="blocks")
    with pytest.raises(InputError, match="no folder 'recordings'"):
        shapestacks.read(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        shapestacks.read(tmp_path / "none")
    with pytest.raises(InputError, match="choose one of pil-nearest, published"):
        shapestacks.read(root, mask_resample="nearest")
    picture = next(root.glob("recordings/*h=2*/rgb*"))
    picture.write_bytes(picture.read_bytes()[:5000])
    with pytest.raises(InputError, match="broken image"):
        list(shapestacks.read(root).samples)


def test_rendered_fixture(shared: Path) -> None:
    source = shapestacks.read(shared / "shapestacks_layout")
    samples = list(source.samples)
    assert len(samples) == source.total == 56
    assert not source.notices
    assert all(sample.mask is not None and 1 <= sample.mask.max() <= 6 for sample in samples)
