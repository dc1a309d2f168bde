"""PTR: run lengths of both kinds, crops, the published resampling against torch, halves of val, what is left out."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boqsa.data import prepare
from boqsa.data.mimic import Content
from boqsa.data.mimic.ptr import write_ptr
from boqsa.data.packed import PackedDataset
from boqsa.data.readers import ptr
from boqsa.errors import InputError


def masks_of(index: int) -> list[np.ndarray]:
    """Three objects: two that overlap in four pixels, one at the crop's right border."""
    boxes = [(150, 350, 100, 300 + index), (349, 450, 296 + index, 500), (200, 300, 600, 790)]
    masks = [np.zeros((600, 800), bool) for _ in boxes]
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def runs(mask: np.ndarray) -> list[int]:
    pixels = mask.T.ravel().tolist()
    return [0] * pixels[0] + [len(list(group)) for _, group in groupby(pixels)]


def compressed(mask: np.ndarray) -> str:
    counts, text = runs(mask), ""
    for place, count in enumerate(counts):
        rest = count - counts[place - 2] if place > 2 else count
        while True:
            group, rest = rest & 31, rest >> 5
            done = rest == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if done else 32))
            if done:
                break
    return text


def scene(index: int, split: str, **changes: Any) -> dict[str, Any]:
    encode = compressed if index % 2 else runs
    objects = [
        {"category": "Chair", "part_mask": {}, "obj_mask": {"size": [600, 800], "counts": encode(mask)}}
        for mask in masks_of(index)
    ]
    image = {"image_filename": f"{split}_picture_{index}.png", "image_index": index, "split": split}
    return image | {"objects": objects, "relationships": {}, "cam_location": [0, 0, 1]} | changes


def write(root: Path, train: tuple[int, ...] = (4, 9), val: tuple[int, ...] = (2, 3, 7)) -> Path:
    """Names of scenes are no guide to their images; indices have gaps."""
    draw = np.random.default_rng(0)
    for split, indices in (("train", train), ("val", val)):
        (root / f"{split}_images").mkdir(parents=True)
        (root / f"{split}_scenes").mkdir()
        for place, index in enumerate(indices):
            coarse = draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((800, 600), Image.Resampling.BICUBIC)
            picture.save(root / f"{split}_images" / f"{split}_picture_{index}.png", compress_level=1)
            (root / f"{split}_scenes" / f"PTR_{split}_{place:06d}.json").write_text(json.dumps(scene(index, split)))
    return root


@pytest.fixture(scope="module")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("ptr"))


def painted(index: int) -> np.ndarray:
    labels = np.zeros((600, 800), np.uint8)
    for label, mask in enumerate(masks_of(index), 1):
        labels[mask] = label
    return labels


def grid(start: int, length: int) -> np.ndarray:
    return start + np.floor((np.arange(128) + 0.5) * length / 128).astype(int)


def test_clean_halves_val_by_the_index(source_folder: Path) -> None:
    source = ptr.read(source_folder)
    found = [(item.split, item.name) for item in source.items()]
    assert found == [
        ("train", "train_images/train_picture_4.png"),
        ("train", "train_images/train_picture_9.png"),
        ("val", "val_images/val_picture_2.png"),
        ("test", "val_images/val_picture_3.png"),
        ("test", "val_images/val_picture_7.png"),
    ]
    assert source.partial
    assert not source.leak
    assert not source.notices
    assert source.options == {"crop": "400x700", "mask_resample": "pil-nearest", "split": "clean"}


def test_published_val_is_test(source_folder: Path) -> None:
    source = ptr.read(source_folder, split="published")
    names = {split: [item.name for item in source.items() if item.split == split] for split in ("val", "test")}
    assert names["val"] == names["test"]
    assert len(names["val"]) == 3
    assert source.leak == "selected on the test set"


@pytest.mark.parametrize("place", [0, 1])  # a list, and a compressed string
def test_the_published_crop(place: int, source_folder: Path) -> None:
    source = ptr.read(source_folder)
    item = list(source.items())[place]
    sample = source.load(item)
    expected = painted((4, 9)[place])[np.ix_(grid(100, 400), grid(50, 700))]
    assert sample.mask is not None
    assert (sample.mask != expected).sum() <= 128  # Pillow may land one lower where the place is a whole number
    assert set(np.unique(sample.mask)) == {0, 1, 2, 3}
    with Image.open(item.files[1]) as picture:
        image = picture.crop((50, 100, 750, 500)).resize((128, 128), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample.image, np.asarray(image))
    assert sample.notices == ("objects overlap",)


@pytest.mark.parametrize(("crop", "size", "box"), [("none", (600, 800), (0, 0)), ("centre", (600, 600), (0, 100))])
def test_other_crops(crop: str, size: tuple[int, int], box: tuple[int, int], source_folder: Path) -> None:
    source = ptr.read(source_folder, crop=crop, image_size=size)
    sample = source.load(next(iter(source.items())))
    np.testing.assert_array_equal(sample.mask, painted(4)[:, box[1] : box[1] + size[1]])


@pytest.mark.parametrize("size", [(128, 128), (96, 64), (400, 700), (401, 77)])
def test_the_published_resampling_as_in_torch(size: tuple[int, int], source_folder: Path) -> None:
    source = ptr.read(source_folder, mask_resample="published", image_size=size)
    sample = source.load(list(source.items())[1])
    stacked = torch.from_numpy(np.stack(masks_of(9))[:, 100:500, 50:750]).float()[None]
    linear = torch.nn.functional.interpolate(stacked, size, mode="bilinear", align_corners=False)[0]
    shrunk = linear.round().to(torch.uint8).numpy()
    background = np.ones(size, np.uint8) - shrunk.sum(axis=0, dtype=np.uint8)
    assert size != (400, 700) or (background == 255).sum() == 4  # one minus two, in eight bits
    expected = np.concatenate([background[None], shrunk]).argmax(axis=0)
    np.testing.assert_array_equal(sample.mask, expected)
    if size == (400, 700):
        np.testing.assert_array_equal(expected[249, 255:259], 0)  # the overlap became background


