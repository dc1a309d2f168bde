"""COCO's JSON: every kind of segmentation, what lies on top, what is counted, and what is refused."""

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from boqsa.data import PackedDataset, check, prepare
from boqsa.data.mimic import Content, mimic
from boqsa.data.readers import coco_instances
from boqsa.data.readers.source import Sample, split_by_hash
from boqsa.errors import InputError

SIZE = (40, 60)
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    packed = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": packed["counts"].decode()}


def plain(mask: np.ndarray) -> dict[str, Any]:
    runs, inside = [0], False
    for pixel in mask.T.ravel():
        if bool(pixel) != inside:
            runs.append(0)
            inside = not inside
        runs[-1] += 1
    return {"size": list(mask.shape), "counts": runs}


def box(top: int, left: int, bottom: int, right: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(number: int, segmentation: Any, image: Any = 7, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 90, "segmentation": segmentation, **more}


TWO_PARTS = annotation(31, [box(2, 12, 10, 22), box(20, 15, 30, 18)], area=110)
CROWD = annotation(5, plain(rectangle(0, 10, 40, 16)), iscrowd=1, area=240)
LARGE = annotation(12, compressed(rectangle(15, 20, 38, 45)), iscrowd=0, area=575.0)
SMALL = annotation(11, compressed(rectangle(18, 30, 24, 48)), area=108)


def write(root: Path, *annotations: Any, images: Any = None, **more: Any) -> Path:
    """One image `a/x.png` with id 7."""
    (root / "pictures/a").mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(root / "pictures/a/x.png")
    images = [{"id": 7, "file_name": "a/x.png", "height": 40, "width": 60}] if images is None else images
    path = root / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": list(annotations), "categories": [], **more}))
    return path


def load(path: Path, **options: Any) -> Sample:
    """The first sample, at full size unless it is cropped."""
    options = {"crop": "none", "image_size": SIZE} | options
    source = coco_instances.read(path, images=path.parent / "pictures", **options)
    return source.load(next(iter(source.items())))


def test_every_kind_of_segmentation(tmp_path: Path) -> None:
    sample = load(write(tmp_path, TWO_PARTS, LARGE, CROWD, SMALL))
    expected = np.zeros(SIZE, int)
    expected[:, 10:16] = 255
    expected[15:38, 20:45] = 2  # numbered by id
    expected[2:10, 12:22] = 3
    expected[20:30, 15:18] = 3
    expected[18:24, 30:48] = 1  # small ones on top
    np.testing.assert_array_equal(sample.mask, expected)
    np.testing.assert_array_equal(sample.image, PIXELS)
    assert sample.notices == ("annotations overlap", "crowd regions are ignored by scores")


def test_the_later_one_on_top(tmp_path: Path) -> None:
    assert load(write(tmp_path, SMALL, LARGE), paint="last").mask[20, 35] == 2
    assert load(write(tmp_path, LARGE, SMALL), paint="last").mask[20, 35] == 1
    assert load(write(tmp_path, SMALL, LARGE)).mask[20, 35] == 1
    # Ties by id, not by the order of the file; without `area` the pixels are counted.
    assert load(write(tmp_path, SMALL | {"area": 5}, LARGE | {"area": 5})).mask[20, 35] == 2
    unmeasured = [{key: value for key, value in one.items() if key != "area"} for one in (SMALL, LARGE)]
    assert load(write(tmp_path, *unmeasured)).mask[20, 35] == 1


def test_central_square_then_resizing(tmp_path: Path) -> None:
    sample = load(write(tmp_path, LARGE, annotation(1, [box(0, 0, 40, 9)])), crop="centre", image_size=(20, 40))
    np.testing.assert_array_equal(sample.mask, rectangle(15, 20, 38, 45)[:, 10:50][1::2].astype(int))
    picture = Image.fromarray(PIXELS[:, 10:50]).resize((40, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample.image, np.asarray(picture))
    assert sample.notices == ("objects cut away by crop or resizing",)


def test_small_objects_become_background(tmp_path: Path) -> None:
    path = write(tmp_path, annotation(1, [box(0, 50, 4, 56)]), LARGE)  # 24 and 575 of 2400 pixels
    assert load(path, min_area=0.01).mask[0, 50] == 1
    sample = load(path, min_area=0.0101)
    np.testing.assert_array_equal(sample.mask, rectangle(15, 20, 38, 45).astype(int))
    assert sample.notices == ("objects below min_area left out",)


def test_what_is_no_area_is_counted(tmp_path: Path) -> None:
    odd = [
        annotation(1, [[1, 1, 5, 5], box(0, 0, 5, 5)]),
        annotation(2, []),
        annotation(3, [[1.0, 1.0, 1.0, 9.0, 1.0, 5.0]]),
        annotation(4, None),
        annotation(6, [box(1, 1, 4, 4)], area=999),  # hidden by the first
        annotation(8, LARGE["segmentation"], image=8),
    ]
    path = write(tmp_path, *odd)
    sample = load(path)
    np.testing.assert_array_equal(sample.mask, rectangle(0, 0, 5, 5).astype(int))
    assert sample.notices == (
        "annotations hidden by others",
        "annotations overlap",
        "annotations without a pixel left out",
        "annotations without a segmentation left out",
        "polygons of fewer than three points left out",
    )
    source = coco_instances.read(path, images=path.parent)
    assert source.notices == ["1 annotations belong to no image of the JSON and were left out"]


def test_images_without_annotations_stay(tmp_path: Path) -> None:
    images = [{"id": k, "file_name": "a/x.png", "height": 40, "width": 60} for k in (7, 8)]
    manifest = prepare(
        "coco_instances",
        write(tmp_path, LARGE, images=images),
        tmp_path / "packed",
        images=str(tmp_path / "pictures"),
        split="val",
    )
    assert manifest.counts == {"val": 2}
    assert manifest.notices == ("1 images: no annotations, in a/x.png",)
    assert manifest.split_rule == "all images are val"
    assert PackedDataset(tmp_path / "packed", "val").batch([1])["mask"].max() == 0


def test_without_any_annotation_there_are_no_masks(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert load(path).mask is None
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    assert load(path).mask is None
    assert "packed without masks" in coco_instances.read(path, images=tmp_path).notices[0]


@pytest.mark.parametrize(("count", "wide"), [(254, False), (255, True), (2000, True)])
def test_many_objects_need_wide_labels(count: int, wide: bool, tmp_path: Path) -> None:
    dots = [annotation(k + 1, compressed(np.arange(2400).reshape(SIZE) == k), area=1) for k in range(count)]
    crowd = annotation(0, plain(rectangle(39, 0, 40, 60)), iscrowd=1)
    path = write(tmp_path, *dots, crowd)
    source = coco_instances.read(path, images=tmp_path / "pictures", crop="none", image_size=SIZE)
    assert source.wide_labels is wide
    mask = source.load(next(iter(source.items()))).mask
    assert mask.dtype == (np.int16 if wide else np.uint8)
    expected = np.arange(1, 2401)
    expected[count:] = 0
    expected = expected.reshape(SIZE)
    expected[39] = -1 if wide else 255
    np.testing.assert_array_equal(mask, expected)
    prepare(
        "coco_instances", path, tmp_path / "packed", images=str(tmp_path / "pictures"), image_size=SIZE, crop="none"
    )
    split = split_by_hash("7")
    packed = PackedDataset(tmp_path / "packed", split).batch([0])["mask"][0].numpy()
    np.testing.assert_array_equal(packed, np.where(expected == 255, -1, expected) if not wide else expected)
    shrunk = load(path, image_size=(20, 30)).mask  # resizing keeps labels above 255 apart
    assert len(np.unique(shrunk)) == len(np.unique(mask[1::2, 1::2]))


def test_classes_are_those_of_the_labels(tmp_path: Path) -> None:
    """Annotations in the order of the file, not of their ids; one is hidden, one too small, one cropped away."""
    annotations = [
        TWO_PARTS | {"category_id": 7},
        LARGE | {"category_id": 0},
        annotation(3, [box(1, 1, 4, 4)], area=999, category_id=8),  # hidden by the next
        annotation(2, [box(0, 0, 12, 12)], area=1, category_id=9),
        annotation(4, [box(0, 20, 1, 21)], area=1, category_id=9),  # one pixel
        annotation(1, [box(30, 0, 40, 8)], category_id=3),  # left of the central square
        CROWD | {"category_id": "people"},  # no object, so it needs none
        SMALL | {"category_id": 90},
    ]
    path = write(tmp_path, *annotations)
    sample = load(path, min_area=2 / 2400)
    classes = sample.extras["classes"]
    assert classes.dtype == np.int32
    # Labels by id: 1, 2, 11, 12, 31; room for all seven objects of the image.
    assert classes.tolist() == [-1, 3, 9, 90, 0, 7, -1, -1]
    assert [classes[sample.mask[at]] for at in ((0, 0), (20, 35), (36, 22), (5, 18))] == [9, 90, 0, 7]
    cropped = load(path, min_area=2 / 1600, crop="centre", image_size=(40, 40))
    assert cropped.extras["classes"].tolist() == [-1, 9, 90, 0, 7, -1, -1, -1], "numbered anew with the labels"
    large = load(path, min_area=109 / 2400)
    assert large.extras["classes"].tolist() == [-1, 9, 0, 7, -1, -1, -1, -1]
    options = {"images": str(tmp_path / "pictures"), "image_size": SIZE, "crop": "none", "split": "val"}
    manifest = prepare("coco_instances", path, tmp_path / "packed", **options)
    assert manifest.extras == ("classes",)
    assert check(tmp_path / "packed").ok
    found = PackedDataset(tmp_path / "packed", "val").batch([0])
    assert found["classes"][0].tolist() == load(path).extras["classes"].tolist()


@pytest.mark.parametrize("category", [None, "dog", 1.0, True, -1, 2**31])
def test_without_a_usable_category_there_are_no_classes(category: Any, tmp_path: Path) -> None:
    path = write(tmp_path, LARGE, SMALL | {"category_id": category})
    source = coco_instances.read(path, images=tmp_path / "pictures")
    assert not source.extras
    assert source.notices == ["1 annotations have no usable category_id: packed without classes"]
    assert not load(path).extras
    assert load(path).mask.max() == 2


def test_splits_by_id_or_by_name(tmp_path: Path) -> None:
    images = [{"id": k, "file_name": f"{100 - k}.png", "height": 40, "width": 60} for k in range(60)]
    path = write(tmp_path, LARGE, images=images)
    items = list(coco_instances.read(path, images=tmp_path).items())
    assert [item.name for item in items] == sorted(f"{100 - k}.png" for k in range(60))  # 100.png comes first
    assert all(item.split == split_by_hash(str(100 - int(item.name[:-4]))) for item in items)
    assert {item.split for item in items} == {"train", "val", "test"}
    limited = coco_instances.read(path, images=tmp_path, split="test", limit=2)
    assert [(item.name, item.split) for item in limited.items()] == [("100.png", "test"), ("41.png", "test")]
    assert limited.partial


def test_size_and_orientation(tmp_path: Path) -> None:
    path = write(tmp_path, LARGE)
    picture = Image.fromarray(PIXELS)
    exif = picture.getexif()
    exif[0x0112] = 6  # shown turned by a quarter
    picture.save(tmp_path / "pictures/a/x.png", exif=exif)
    with pytest.raises(InputError, match=r"x.png is 60x40, the JSON says 40x60 .*turned by its EXIF orientation"):
        load(path)
    Image.fromarray(PIXELS[:-1]).save(tmp_path / "pictures/a/x.png")
    with pytest.raises(InputError, match=r"x.png is 39x60, the JSON says 40x60"):
        load(path)
    exif[0x0112] = 3
    picture.save(tmp_path / "pictures/a/x.png", exif=exif)
    assert load(path).notices == ("EXIF orientation applied",)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            plain(np.ones((60, 40), bool)),
            r"annotation 3 is malformed: its run lengths are of size \[60, 40\]",
        ),
        ({"size": [40, 60], "counts": [2399]}, "sum to 2399"),
        ({"size": [40, 60], "counts": [0, 2**62, 2**62]}, "run lengths"),
        ({"size": [40, 60], "counts": [0.5, 2399.5]}, "run lengths"),
        ({"size": [40, 60], "counts": "zz\x7f"}, "run lengths"),
        ({"size": [40, 60], "counts": None}, "run lengths"),
        ({"size": [40.5, 60], "counts": []}, "of size"),
        ({"size": "40x60"}, "of size '40x60'"),
        ([1, 2, 3, 4, 5, 6], "neither a list of polygons nor run lengths"),
        ([["a"] * 6], "neither a list of polygons"),
        ("polygon", "neither a list of polygons"),
        ([[1, 2, 3, 4, 5, 6, 7]], "7 numbers found"),
        ([[1e300, 2, 3, 4, 5, 6]], "polygon"),
    ],
)
def test_malformed_segmentations(segmentation: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, LARGE, annotation(3, segmentation)))


