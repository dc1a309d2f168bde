"""A folder of images: layouts, pairing, conversions and everything that must not pass in silence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data.readers import folder
from boqsa.errors import InputError


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


def test_nested_sorted_hidden_and_suffixes(tmp_path: Path) -> None:
    for name in ("b/x.PNG", "a/y.jpg", "a/z.webp", "B.bmp", ".hidden.png", ".cache/q.png", "a/readme.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            picture(tmp_path / name)
    samples = list(folder.read(tmp_path).samples)
    assert [sample.name for sample in samples] == ["B.bmp", "a/y.jpg", "a/z.webp", "b/x.PNG"]
    assert {sample.image.shape for sample in samples} == {(128, 128, 3)}
    assert all(sample.mask is None for sample in samples)


def test_crop_and_squeeze(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    with Image.open(path) as image:
        cropped = image.crop((5, 0, 35, 30)).resize((16, 16), Image.Resampling.BILINEAR)
        squeezed = image.resize((16, 16), Image.Resampling.BILINEAR)
    for crop, expected in (("centre", cropped), ("none", squeezed)):
        sample = next(folder.read(tmp_path, image_size=16, crop=crop).samples)
        np.testing.assert_array_equal(sample.image, np.asarray(expected))


def test_hash_split_is_stable_when_images_are_added(tmp_path: Path) -> None:
    for index in range(60):
        picture(tmp_path / f"{index}.png", size=(4, 4))
    before = {sample.name: sample.split for sample in folder.read(tmp_path, image_size=4).samples}
    for index in range(60, 80):
        picture(tmp_path / f"{index}.png", size=(4, 4))
    after = {sample.name: sample.split for sample in folder.read(tmp_path, image_size=4).samples}
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
    source = folder.read(tmp_path, image_size=30)
    samples = list(source.samples)
    assert [sample.split for sample in samples] == ["train", "test"]
    np.testing.assert_array_equal(samples[0].mask, corner(3)[:, 5:35])
    assert source.split_rule == "the folders train, val and test"


def test_images_beside_split_folders_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.png")
    picture(tmp_path / "extra/b.png")
    with pytest.raises(InputError, match=r"outside of train.*b\.png"):
        folder.read(tmp_path)


def test_named_masks_inside_the_source_are_not_images(tmp_path: Path) -> None:
    picture(tmp_path / "sub/a.jpg")
    label_map(tmp_path / "labels/sub/a.png", corner(2), mode="P")
    source = folder.read(tmp_path, masks=tmp_path / "labels", image_size=30)
    samples = list(source.samples)
    assert [sample.name for sample in samples] == ["sub/a.jpg"]
    assert np.unique(samples[0].mask).tolist() == [0, 2]
    assert source.task == "multi-object"


def test_black_and_white_masks_are_foreground_but_255_among_labels_is_ignore(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/b.png")
    label_map(tmp_path / "masks/a.png", corner(255))
    label_map(tmp_path / "masks/b.png", corner(0))
    source = folder.read(tmp_path)
    assert np.unique(next(source.samples).mask).tolist() == [0, 1]
    assert source.task == "foreground"
    assert "255 was read as foreground" in source.notices[0]
    label_map(tmp_path / "masks/b.png", corner(4))
    source = folder.read(tmp_path)
    assert np.unique(next(source.samples).mask).tolist() == [0, 255]
    assert source.task == "multi-object"


def test_one_bit_masks_are_foreground(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(corner(1) > 0).save(tmp_path / "masks/a.png")
    source = folder.read(tmp_path)
    assert np.unique(next(source.samples).mask).tolist() == [0, 1]
    assert source.task == "foreground"


def test_colours_become_labels_by_frequency(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[:5, 5:35] = (0, 0, 255)
    colours[5:20, 5:35] = (255, 0, 0)
    label_map(tmp_path / "masks/a.png", colours)
    mask = next(folder.read(tmp_path, image_size=30).samples).mask
    assert (mask[0, 0], mask[10, 0], mask[29, 0]) == (2, 1, 0)


def test_jpeg_masks_need_a_threshold(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    label_map(tmp_path / "masks/a.jpg", corner(255))
    with pytest.raises(InputError, match=r"JPEG.*--mask-threshold"):
        list(folder.read(tmp_path).samples)
    source = folder.read(tmp_path, mask_threshold=127)
    assert np.unique(next(source.samples).mask).tolist() == [0, 1]


def test_conversions_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "alpha.png", mode="RGBA")
    picture(tmp_path / "print.jpg", mode="CMYK")
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(deep).save(tmp_path / "deep.png")
    source = folder.read(tmp_path, image_size=64)
    images = {sample.name: sample.image for sample in source.samples}
    assert source.notices == [
        "1 images: 16 bits reduced to 8",
        "1 images: CMYK converted to RGB",
        "1 images: alpha dropped",
    ]
    np.testing.assert_array_equal(images["deep.png"][..., 1], deep >> 8)


def test_exif_orientation_turns_the_image_and_refuses_a_mask_that_lies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "images/a.jpg", exif=exif)
    label_map(tmp_path / "masks/a.png", corner(1, size=(30, 40)))
    source = folder.read(tmp_path, image_size=30)
    assert next(source.samples).mask.shape == (30, 30)
    label_map(tmp_path / "masks/a.png", corner(1, size=(40, 30)))
    with pytest.raises(InputError, match="40x30 once its EXIF orientation is applied"):
        list(folder.read(tmp_path).samples)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_broken_images_are_listed_and_may_be_skipped(suffix: str, tmp_path: Path) -> None:
    good = picture(tmp_path / "good.png")
    broken = picture(tmp_path / f"cut.{suffix}", size=(200, 200))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"2 of 3 images cannot be used: .*cut.*text\.png.*--skip-broken"):
        list(folder.read(tmp_path).samples)
    source = folder.read(tmp_path, skip_broken=True)
    assert [sample.name for sample in source.samples] == [good.name]
    assert len(source.skipped) == 2


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
        list(source.samples)
    label_map(tmp_path / "masks/b.png", corner(1, size=(30, 30)))
    with pytest.raises(InputError, match=r"b\.png is 30x40, its mask .* is 30x30"):
        list(folder.read(tmp_path).samples)
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
    with pytest.raises(InputError, match="choose 'centre' or 'none'"):
        folder.read(tmp_path, crop="square")


@pytest.mark.parametrize(
    ("name", "masks", "task"),
    [("flowers17", None, "foreground"), ("nuclei_dsb2018", "instances", "multi-object")],
)
def test_photographs(name: str, masks: str | None, task: str, shared: Path) -> None:
    root = shared / name
    source = folder.read(root, masks=None if masks is None else root / masks, limit=30, image_size=64)
    samples = list(source.samples)
    assert len(samples) == 30
    assert source.task == task
    assert sum(int(sample.mask.max()) for sample in samples) >= 30
