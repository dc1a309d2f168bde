"""A folder of images: layouts, pairing, conversions and everything that must not pass in silence."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data import check, prepare
from boqsa.data.mimic.content import Content
from boqsa.data.mimic.folder import write_folder
from boqsa.data.packed import PackedDataset
from boqsa.data.readers import folder
from boqsa.data.readers.source import Item, Sample, Source
from boqsa.errors import InputError

Damage = Callable[[Path, np.random.Generator], None]


def picture(path: Path, size: tuple[int, int] = (40, 30), mode: str = "RGB", seed: int = 0, **save: object) -> Path:
    """Save noise of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    Image.fromarray(pixels, mode="CMYK" if mode == "CMYK" else None).save(path, **save)
    return path


def label_map(path: Path, labels: np.ndarray, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if mode == "P":
        image.putpalette(np.random.default_rng(0).bytes(768))
    image.save(path)
    return path


def corner(label: int, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    labels = np.zeros((size[1], size[0]), np.uint8)
    labels[:10, 8:20] = label
    return labels


def loaded(source: Source) -> list[tuple[Item, Sample]]:
    return [(item, source.load(item)) for item in source.items()]


def first(source: Source) -> Sample:
    return source.load(next(iter(source.items())))


def test_nested_sorted_hidden_and_suffixes(tmp_path: Path) -> None:
    for name in ("b/x.PNG", "a/y.jpg", "a/z.webp", "B.bmp", ".hidden.png", ".cache/q.png", "a/readme.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            picture(tmp_path / name)
    samples = loaded(folder.read(tmp_path))
    assert [item.name for item, _ in samples] == ["B.bmp", "a/y.jpg", "a/z.webp", "b/x.PNG"]
    assert {sample.image.shape for _, sample in samples} == {(128, 128, 3)}
    assert all(sample.mask is None for _, sample in samples)


def test_crop_and_squeeze(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    with Image.open(path) as image:
        cropped = image.crop((5, 0, 35, 30)).resize((16, 12), Image.Resampling.BILINEAR)
        squeezed = image.resize((16, 12), Image.Resampling.BILINEAR)
    for crop, expected in (("centre", cropped), ("none", squeezed)):
        sample = first(folder.read(tmp_path, image_size=(12, 16), crop=crop))
        np.testing.assert_array_equal(sample.image, np.asarray(expected))


def test_hash_split_is_stable_when_images_are_added(tmp_path: Path) -> None:
    for index in range(60):
        picture(tmp_path / f"{index}.png", size=(4, 4))
    before = {item.name: item.split for item in folder.read(tmp_path).items()}
    for index in range(60, 80):
        picture(tmp_path / f"{index}.png", size=(4, 4))
    after = {item.name: item.split for item in folder.read(tmp_path).items()}
    assert before.items() <= after.items()
    shares = [list(after.values()).count(split) / 80 for split in ("train", "val", "test")]
    assert 0.65 < shares[0] < 0.95
    assert min(shares) > 0


@pytest.mark.parametrize("layout", ["images/{split}/{name}", "{split}/images/{name}", "{split}/{name}"])
def test_split_folders_and_their_masks(layout: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        image = tmp_path / layout.format(split=split, name="a.jpg")
        picture(image)
        mask = str(image.with_suffix(".png")).replace("images", "masks")
        label_map(Path(mask if "masks" in mask else tmp_path / "masks" / split / "a.png"), corner(3))
    source = folder.read(tmp_path, image_size=(30, 30))
    samples = loaded(source)
    assert [item.split for item, _ in samples] == ["train", "test"]
    np.testing.assert_array_equal(samples[0][1].mask, corner(3)[:, 5:35])
    assert source.split_rule == "the folders train, val and test"


def test_images_beside_split_folders_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.png")
    picture(tmp_path / "extra/b.png")
    with pytest.raises(InputError, match=r"outside of train.*b\.png"):
        folder.read(tmp_path)


def test_named_masks_inside_the_source_are_not_images(tmp_path: Path) -> None:
    picture(tmp_path / "sub/a.jpg")
    label_map(tmp_path / "labels/sub/a.png", corner(2), mode="P")
    for masks in (tmp_path / "labels", "labels"):
        source = folder.read(tmp_path, masks=masks, image_size=(30, 30))
        samples = loaded(source)
        assert [item.name for item, _ in samples] == ["sub/a.jpg"]
        assert np.unique(samples[0][1].mask).tolist() == [0, 2]
        assert source.task == "multi-object"


def test_black_and_white_masks_are_foreground_but_255_among_labels_is_ignore(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/b.png")
    label_map(tmp_path / "masks/a.png", corner(255))
    label_map(tmp_path / "masks/b.png", corner(0))
    source = folder.read(tmp_path)
    assert np.unique(first(source).mask).tolist() == [0, 1]
    assert source.task == "foreground"
    assert "255 was read as foreground" in source.notices[0]
    label_map(tmp_path / "masks/b.png", corner(4))
    source = folder.read(tmp_path)
    assert np.unique(first(source).mask).tolist() == [0, 255]
    assert source.task == "multi-object"


def test_one_bit_masks_are_foreground(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(corner(1) > 0).save(tmp_path / "masks/a.png")
    source = folder.read(tmp_path)
    assert np.unique(first(source).mask).tolist() == [0, 1]
    assert source.task == "foreground"


def test_colours_become_labels_by_frequency(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[:5, 5:35] = (0, 0, 255)
    colours[5:20, 5:35] = (255, 0, 0)
    label_map(tmp_path / "masks/a.png", colours)
    mask = first(folder.read(tmp_path, image_size=(30, 30))).mask
    assert (mask[0, 0], mask[10, 0], mask[29, 0]) == (2, 1, 0)


def test_jpeg_masks_need_a_threshold(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    label_map(tmp_path / "masks/a.jpg", corner(255))
    with pytest.raises(InputError, match=r"JPEG.*--mask-threshold"):
        folder.read(tmp_path)
    source = folder.read(tmp_path, mask_threshold=127)
    assert np.unique(first(source).mask).tolist() == [0, 1]


def test_conversions_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "alpha.png", mode="RGBA")
    picture(tmp_path / "print.jpg", mode="CMYK")
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(deep).save(tmp_path / "deep.png")
    samples = {item.name: sample for item, sample in loaded(folder.read(tmp_path, image_size=(64, 64)))}
    assert {name: sample.notices for name, sample in samples.items()} == {
        "alpha.png": ("alpha dropped",),
        "deep.png": ("16 bits reduced to 8",),
        "print.jpg": ("CMYK converted to RGB",),
    }
    np.testing.assert_array_equal(samples["deep.png"].image[..., 1], deep >> 8)


def test_exif_orientation_turns_the_image_and_refuses_a_mask_that_lies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "images/a.jpg", exif=exif)
    label_map(tmp_path / "masks/a.png", corner(1, size=(30, 40)))
    sample = first(folder.read(tmp_path, image_size=(30, 30)))
    assert sample.mask.shape == (30, 30)
    assert "look whether its mask fits" in sample.notices[1]
    label_map(tmp_path / "masks/a.png", corner(1, size=(40, 30)))
    with pytest.raises(InputError, match="40x30 once its EXIF orientation is applied"):
        first(folder.read(tmp_path))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif", "ppm"])
def test_broken_images_are_listed_and_may_be_skipped(suffix: str, tmp_path: Path) -> None:
    root = tmp_path / "source"
    good = picture(root / "good.png")
    broken = picture(root / f"cut.{suffix}", size=(200, 200))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    (root / "text.png").write_text("no image")
    with pytest.raises(InputError, match=rf"cut\.{suffix} is a broken image.*--skip-broken"):
        prepare("folder", root, tmp_path / "packed")
    manifest = prepare("folder", root, tmp_path / "packed", skip_broken=2, workers=1)
    assert [Path(skipped.split(" is ")[0]).name for skipped in manifest.skipped] == [broken.name, "text.png"]
    (split,) = manifest.counts
    assert PackedDataset(tmp_path / "packed", split).names() == [good.name]


def test_broken_masks_are_told_together(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"images/{name}.png")
        label_map(tmp_path / f"masks/{name}.png", corner(2))
    for name in "bc":
        (tmp_path / f"masks/{name}.png").write_text("no mask")
    source = folder.read(tmp_path)
    items = list(source.items())
    assert source.load(items[0]).mask is not None
    with pytest.raises(
        InputError, match=r"2 masks cannot be read: .*b\.png is not an image.*, .*c\.png is not an image"
    ):
        source.load(items[1])
    with pytest.raises(InputError, match=r"c\.png is not an image"):
        source.load(items[2])
    (tmp_path / "masks/a.png").write_text("no mask")
    with pytest.raises(InputError, match=r"none of the masks can be read: .*a\.png"):
        folder.read(tmp_path)


def test_only_some_splits_have_masks(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / f"images/{split}/a.png")
    label_map(tmp_path / "masks/val/a.png", corner(1))
    masks = {item.split: sample.mask is not None for item, sample in loaded(folder.read(tmp_path))}
    assert masks == {"train": False, "val": True}


def test_limit_is_of_each_split_and_bounds_the_survey(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in "ab":
            picture(tmp_path / f"images/{split}/{name}.png")
            label_map(tmp_path / f"masks/{split}/{name}.png", corner(1))
    (tmp_path / "masks/val/b.png").write_text("no mask")
    seen: list[tuple[str, int, int]] = []
    source = folder.read(tmp_path, limit=1, progress=lambda *told: seen.append(told))
    assert [item.name for item in source.items()] == ["images/train/a.png", "images/val/a.png"]
    assert source.partial
    assert source.total == 2
    assert seen == [("surveying", 1, 2), ("surveying", 2, 2)]
    assert [sample.mask is None for _, sample in loaded(source)] == [False, False]


def test_a_folder_that_an_archive_wrapped_around_and_links(tmp_path: Path) -> None:
    picture(tmp_path / "up/data/images/a.png")
    label_map(tmp_path / "up/data/masks/a.png", corner(3))
    (tmp_path / "up/__MACOSX").mkdir()
    (tmp_path / "up/data/images/round").symlink_to(tmp_path / "up/data/images")
    picture(tmp_path / "elsewhere/b.png")
    label_map(tmp_path / "up/data/masks/more/b.png", corner(3))
    (tmp_path / "up/data/images/more").symlink_to(tmp_path / "elsewhere")
    source = folder.read(tmp_path / "up")
    assert [item.name for item in source.items()] == ["images/a.png", "images/more/b.png"]
    assert source.options["masks"] == "masks"
    assert all(sample.mask.max() == 3 for _, sample in loaded(source))


def test_a_folder_goes_by_its_own_name_rather_than_a_link_s(tmp_path: Path) -> None:
    picture(tmp_path / "in/z/sub/a.png")
    (tmp_path / "in/deep").mkdir()
    (tmp_path / "in/deep/link").symlink_to(tmp_path / "in/z")
    (tmp_path / "in/latest").symlink_to(tmp_path / "in/z/sub")
    assert [item.name for item in folder.read(tmp_path / "in").items()] == ["z/sub/a.png"]


def test_pictures_in_formats_that_are_not_read_are_told(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        for name in ("a.heic", "b.HEIC", "c.avif", "notes.txt", ".hidden.heic"):
            (root / split / name).write_text("no image that is read")
    with pytest.raises(InputError, match=r"has no images .*; convert .* other formats to JPEG: 2 \.heic, 1 \.avif\.$"):
        folder.read(root)
    for split in ("train", "val"):
        for suffix in ("jpg", "gif", "tif", "ppm"):
            picture(root / split / f"d.{suffix}")
    source = folder.read(root)
    assert source.total == 8
    assert source.notices == ["6 pictures left out, in formats that are not read: 4 .heic, 2 .avif; convert to JPEG"]


def voc(root: Path) -> Path:
    """Two splits in the layout of PASCAL VOC: palette pictures of objects and of classes, 255 around them."""
    for split in ("train", "val"):
        picture(root / f"images/{split}/a.jpg")
    objects, classes = np.zeros((2, 30, 40), np.uint8)
    objects[2:12, 8:20], classes[2:12, 8:20] = 1, 15
    objects[14:20, 8:20], classes[14:20, 8:20] = 2, 15
    objects[22:28, 8:20], classes[22:28, 8:20] = 3, 7
    classes[22:24, 8:20] = 15  # a third of it
    objects[0, :], classes[0, :] = 255, 255
    objects[29, 10:30] = 5  # and the classes know nothing of it
    label_map(root / "masks/val/a.png", objects, mode="P")
    label_map(root / "SegmentationClass/val/a.png", classes, mode="P")
    return root


@pytest.mark.parametrize("named", ["name", "path"])
def test_classes_are_those_of_the_objects_pixels(named: str, tmp_path: Path) -> None:
    root = voc(tmp_path)
    classes = "SegmentationClass" if named == "name" else root / "SegmentationClass"
    source = folder.read(root, image_size=(30, 30), classes=classes)
    assert source.options["classes"] == str(classes)
    (_, bare), (_, sample) = loaded(source)
    assert bare.mask is None
    assert bare.extras["classes"].tolist() == [-1] * 6
    assert sample.extras["classes"].tolist() == [-1, 15, 15, 7, -1, -1]
    assert sample.extras["classes"].dtype == np.int32
    assert sample.notices == (
        "objects without a class, left out of scores of classes",
        "objects of several classes, given that of most of their pixels",
    )
    manifest = prepare("folder", root, tmp_path / "packed", classes=classes, image_size=(30, 30))
    assert manifest.extras == ("classes",)
    assert check(tmp_path / "packed").splits["val"].classes == {-1: 1, 7: 1, 15: 2}
    # Without the option, the set is what it was before there were classes.
    plain = folder.read(root, image_size=(30, 30))
    assert not plain.extras
    assert "classes" not in plain.options
    assert [sample.extras for _, sample in loaded(plain)] == [{}, {}]


def test_classes_lie_beside_the_images_of_one_split_or_among_all(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    label_map(tmp_path / "masks/a.png", corner(2))
    label_map(tmp_path / "kinds/a.png", corner(9))
    source = folder.read(tmp_path, classes="kinds")
    assert [item.name for item in source.items()] == ["a.png"], "class pictures are no images"
    assert first(source).extras["classes"].tolist() == [-1, -1, 9]
    shutil.rmtree(tmp_path / "masks")
    for kind in ("images", "masks", "kinds"):
        (tmp_path / "again/val" / kind).mkdir(parents=True)
    picture(tmp_path / "again/val/images/a.png")
    label_map(tmp_path / "again/val/masks/a.png", corner(1))
    label_map(tmp_path / "again/val/kinds/a.png", corner(4))
    assert first(folder.read(tmp_path / "again", classes="kinds")).extras["classes"].tolist() == [-1, 4]


def test_mistakes_with_classes(tmp_path: Path) -> None:
    root = voc(tmp_path)
    with pytest.raises(InputError, match="the class picture folder none does not exist"):
        folder.read(root, classes="none")
    label_map(root / "SegmentationClass/val/b.png", corner(1))
    picture(root / "images/val/b.jpg")
    label_map(root / "masks/val/b.png", corner(1))
    (root / "SegmentationClass/val/a.png").rename(root / "SegmentationClass/val/c.png")
    with pytest.raises(InputError, match=r"a\.jpg has no class picture, though others have one"):
        loaded(folder.read(root, classes="SegmentationClass"))
    (root / "SegmentationClass/val/b.png").unlink()
    with pytest.raises(InputError, match=r"no class picture of .* pairs with a mask of .*: the first one is 'c'"):
        folder.read(root, classes="SegmentationClass")
    picture(root / "SegmentationClass/val/a.png")
    with pytest.raises(InputError, match=r"a\.png has colours; a palette index or a grey value for each class"):
        loaded(folder.read(root, classes="SegmentationClass"))
    label_map(root / "SegmentationClass/val/a.png", corner(1, size=(30, 30)))
    with pytest.raises(InputError, match=r"a\.jpg is 30x40, its class picture .*Class/val/a\.png is 30x30"):
        loaded(folder.read(root, classes="SegmentationClass"))
    shutil.rmtree(root / "masks")
    with pytest.raises(InputError, match="has no masks, whose objects --classes SegmentationClass could tell"):
        folder.read(root, classes="SegmentationClass")


def test_classes_that_would_be_lost_in_silence_are_told(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / f"images/{split}/a.png")
        label_map(tmp_path / f"masks/{split}/a.png", corner(2))
    label_map(tmp_path / "classes/val/a.png", corner(3))
    with pytest.raises(InputError, match=r"train has masks and no class pictures, which other splits have"):
        folder.read(tmp_path, classes="classes")
    label_map(tmp_path / "classes/train/a.png", corner(3))
    assert folder.read(tmp_path, classes="classes").notices == []
    label_map(tmp_path / "classes/train/none.png", corner(3))
    assert folder.read(tmp_path, classes="classes").notices == ["1 class pictures have no image with a mask: none"]
    for split in ("train", "val"):
        label_map(tmp_path / f"masks/{split}/a.png", corner(1))
    assert "these have one label, foreground" in folder.read(tmp_path, classes="classes").notices[-1]


def test_a_broken_mask_with_classes_is_told_as_without(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"images/{name}.png")
        label_map(tmp_path / f"masks/{name}.png", corner(1))
        label_map(tmp_path / f"classes/{name}.png", corner(3))
    (tmp_path / "masks/b.png").write_text("no mask")
    source = folder.read(tmp_path, classes="classes")
    items = list(source.items())
    assert source.load(items[0]).extras["classes"].tolist() == [-1, 3]
    with pytest.raises(InputError, match=r"masks/b\.png is not an image"):
        source.load(items[1])


def test_pairing_mistakes(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/b.png")
    label_map(tmp_path / "masks/a_mask.png", corner(1))
    with pytest.raises(InputError, match="first mask is 'a_mask', the first image 'a'"):
        folder.read(tmp_path)
    label_map(tmp_path / "masks/a.png", corner(1))
    source = folder.read(tmp_path)
    assert source.notices == ["1 masks have no image: a_mask"]
    with pytest.raises(InputError, match=r"b\.png has no mask"):
        loaded(source)
    label_map(tmp_path / "masks/b.png", corner(1, size=(30, 30)))
    with pytest.raises(InputError, match=r"b\.png is 30x40, its mask .* is 30x30"):
        loaded(folder.read(tmp_path))
    label_map(tmp_path / "masks/a.bmp", corner(1))
    with pytest.raises(InputError, match="masks of the same image"):
        folder.read(tmp_path)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no images"):
        folder.read(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        folder.read(tmp_path / "none")
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="is not a folder"):
        folder.read(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"mask folder .* does not exist"):
        folder.read(tmp_path, masks=tmp_path / "none")
    with pytest.raises(InputError, match="crop 'square' is unknown; choose one of centre, none"):
        folder.read(tmp_path, crop="square")
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match=r"mask folder .*masks has no images"):
        folder.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "masks", "task"),
    [
        ("flowers17", None, "foreground"),
        ("weizmann_horses", None, "foreground"),
        ("grabcut13", None, "foreground"),
        ("nuclei_dsb2018", "instances", "multi-object"),
        ("coco_mini", "instances", "multi-object"),
    ],
)
def test_photographs(name: str, masks: str | None, task: str, shared: Path) -> None:
    source = folder.read(shared / name, masks=masks, limit=8, image_size=(64, 48))
    samples = loaded(source)
    assert 8 <= len(samples) <= 24
    assert source.task == task
    assert {sample.image.shape for _, sample in samples} == {(64, 48, 3)}
    with_objects = sum(bool(((sample.mask > 0) & (sample.mask < 255)).any()) for _, sample in samples)
    assert with_objects >= 0.8 * len(samples)  # some photographs of coco_mini have none in their middle
    coloured = [sample.image for _, sample in samples if (sample.image[..., 0] != sample.image[..., 2]).any()]
    assert coloured


def test_mimic(tmp_path: Path) -> None:
    content = Content(count=24, seed=3)
    manifest = prepare("folder", write_folder(tmp_path / "mimic", content), tmp_path / "packed", image_size=(56, 56))
    assert manifest.counts == {"train": 16, "val": 4, "test": 4}
    assert manifest.skipped == ()
    image, mask = content.scene(4, (112, 144))  # the first of val
    packed = PackedDataset(tmp_path / "packed", "val").batch([0])
    np.testing.assert_array_equal(packed["mask"][0], mask[1::2, 17:128:2])
    shrunk = Image.fromarray(image[:, 16:128]).resize((56, 56), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(packed["image"][0].permute(1, 2, 0), np.asarray(shrunk))


def test_damage_ends_in_an_input_error_or_a_good_result(tmp_path: Path, damage: Damage) -> None:
    picture(tmp_path / "good/images/train/a.png", size=(9, 7))
    picture(tmp_path / "good/images/train/b.jpg", size=(9, 7))
    picture(tmp_path / "good/images/train/c.webp", size=(9, 7))
    for name in "abc":
        label_map(tmp_path / f"good/masks/train/{name}.png", corner(2, size=(9, 12))[:7], mode="P")
    names = [path.relative_to(tmp_path / "good") for path in sorted((tmp_path / "good").rglob("*.*"))]
    refused = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        shutil.copytree(tmp_path / "good", tmp_path / "bad", dirs_exist_ok=True)
        damage(tmp_path / "bad" / names[seed % len(names)], rng)
        target = tmp_path / f"packed{seed}"
        try:
            manifest = prepare("folder", tmp_path / "bad", target, image_size=(4, 4), workers=1)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
        else:
            assert manifest.counts == {"train": 3}
    assert 6 <= refused < 30
