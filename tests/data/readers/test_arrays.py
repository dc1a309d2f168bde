"""Arrays: layouts, names, types, splits, and refusals."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boqsa.data.readers import arrays
from boqsa.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
MASKS = np.random.default_rng(1).integers(-1, 5, (10, 8, 8))


def saved(path: Path, **content: Any) -> Path:
    np.savez(path / "a.npz", **content)
    return path / "a.npz"


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("names", [("image", "mask"), ("images", "masks")])
def test_both_layouts_and_names(channels_first: bool, names: tuple[str, str], tmp_path: Path) -> None:
    images = IMAGES.transpose(0, 3, 1, 2) if channels_first else IMAGES
    source = arrays.read(saved(tmp_path, **{names[0]: images, names[1]: MASKS}))
    samples = list(source.samples)
    np.testing.assert_array_equal([sample.image for sample in samples], IMAGES)
    np.testing.assert_array_equal([sample.mask for sample in samples], np.where(MASKS < 0, 255, MASKS))
    assert [sample.split for sample in samples] == ["train"] * 8 + ["val", "test"]
    assert source.task == "multi-object"
    assert not source.partial


def test_npy_is_images_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    samples = list(arrays.read(tmp_path / "a.npy", limit=4).samples)
    np.testing.assert_array_equal([sample.image for sample in samples], IMAGES[:4])
    assert samples[0].mask is None


def test_given_splits(tmp_path: Path) -> None:
    names = ["test", "train"] * 5
    source = arrays.read(saved(tmp_path, image=IMAGES, split=np.array(names)), limit=3)
    assert [sample.split for sample in source.samples] == names[:3]
    with pytest.raises(InputError, match=r"'split' has '\.\./x'"):
        arrays.read(saved(tmp_path, image=IMAGES, split=np.array(["../x"] * 10)))
    for wrong in (np.array(names[:9]), np.arange(10)):
        with pytest.raises(InputError, match="one string for each image"):
            arrays.read(saved(tmp_path, image=IMAGES, split=wrong))


def test_size_and_crop(tmp_path: Path) -> None:
    source = arrays.read(saved(tmp_path, image=IMAGES[:, :6], mask=MASKS[:, :6]))
    assert source.image_size == (6, 6)
    np.testing.assert_array_equal(next(source.samples).image, IMAGES[0, :6, 1:7])
    assert next(arrays.read(saved(tmp_path, image=IMAGES), image_size=4).samples).image.shape == (4, 4, 3)


def test_boolean_and_black_and_white_masks_are_foreground(tmp_path: Path) -> None:
    for mask in (MASKS > 2, np.where(MASKS > 2, 255, 0).astype(np.uint8)):
        source = arrays.read(saved(tmp_path, image=IMAGES, mask=mask))
        assert source.task == "foreground"
        np.testing.assert_array_equal([sample.mask for sample in source.samples], (MASKS > 2).astype(int))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"picture": IMAGES}, "no array 'image'; it has picture"),
        ({"image": IMAGES / 255}, r"float64.*multiply \[0, 1\] images by 255"),
        ({"image": IMAGES[..., 0]}, r"uint8 \(N, H, W, 3\) or"),
        ({"image": IMAGES[..., :2]}, r"\(10, 8, 8, 2\)"),
        ({"image": IMAGES[:0]}, r"\(0, 8, 8, 3\)"),
        ({"image": IMAGES, "mask": MASKS[:9]}, r"shape \(9, 8, 8\)"),
        ({"image": IMAGES, "mask": MASKS / 2}, "integer labels expected"),
        ({"image": IMAGES, "mask": MASKS * 100}, "labels from -100 to 400"),
        ({"image": np.array([None, 1])}, "pickled"),
    ],
)
def test_wrong_content(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        arrays.read(saved(tmp_path, **content))


def test_wrong_files(tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="pickled"):
        arrays.read(tmp_path / "pickled.npy")
    with pytest.raises(InputError, match="does not exist"):
        arrays.read(tmp_path / "none.npz")
    with pytest.raises(InputError, match="is not a file"):
        arrays.read(tmp_path)
    whole = saved(tmp_path, image=IMAGES).read_bytes()
    np.save(tmp_path / "whole.npy", IMAGES)
    broken = {
        "empty.npz": b"",
        "cut.npz": whole[:-100],
        "text.npz": b"hello",
        "bits.npz": whole[:900] + b"\0" + whole[901:],
    }
    broken["cut.npy"] = (tmp_path / "whole.npy").read_bytes()[:-100]
    broken["text.npy"] = b"hello"
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=re.escape(name)):
            arrays.read(tmp_path / name)
