"""Birds: boxes, grey masks, pieces that lie apart, three splits, and text files that are wrong."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data import PackedDataset, prepare
from boqsa.data.mimic.birds import write_birds
from boqsa.data.mimic.content import Content
from boqsa.data.readers import birds
from boqsa.data.readers.source import Item, Sample, Source
from boqsa.errors import InputError

Damage = Callable[[Path, np.random.Generator], None]

HEIGHT, WIDTH = 40, 60
BOXES = ((30.0, 10.0, 10.0, 8.0), (50.0, 2.0, 8.0, 12.0), (5.0, 5.0, 20.0, 30.0), (0.0, 0.0, 60.0, 40.0))
CODES = (0, 1, 2, 0)
NAMES = (
    "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
    "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg",
    "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg",
    "200.Common_Yellowthroat/Common_Yellowthroat_0055_190967.jpg",
)


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), dtype=np.uint8) for _ in NAMES]
    return [np.kron(picture, np.ones((10, 10, 1), np.uint8)) for picture in coarse]


def greys() -> np.ndarray:
    """A bird in the upper right, with levels on both sides of the threshold at its edge."""
    grey = np.zeros((HEIGHT, WIDTH), np.uint8)
    grey[4:20, 30:50] = 255
    grey[4:20, 50:52] = 128
    grey[4:20, 52:55] = 127
    return grey


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two archives unpacked in one folder, and the split file beside them."""
    root = tmp_path / "source"
    cub = root / "CUB_200_2011"
    for index, (name, picture) in enumerate(zip(NAMES, pictures(), strict=True)):
        image, mask = cub / "images" / name, (root / "segmentations" / name).with_suffix(".png")
        image.parent.mkdir(parents=True, exist_ok=True)
        mask.parent.mkdir(parents=True, exist_ok=True)
        stored = Image.fromarray(picture).convert("L") if index == 2 else Image.fromarray(picture)
        stored.save(image, quality=95)
        grey = greys()
        alpha = np.full_like(grey, 255)
        Image.fromarray(np.dstack([grey, grey, grey, alpha]) if index == 3 else grey).save(mask)
    lines = {
        "images.txt": [f"{number} {name}" for number, name in enumerate(NAMES, 1)],
        "bounding_boxes.txt": [f"{number} {' '.join(map(str, box))}" for number, box in enumerate(BOXES, 1)],
        "train_test_split.txt": [f"{number} {number % 2}" for number in range(1, 5)],
        "../train_val_test_split.txt": [f"{number} {code}" for number, code in enumerate(CODES, 1)],
    }
    for name, rows in lines.items():
        (cub / name).write_text("\n".join(rows) + "\n")
    (root / "attributes.txt").write_text("1 has_bill_shape::curved\n")  # the archive has it, nobody needs it
    return root


def loaded(opened: Source) -> list[tuple[Item, Sample]]:
    return [(item, opened.load(item)) for item in opened.items()]


def test_splits_names_and_options(source: Path) -> None:
    opened = birds.read(source)
    samples = loaded(opened)
    assert [(item.split, item.name) for item, _ in samples] == list(
        zip(("train", "val", "test", "train"), NAMES, strict=True)
    )
    assert {sample.image.shape for _, sample in samples} == {(128, 128, 3)}
    assert [np.unique(sample.mask).tolist() for _, sample in samples] == [[0, 1]] * 4
    assert opened.partial
    assert not opened.leak
    assert opened.options == {"crop": "box", "mask_resample": "pil-nearest", "split": "clean"}
    assert "ground-truth boxes, in test too" in opened.notices[0]
    assert pickle.loads(pickle.dumps(opened.load)).keywords == opened.load.keywords
    published = birds.read(source, split="published")
    assert list(published.items()) == list(opened.items())


