"""ShapeStacks: crop, both mask grids, split files, missing maps and scenarios, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data import prepare
from boqsa.data.mimic import Content
from boqsa.data.mimic.shapestacks import write_shapestacks as mimic_shapestacks
from boqsa.data.packed import PackedDataset
from boqsa.data.readers import shapestacks
from boqsa.data.readers.source import Sample, Source
from boqsa.errors import InputError

Writer = Callable[[Path], Path]


def samples_of(source: Source) -> list[Sample]:
    return [source.load(item) for item in source.items()]


def maps(root: Path) -> list[Path]:
    return sorted(root.glob("recordings/*/*.map"))


def test_splits_and_sizes(tmp_path: Path, write_shapestacks: Writer) -> None:
    source = shapestacks.read(write_shapestacks(tmp_path))
    samples = samples_of(source)
    assert [item.split for item in source.items()] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert [item.name for item in source.items()][:2] == [
        f"env_blocks-easy-h=2-vcom=0-vpsf=0-v=1/rgb-w=3-f=0-l=4-c=unique-cam_{camera}-mono-0.png" for camera in (1, 12)
    ]
    assert source.options == {"crop": "196", "mask_resample": "pil-nearest", "variant": "default"}
    assert [int(sample.mask.max()) for sample in samples] == [2, 2, 3, 3, 4, 4]
    assert {sample.image.shape for sample in samples} == {(128, 128, 3)}
    assert source.partial
    assert not source.notices


@pytest.mark.parametrize(("grid", "half"), [("pil-nearest", 0.5), ("published", 0.0)])
def test_mask_takes_the_named_pixel_of_the_crop(
    grid: str, half: float, tmp_path: Path, write_shapestacks: Writer
) -> None:
    root = write_shapestacks(tmp_path)
    sample = samples_of(shapestacks.read(root, mask_resample=grid))[0]
    stored = np.asarray(Image.open(maps(root)[0]))[14:210, 14:210, 0] // 32
    rows = np.floor((np.arange(128) + half) * 196 / 128).astype(int)
    np.testing.assert_array_equal(sample.mask, stored[np.ix_(rows, rows)])


def test_image_is_the_crop_by_pillow_bilinear(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    sample = samples_of(shapestacks.read(root))[0]
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
    samples = samples_of(source)
    assert sum(bool((sample.mask == 255).all()) for sample in samples) == 1
    assert "1 images have no iseg map" in source.notices[0]


def test_maps_in_their_own_tree_and_a_split_without(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    expected = [sample.mask for sample in samples_of(shapestacks.read(root))]
    for path in maps(root):
        folder = root / "iseg" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    np.testing.assert_array_equal([sample.mask for sample in samples_of(shapestacks.read(root))], expected)
    for path in root.glob("iseg/*h=2*/*.map"):
        path.unlink()
    assert [sample.mask is None for sample in samples_of(shapestacks.read(root))] == [True] * 2 + [False] * 4


def test_missing_scenarios_are_counted(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    with (root / "splits/default/test.txt").open("a") as file:
        file.write("env_ccs-hard-h=6-vcom=0-vpsf=0-v=9\n\n")
    assert "1 scenarios of the split files have no recordings" in shapestacks.read(root).notices[0]


@pytest.mark.parametrize("line", ["a/../b", "x" * 5000])
def test_a_line_that_names_no_scenario(line: str, tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    (root / "splits/default/test.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"test\.txt has the line '.*'; the name of a scenario expected"):
        shapestacks.read(root)


def test_limit_counts_images_of_each_split(tmp_path: Path, write_shapestacks: Writer) -> None:
    assert shapestacks.read(write_shapestacks(tmp_path), limit=1).total == 3


def test_wrong_folders_and_names(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path / "stacks")
    with pytest.raises(InputError, match="it has default"):
        shapestacks.read(root, variant="blocks")
    with pytest.raises(InputError, match="does not hold recordings and splits"):
        shapestacks.read(root / "splits")
    with pytest.raises(InputError, match="does not exist"):
        shapestacks.read(tmp_path / "none")
    with pytest.raises(InputError, match="choose one of pil-nearest, published"):
        shapestacks.read(root, mask_resample="nearest")
    picture = next(root.glob("recordings/*h=2*/rgb*"))
    picture.write_bytes(picture.read_bytes()[:5000])
    with pytest.raises(InputError, match="broken image"):
        samples_of(shapestacks.read(root))


def test_rendered_fixture(shared: Path) -> None:
    source = shapestacks.read(shared / "shapestacks_layout")
    samples = samples_of(source)
    assert len(samples) == source.total == 56
    assert not source.notices
    assert all(sample.mask is not None and 1 <= sample.mask.max() <= 6 for sample in samples)


def test_uncropped(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    sample = samples_of(shapestacks.read(root, crop="none", image_size=(224, 224)))[0]
    np.testing.assert_array_equal(sample.mask, np.asarray(Image.open(maps(root)[0]))[..., 0] // 32)
    with pytest.raises(InputError, match="choose one of 196, none"):
        shapestacks.read(root, crop="centre")


def test_more_labels_than_the_stack_has_shapes(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path)
    codes = np.asarray(Image.open(maps(root)[0])).copy()
    codes[40:50, :, :3] = 160
    Image.fromarray(codes).save(maps(root)[0], format="PNG")
    notices = [sample.notices for sample in samples_of(shapestacks.read(root))]
    assert notices == [("more labels than the stack has shapes",)] + [()] * 5


def test_broken_files_stop_or_are_skipped(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path / "stacks")
    Image.new("RGB", (224, 200)).save(next(root.glob("recordings/*h=3*/rgb*")))
    Image.new("RGB", (200, 224)).save(maps(root)[0], format="PNG")
    with pytest.raises(InputError, match="is 224x200; ShapeStacks maps are 224x224"):
        prepare("shapestacks", root, tmp_path / "packed")
    manifest = prepare("shapestacks", root, tmp_path / "packed", skip_broken=2)
    assert manifest.counts == {"train": 1, "val": 1, "test": 2}
    assert "is 200x224; ShapeStacks images are 224x224" in manifest.skipped[1]


def test_mutations_give_an_error_or_a_good_result(tmp_path: Path, write_shapestacks: Writer) -> None:
    root = write_shapestacks(tmp_path / "stacks")
    paths = [next(root.glob("recordings/*h=2*/rgb*")), maps(root)[0], root / "splits/default/train.txt"]
    originals = {path: path.read_bytes() for path in paths}
    draw = np.random.default_rng(0)
    refused = 0
    for trial in range(30):
        path = paths[trial % 3]
        content = bytearray(originals[path])
        if trial % 2 == 0:
            del content[int(draw.integers(0, len(content))) :]
        else:
            for place in draw.integers(0, min(300, len(content)), 3):
                content[place] = int(draw.integers(0, 256))
        path.write_bytes(content)
        try:
            manifest = prepare("shapestacks", root, tmp_path / f"packed{trial}", image_size=(16, 16), limit=1)
        except InputError:
            refused += 1
        else:
            for split in manifest.counts:
                assert PackedDataset(tmp_path / f"packed{trial}", split)[0]["mask"].max() <= 7
        path.write_bytes(originals[path])
    assert 5 < refused < 30


def test_mimicked(tmp_path: Path) -> None:
    content = Content(10, 0)
    manifest = prepare("shapestacks", mimic_shapestacks(tmp_path / "stacks", content), tmp_path / "packed", crop="none")
    assert manifest.counts == {"train": 6, "val": 2, "test": 2}
    masks = PackedDataset(tmp_path / "packed", "test").batch([0, 1])["mask"].numpy()
    rows = np.floor((np.arange(128) + 0.5) * 224 / 128).astype(int)
    for mask, index in zip(masks, (4, 9), strict=True):
        np.testing.assert_array_equal(mask, content.scene(index, (224, 224))[1][np.ix_(rows, rows)])
        assert mask.any()