IMAGE = {"id": 7, "file_name": "a/x.png", "height": 40, "width": 60}


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ([IMAGE, IMAGE], [], "image id 7 occurs twice"),
        ([], [], "lists no images"),
        ({}, [], "lists 'images' and 'annotations' expected"),
        (["a"], [], "image 0 is not an object"),
        ([IMAGE | {"id": None}], [], "has the id None"),
        ([IMAGE | {"id": "\ud800"}], [], "has the id"),
        ([IMAGE | {"height": "40"}], [], "has height '40' and width 60"),
        ([IMAGE | {"width": 0}], [], "width 0"),
        *(
            ([IMAGE | {"file_name": name}], [], "a path inside the folder")
            for name in ("", ".", "../x.png", "/x.png", "C:\\x.png", "a\0b", "\ud800.png", 5, None)
        ),
        ([IMAGE], {}, "'annotations' is not a list"),
        ([IMAGE], [3], "annotation 0 is not an object"),
        ([IMAGE], [LARGE, {"id": 1}], "annotation 1 has the image_id None"),
        ([IMAGE], [LARGE | {"id": "x"}], "has the id 'x'"),
        ([IMAGE], [LARGE | {"id": True}], "has the id True"),
        ([IMAGE], [LARGE | {"image_id": [7]}], "has the image_id"),
        ([IMAGE], [LARGE | {"iscrowd": 2}], "has iscrowd 2"),
        ([IMAGE], [LARGE | {"area": "big"}], "has the area 'big'"),
        ([IMAGE], [{"id": 1, "image_id": 7, "bbox": [0, 0, 3, 3]}], "has boxes alone"),
        ([IMAGE], [annotation(k, []) for k in range(32768)], "at most 32767"),
    ],
)
def test_malformed_json(images: Any, annotations: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, images=images)
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a JSON file"),
        (b"[]", "is not a JSON of COCO instances"),
        (b"[" * 200_000, "nested too deep|is not a JSON file"),
        (b'{"images": [' + b'{"a":' * 100_000, "nested too deep|is not a JSON file"),
        (b"\xff\xfe\xfd", "is not a JSON file"),
        (b'{"images": [{"id": NaN}]}', "NaN is not a number"),
        (b'{"images": [{"id": ' + b"9" * 5000 + b"}]}", "is not a JSON file"),
        (b'{"images": [{"id": 1e999, "file_name": "a", "height": 1, "width": 1}]}', "has the id inf"),
    ],
)
def test_no_json_at_all(content: bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(path)


def test_wrong_options(tmp_path: Path) -> None:
    path = write(tmp_path, LARGE)
    for options, message in (
        ({"crop": "192"}, "choose one of centre, none"),
        ({"paint": "first"}, "choose one of area, last"),
        ({"split": "clean"}, "choose one of hash, train, val, test"),
        ({"min_area": 1.0}, "a share of the image from 0 to below 1"),
        ({"min_area": float("nan")}, "min_area is nan"),
        ({"images": None}, "give --images DIR"),
        ({"images": tmp_path / "none"}, "does not exist; give another --images DIR"),
        ({"images": path}, "is not a folder"),
    ):
        with pytest.raises(InputError, match=message):
            coco_instances.read(path, **({"images": tmp_path} | options))
    with pytest.raises(InputError, match=r"is a folder; give the JSON of the annotations \(annotations.json\)"):
        coco_instances.read(tmp_path, images=tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        coco_instances.read(tmp_path / "none.json", images=tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_run_lengths_are_the_label_maps(split: str, shared: Path) -> None:
    for item, sample, _ in real(shared / "coco_mini" / split, "instances.json"):
        stored = np.asarray(Image.open(shared / "coco_mini" / split / "instances" / f"{Path(item.name).stem}.png"))
        labels = np.unique(stored[(stored > 0) & (stored < 255)])
        ranks = np.where(stored == 255, 255, np.searchsorted(labels, stored) + (stored > 0))
        np.testing.assert_array_equal(sample.mask, ranks)


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_polygons_come_close(split: str, shared: Path) -> None:
    ious = []
    for item, sample, instances in real(shared / "coco_mini" / split, "instances_polygons.json"):
        stored = np.asarray(Image.open(shared / "coco_mini" / split / "instances" / f"{Path(item.name).stem}.png"))
        if any("hidden" in notice or "without a pixel" in notice for notice in sample.notices):
            continue
        for number, instance in enumerate(instances, 1):
            mask = stored == instance
            if mask.sum() > 100:
                drawn = sample.mask == number
                ious.append((mask & drawn).sum() / (mask | drawn).sum())
    assert len(ious) > 200
    assert np.mean(ious) > 0.9


def real(folder: Path, name: str) -> Any:
    """Items, samples at full size, and the labels of the stored map in the order of the annotations' ids."""
    source = coco_instances.read(folder / name, images=folder / "images", split="test")
    content = json.loads((folder / name).read_text())
    ids = {image["file_name"]: image["id"] for image in content["images"]}
    for item in source.items():
        sample = partial(source.load, cropped=False, size=item.facts.size)(item)
        annotations = sorted(content["annotations"], key=lambda entry: entry["id"])
        own = [a for a in annotations if a["image_id"] == ids[item.name] and not a["iscrowd"]]
        yield item, sample, [a["instance"] for a in own]


def test_stand_in(tmp_path: Path) -> None:
    source = mimic("coco_instances", tmp_path / "source", count=12, seed=5)
    options = {name: str(path) for name, path in source.options.items()}
    manifest = prepare("coco_instances", source.path, tmp_path / "packed", image_size=(96, 96), **options)
    assert manifest.counts == {"train": 8, "val": 2, "test": 2}
    assert len(manifest.notices) == 2  # that it is a stand-in, and
    assert manifest.notices[1].startswith("4 images: crowd regions")
    report = check(tmp_path / "packed")
    assert report.ok
    assert all(set(counted.classes) == {1} for counted in report.splits.values())
    for split in manifest.counts:
        packed = PackedDataset(tmp_path / "packed", split)
        names = packed.names()
        assert names is not None
        for index, name in enumerate(names):
            image, mask = Content(12, 5).scene(int(name[:-4]), (96, 128))
            found = packed.batch([index])["mask"][0].numpy()
            crowd = found == -1
            assert crowd.any() == (int(name[:-4]) % 3 == 0)
            labels = np.unique(mask[:, 16:112])
            expected = np.searchsorted(labels, mask[:, 16:112])
            np.testing.assert_array_equal(np.where(crowd, 0, found), expected)
            np.testing.assert_array_equal(packed.batch([index])["image"][0].permute(1, 2, 0), image[:, 16:112])


def test_damage_is_an_input_error_or_harmless(tmp_path: Path) -> None:
    path = write(tmp_path, TWO_PARTS, LARGE, CROWD, SMALL)
    files = [path, path, path, tmp_path / "pictures/a/x.png"]
    rng = random.Random(0)
    refused: list[str] = []
    for attempt in range(60):
        path = rng.choice(files)
        whole = path.read_bytes()
        changed = bytearray(whole)
        match attempt % 3:
            case 0:
                for _ in range(2):
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            case 1:
                del changed[rng.randrange(len(changed)) :]
            case 2:  # a piece twice
                start = rng.randrange(len(changed))
                changed[start:start] = changed[start : start + rng.randrange(40)]
        path.write_bytes(changed)
        try:
            images = str(tmp_path / "pictures")
            manifest = prepare("coco_instances", files[0], tmp_path / f"packed{attempt}", images=images, workers=1)
            assert sum(manifest.counts.values()) == 1
        except InputError as error:
            refused.append(str(error))
        path.write_bytes(whole)
    assert 20 <= len(refused) < 60
    assert not any("\n" in message for message in refused)