def test_the_box_is_enlarged_and_clipped(source: Path) -> None:
    # Box 1: r = int(0.75 * 10) = 7, middle (35, 14): columns 28..42, rows 7..21.
    # Box 2: r = 9, middle (54, 8): columns 45..60 of 63, rows 0..17, so it is not square.
    opened = birds.read(source, image_size=(12, 16))
    for index, (left, top, right, bottom) in enumerate([(28, 7, 42, 21), (45, 0, 60, 17)]):
        item, sample = loaded(opened)[index]
        with Image.open(item.files[0]) as picture:
            expected = picture.crop((left, top, right, bottom)).resize((16, 12), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(sample.image, np.asarray(expected))
        mask = Image.fromarray((greys() > 127).astype(np.uint8)).crop((left, top, right, bottom))
        np.testing.assert_array_equal(sample.mask, np.asarray(mask.resize((16, 12), Image.Resampling.NEAREST)))


def test_fractions_of_a_box_are_cut_off() -> None:
    pixels = np.arange(40 * 60, dtype=np.int64).reshape(40, 60)
    row_and_column = birds.around_box(pixels, (30, 10, 11, 8))
    assert (row_and_column[0, 0], row_and_column.shape) == (6 * 60 + 27, (16, 16))  # r = 8, middle (35, 14)


def test_other_crops(source: Path) -> None:
    item, whole = loaded(birds.read(source, image_size=(HEIGHT, WIDTH), crop="none"))[0]
    np.testing.assert_array_equal(whole.image, np.asarray(Image.open(item.files[0])))
    np.testing.assert_array_equal(whole.mask, greys() > 127)
    assert np.unique(whole.mask[4]).tolist() == [0, 1]
    assert (whole.mask[5, 49], whole.mask[5, 51], whole.mask[5, 52]) == (1, 1, 0)  # 255, 128, 127
    opened = birds.read(source, image_size=(HEIGHT, HEIGHT), crop="centre")
    np.testing.assert_array_equal(loaded(opened)[0][1].mask, (greys() > 127)[:, 10:50])
    assert opened.notices == []


def test_grey_photographs_and_masks_with_alpha(source: Path) -> None:
    samples = [sample for _, sample in loaded(birds.read(source, image_size=(HEIGHT, WIDTH), crop="none"))]
    assert (samples[2].image[..., 0] == samples[2].image[..., 2]).all()
    assert (samples[0].image[..., 0] != samples[0].image[..., 2]).any()
    np.testing.assert_array_equal(samples[3].mask, samples[0].mask)


def test_published_masks_have_dots(source: Path) -> None:
    clean, published = (
        loaded(birds.read(source, image_size=(HEIGHT, WIDTH), crop="none", mask_resample=resample))[0][1].mask
        for resample in ("pil-nearest", "published")
    )
    with Image.open((source / "segmentations" / NAMES[0]).with_suffix(".png")) as mask:
        np.testing.assert_array_equal(published, np.asarray(mask.convert("1")))
    assert (clean[4:20, 50:55] == [1, 1, 0, 0, 0]).all()
    assert 20 < published[4:20, 50:55].sum() < 60
    assert (published[:, :50] == clean[:, :50]).all()


def test_official_split_holds_a_part_of_train_out(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(birds, "held_out_by_hash", lambda name: name == NAMES[2])
    (source / "train_val_test_split.txt").unlink()
    opened = birds.read(source, split="official")
    assert [item.split for item in opened.items()] == ["train", "test", "val", "test"]
    assert "5 % of train" in opened.split_rule


def test_everything_in_one_folder_or_far_apart(source: Path, tmp_path: Path) -> None:
    expected = [sample.mask for _, sample in loaded(birds.read(source))]
    for path in list((source / "CUB_200_2011").iterdir()):
        path.rename(source / path.name)
    np.testing.assert_array_equal([sample.mask for _, sample in loaded(birds.read(source))], expected)
    apart = tmp_path / "apart"
    (apart / "ReDO/datasets").mkdir(parents=True)
    (source / "train_val_test_split.txt").rename(apart / "ReDO/datasets/train_val_test_split.txt")
    shutil.move(source, apart / "birds")
    np.testing.assert_array_equal([sample.mask for _, sample in loaded(birds.read(apart))], expected)


@pytest.mark.usefixtures("safe_tar")
def test_archives(source: Path, tmp_path: Path) -> None:
    packed = tmp_path / "downloads"
    packed.mkdir()
    shutil.make_archive(str(packed / "CUB_200_2011"), "gztar", source, "CUB_200_2011")
    shutil.make_archive(str(packed / "segmentations"), "gztar", source, "segmentations")
    for path in packed.iterdir():
        path.rename(path.with_name(path.name.replace(".tar.gz", ".tgz")))
    shutil.copy(source / "train_val_test_split.txt", packed)
    manifest = prepare("birds", packed, tmp_path / "packed", image_size=(8, 8))
    assert manifest.counts == {"train": 2, "val": 1, "test": 1}


def test_a_missing_split_file_says_where_it_is_from(source: Path) -> None:
    (source / "train_val_test_split.txt").unlink()
    with pytest.raises(InputError, match=r"lies in the code of ReDO \(Chen.*--split official"):
        birds.read(source)


@pytest.mark.parametrize("file_name", ["images.txt", "bounding_boxes.txt"])
def test_missing_lists(file_name: str, source: Path) -> None:
    (source / "CUB_200_2011" / file_name).unlink()
    with pytest.raises(InputError, match=f"does not hold .*{file_name}"):
        birds.read(source)


@pytest.mark.parametrize(
    ("file_name", "line", "message"),
    [
        (
            "CUB_200_2011/images.txt",
            "4 ../../secret.jpg",
            "line 4: '4 ../../secret.jpg'; a new number, then a path below",
        ),
        ("CUB_200_2011/images.txt", "4 /etc/a.jpg", "a path below images/ expected"),
        ("CUB_200_2011/images.txt", "3 002/a.jpg", "line 4: '3 002/a.jpg'; a new number"),
        ("CUB_200_2011/images.txt", "x 002/a.jpg", "a new number"),
        ("CUB_200_2011/images.txt", "4", "a path below images/ expected"),
        ("CUB_200_2011/images.txt", "4 \udcff.jpg", "cannot read .*images.txt: 'utf-8' codec"),
        ("CUB_200_2011/bounding_boxes.txt", "4 1.0 2.0 3.0", "x, y, width and height expected"),
        ("CUB_200_2011/bounding_boxes.txt", "4 1.0 2.0 nan 5.0", "x, y, width and height expected"),
        ("CUB_200_2011/bounding_boxes.txt", "4 1.0 2.0 0.5 5.0", "x, y, width and height expected"),
        ("CUB_200_2011/bounding_boxes.txt", "4 1.0 2.0 1e300 5.0", "x, y, width and height expected"),
        ("CUB_200_2011/bounding_boxes.txt", "9 1.0 2.0 3.0 5.0", "images that bounding_boxes.txt has not: 4"),
        ("train_val_test_split.txt", "4 3", "0, 1 or 2 expected"),
        ("train_val_test_split.txt", "5 0", "images that train_val_test_split.txt has not: 4"),
    ],
)
def test_text_files_that_are_wrong(file_name: str, line: str, message: str, source: Path) -> None:
    path = source / file_name
    lines = path.read_text().splitlines()
    path.write_bytes("\n".join([*lines[:3], line]).encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message):
        birds.read(source)


def test_an_empty_and_a_huge_list(source: Path) -> None:
    path = source / "CUB_200_2011/images.txt"
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        birds.read(source)
    with open(path, "wb") as file:
        file.truncate(1 << 30)  # sparse
    with pytest.raises(InputError, match="larger than 64 MB"):
        birds.read(source)


def test_a_broken_pair_is_an_error_of_its_sample(source: Path, tmp_path: Path) -> None:
    masks = [(source / "segmentations" / name).with_suffix(".png") for name in NAMES]
    masks[0].unlink()
    Image.fromarray(greys()[:, 1:]).save(masks[1])
    path = source / "CUB_200_2011/bounding_boxes.txt"
    path.write_text(path.read_text().replace("3 5.0 5.0 ", "3 500.0 5.0 "))
    manifest = prepare("birds", source, tmp_path / "packed", skip_broken=3)
    assert manifest.counts == {"train": 1}
    missing, size, outside = manifest.skipped
    assert "Black_Footed_Albatross_0046_18.png does not exist" in missing
    assert "is 40x60, its mask" in size
    assert size.endswith("is 40x59; they must agree")
    assert outside.endswith("is 40x60; its box (left, top, width, height) (500, 5, 20, 30) lies outside")


def test_limit_and_unknown_words(source: Path) -> None:
    assert [item.name for item in birds.read(source, limit=1).items()] == [NAMES[0], NAMES[1], NAMES[2]]
    for option, message in (("crop", "box, none, centre"), ("mask_resample", "published"), ("split", "official")):
        with pytest.raises(InputError, match=f"{option} 'x' is unknown; choose one of .*{message}"):
            birds.read(source, **{option: "x"})


def test_orientation_is_told_and_not_applied(source: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = source / "CUB_200_2011/images" / NAMES[0]
    before = loaded(birds.read(source))[0][1].image
    Image.fromarray(pictures()[0]).save(path, quality=95, exif=exif)
    sample = loaded(birds.read(source))[0][1]
    np.testing.assert_array_equal(sample.image, before)
    assert sample.notices == ("EXIF orientation ignored, as the masks lie as stored",)


def test_mimic(tmp_path: Path) -> None:
    content = Content(count=24, seed=1)
    root = write_birds(tmp_path / "mimic", content)
    manifest = prepare("birds", root, tmp_path / "packed", crop="none", image_size=(60, 80))
    assert manifest.counts == {"train": 16, "val": 4, "test": 4}
    _, mask = content.scene(4, (120, 160))  # the first of val
    packed = PackedDataset(tmp_path / "packed", "val").batch([0])
    np.testing.assert_array_equal(packed["mask"][0], mask[1::2, 1::2] > 0)
    boxed = prepare("birds", root, tmp_path / "boxed", image_size=(60, 60))
    assert boxed.counts == manifest.counts
    official = birds.read(root, split="official")
    assert {item.split for item in official.items()} >= {"train", "test"}


def test_damage_ends_in_an_input_error_or_a_good_result(source: Path, tmp_path: Path, damage: Damage) -> None:
    names = [path.relative_to(source) for path in sorted(source.rglob("*.*")) if path.is_file()]
    refused = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        shutil.copytree(source, tmp_path / "bad", dirs_exist_ok=True)
        damage(tmp_path / "bad" / names[seed % len(names)], rng)
        try:
            manifest = prepare("birds", tmp_path / "bad", tmp_path / f"packed{seed}", image_size=(4, 4))
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
        else:
            assert sum(manifest.counts.values()) in (3, 4)
    assert 4 <= refused < 24