def test_touching_objects_round_to_background() -> None:
    left = np.zeros((4, 4), bool)
    left[:, :1] = True
    right = ~left
    # Two outputs of two columns each: the first lies between columns 0 and 1, where both are exactly half.
    labels = ptr._published_labels([left, right], (2, 2))
    np.testing.assert_array_equal(labels, [[0, 2], [0, 2]])


def test_scenes_that_are_left_out_are_counted(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "train_images/train_picture_9.png").unlink()
    crowded = scene(2, "val", objects=scene(2, "val")["objects"][:1] * 7)
    (root / "val_scenes/PTR_val_000000.json").write_text(json.dumps(crowded))
    source = ptr.read(root)
    assert source.notices == [
        "1 scenes have no image: train_scenes/PTR_train_000001.json",
        "1 scenes have more than 6 objects: val_scenes/PTR_val_000000.json",
    ]
    assert [item.split for item in source.items()] == ["train", "test", "test"]
    assert [item.split for item in ptr.read(root, limit=1).items()] == ["train", "test"]


def _runs_of(counts: Any, size: Any = (600, 800)) -> dict[str, Any]:
    return {"objects": [{"obj_mask": {"size": size, "counts": counts}}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_filename": "../secret.png"}, "no `image_filename`"),
        ({"image_filename": 3}, "no `image_filename`"),
        ({"image_filename": "a\0.png"}, "no `image_filename`"),
        ({"image_index": "4"}, "no `image_index`"),
        ({"image_index": -1}, "no `image_index`"),
        ({"objects": {}}, "no list `objects`"),
        ({"objects": [3]}, "object 0 has no `obj_mask` of size"),
        ({"objects": [{}]}, "object 0 has no `obj_mask` of size"),
        (_runs_of([480_000], [800, 600]), "object 0 has no `obj_mask` of size"),
        (_runs_of([480_000], [10**9, 10**9]), "object 0 has no `obj_mask` of size"),
        (_runs_of([480_001]), "from 0|sum to 480001|expected"),
        (_runs_of([479_999]), "sum to 479999"),
        (_runs_of(None), "whole numbers"),
        (_runs_of("oo"), "middle of a number"),
        (_runs_of([float("nan")]), "whole numbers"),
    ],
)
def test_malformed_scenes(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = write(tmp_path, train=(4,), val=())
    (root / "train_scenes/PTR_train_000000.json").write_text(json.dumps(scene(4, "train", **changes)))
    source = ptr.read(root)
    item = next(iter(source.items()))
    with pytest.raises(InputError, match=message) as refusal:
        source.load(item)
    assert "PTR_train_000000.json" in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"[1]", b"\xff\xfe{", b"{", b"null", b"1" * 5000])
def test_what_is_no_scene(content: bytes, tmp_path: Path) -> None:
    root = write(tmp_path, train=(4,), val=())
    (root / "train_scenes/PTR_train_000000.json").write_bytes(content)
    with pytest.raises(InputError, match=r"PTR_train_000000\.json") as refusal:
        prepare("ptr", root, tmp_path / "packed")
    assert "\n" not in str(refusal.value)


def test_wrong_folders_sizes_and_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold train_images and train_scenes"):
        ptr.read(tmp_path)
    root = write(tmp_path / "deep" / "ptr", train=(4,), val=())
    with pytest.raises(InputError, match="choose one of 400x700, centre, none"):
        ptr.read(tmp_path, crop="192")
    Image.new("RGB", (600, 800)).save(root / "train_images/train_picture_4.png")
    with pytest.raises(InputError, match="is 800x600; PTR images are 600x800"):
        prepare("ptr", tmp_path / "deep", tmp_path / "packed")
    (root / "train_scenes/PTR_train_000000.json").unlink()
    with pytest.raises(InputError, match="has no scene"):
        ptr.read(root)


def test_mutations_give_an_error_or_a_good_result(tmp_path: Path) -> None:
    root = write(tmp_path / "source", train=(5,), val=())
    path = root / "train_scenes/PTR_train_000000.json"
    original = path.read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for trial in range(40):
        content = bytearray(original)
        if trial % 4 == 0:
            del content[int(draw.integers(0, len(content))) :]
        else:
            for place in draw.integers(0, len(content), 2):
                content[place] = int(draw.integers(32, 127))
        path.write_bytes(content)
        try:
            prepare("ptr", root, tmp_path / f"packed{trial}", image_size=(16, 16))
        except InputError:
            refused += 1
        else:
            assert PackedDataset(tmp_path / f"packed{trial}", "train")[0]["mask"].max() <= 6
    assert refused > 10


def test_mimicked(tmp_path: Path) -> None:
    content = Content(8, 0)
    manifest = prepare(
        "ptr", write_ptr(tmp_path / "ptr", content), tmp_path / "packed", crop="none", image_size=(150, 200)
    )
    assert manifest.counts == {"train": 4, "val": 2, "test": 2}
    masks = PackedDataset(tmp_path / "packed", "test").batch([0, 1])["mask"].numpy()
    for mask, index in zip(masks, (1, 3), strict=True):
        np.testing.assert_array_equal(mask, content.scene(index, (150, 200))[1])
        assert mask.any()
