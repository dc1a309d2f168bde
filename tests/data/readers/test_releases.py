"""The instance subsets made from the releases: choice of frames and objects, crop, grid, and each release's files."""

import io
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from boqsa.data import PackedDataset, check, prepare
from boqsa.data.readers import READERS, releases
from boqsa.data.readers.coco_instances import Annotation, Picture
from boqsa.data.readers.source import Item
from boqsa.errors import InputError


def samples(name: str, root: Path, **options: Any) -> list[tuple[str, str, Any]]:
    source = READERS[name](root, **options)
    return [(item.split, item.name, source.load(item)) for item in source.items()]


def colours(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("side", "index", "pixel"),
    # Read off OpenCV's INTER_NEAREST; floor(i * side / 128) would give 93 and 99 for 64 of 186 and 198.
    [(480, 64, 240), (480, 127, 476), (800, 100, 625), (427, 127, 423), (186, 64, 92), (198, 64, 98), (100, 127, 99)],
)
def test_the_grid_is_opencvs(side: int, index: int, pixel: int) -> None:
    ramp = np.arange(side, dtype=np.int32)[:, None].repeat(3, axis=1)
    assert releases.nearest(ramp, (128, 128))[index, 0] == pixel


# YCB-Video.


def ycb_labels(*ids: int) -> np.ndarray:
    """Class ids in 480x640; the object of ids[0] reaches into what the crop takes away on the left."""
    labels = np.zeros((480, 640), np.uint8)
    for number, identity in enumerate(ids):
        labels[40 + 50 * number : 75 + 50 * number, 70 + 20 * number : 200 + 60 * number] = identity
    return labels


def write_ycb(root: Path) -> Path:
    """Frames 0, 20, 40, 60 of the list of train and 0, 20 of that of val are taken; the other lines have no files."""
    labels = {
        "0000/000001": ycb_labels(19, 5, 12),
        "0000/000021": ycb_labels(7),
        "0001/000003": ycb_labels(1, 2, 3, 4, 5, 6, 7),
        "0001/000023": ycb_labels(2, 1),
        "0050/000001": ycb_labels(3, 4),
        "0050/000021": ycb_labels(8, 9, 10, 11, 12, 13),
    }
    train = ["0000/000001", *["0000/000009"] * 19, "0000/000021", *["0000/000009"] * 19, "0001/000003"]
    train += [*["0001/000009"] * 19, "0001/000023", "0001/000024"]
    (root / "image_sets").mkdir(parents=True)
    (root / "image_sets/train.txt").write_text("\n".join(train) + "\n")
    (root / "image_sets/val.txt").write_text("\n".join(["0050/000001", *["0050/9"] * 19, "0050/000021"]))
    for seed, (name, codes) in enumerate(labels.items()):
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(codes).save(f"{path}-label.png")
        Image.fromarray(colours(seed, 480, 640)).save(f"{path}-color.png", compress_level=0)
    return root


def test_ycb_frames_crop_and_numbers(tmp_path: Path) -> None:
    found = samples("ycb", write_ycb(tmp_path))
    # Three candidates of train are too few for a twentieth, so two are held out; one and seven objects are left out.
    assert [(split, name) for split, name, _ in found] == [
        ("train", "0000/000001"),
        ("val", "0001/000023"),
        ("test", "0050/000001"),
        ("test", "0050/000021"),
    ]
    image, mask = found[0][2].image, found[0][2].mask
    grid = np.arange(128) * 480 // 128
    codes = ycb_labels(19, 5, 12)[np.ix_(grid, 80 + grid)]
    np.testing.assert_array_equal(mask, np.select([codes == 5, codes == 12, codes == 19], [1, 2, 3]))
    pixels = colours(0, 480, 640)[np.ix_(grid, 80 + grid)]
    pixels[codes == 0] = 0
    np.testing.assert_array_equal(image, pixels)


def test_ycb_takes_objects_of_any_size(tmp_path: Path) -> None:
    root = write_ycb(tmp_path)
    codes = np.full((480, 640), 4, np.uint8)
    codes[15, 80 + 30] = 9  # one pixel, and on the grid
    Image.fromarray(codes).save(root / "data/0050/000001-label.png")
    mask = samples("ycb", root)[2][2].mask
    assert (mask == 2).sum() == 1
    assert mask[4, 8] == 2


def test_ycb_whole_way_with_survey(tmp_path: Path) -> None:
    told = []
    manifest = prepare(
        "ycb", write_ycb(tmp_path / "a"), tmp_path / "packed", progress=lambda *state: told.append(state)
    )
    assert told[0] == ("surveying", 6, 6)
    assert manifest.counts == {"train": 1, "val": 1, "test": 2}
    assert manifest.notices == ("2 of 6 pictures do not show 2 to 6 objects: left out",)
    assert manifest.options["made_from"] == "release"
    assert "the last 5 % of the list of train are val" in manifest.split_rule
    assert check(tmp_path / "packed").ok
    published = READERS["ycb"](tmp_path / "a", split="published", limit=1)
    assert [item.split for item in published.items()] == ["train", "val", "test"]
    assert published.leak == "selected on the test set"
    assert published.partial


def test_other_sizes_show_the_same_objects(tmp_path: Path) -> None:
    root = write_ycb(tmp_path)
    for side in (480, 16):
        found = samples("ycb", root, image_size=(side, side))
        assert [name for _, name, _ in found] == [name for _, name, _ in samples("ycb", root)]
    codes = ycb_labels(19, 5, 12)[:, 80:560]
    whole = samples("ycb", root, image_size=(480, 480))[0][2]
    np.testing.assert_array_equal(whole.mask, np.select([codes == 5, codes == 12, codes == 19], [1, 2, 3]))


def test_ycb_what_is_missing_or_broken(tmp_path: Path) -> None:
    root = write_ycb(tmp_path)
    label = root / "data/0000/000001-label.png"
    whole = label.read_bytes()
    label.write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"000001-label.png is a broken image"):  # and not left out in silence
        samples("ycb", root)
    Image.fromarray(ycb_labels(1, 2)[:400]).save(label)
    with pytest.raises(InputError, match="the image is 480x640, its label map 400x640"):
        samples("ycb", root)
    Image.fromarray(np.zeros((480, 640, 3), np.uint8)).save(label)
    with pytest.raises(InputError, match="has RGB pixels; a grey label map expected"):
        samples("ycb", root)
    label.write_bytes(whole)
    (root / "data/0001").rename(root / "data/elsewhere")
    source = READERS["ycb"](root)
    assert source.notices[0] == "1 videos of the lists are missing: 0001"
    assert source.partial
    (root / "image_sets/val.txt").write_text("0050/000001\n../../secret\n")
    with pytest.raises(InputError, match="is not a list of names: it has the line"):
        READERS["ycb"](root)
    (root / "image_sets/val.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot read the list"):
        READERS["ycb"](root)
    (root / "image_sets/val.txt").unlink()
    with pytest.raises(InputError, match=r"val.txt"):
        READERS["ycb"](root)


# ScanNet.


def scannet_labels(shift: int) -> np.ndarray:
    """Three objects of 10 % and less in 820x860, one of 40 %, one of 0.5 %."""
    labels = np.zeros((820, 860), np.uint8)
    labels[10:410, 30:830] = 40  # too large
    labels[420:700, 30 : 230 + shift] = 33
    labels[420:600, 300:500] = 3
    labels[620:800, 400:700] = 200
    labels[720:776, 720:770] = 90  # too small
    return labels


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=90)
    return file.getvalue()


def png(labels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(labels).save(file, format="PNG")
    return file.getvalue()


def sens(frames: list[bytes], coding: int = 2) -> bytes:
    header = struct.pack("<IQ", 4, 15) + b"StructureSensor" + np.eye(4, dtype="<f4").tobytes() * 4
    header += struct.pack("<iiIIIIfQ", coding, 1, 860, 820, 640, 480, 1000.0, len(frames))
    for number, content in enumerate(frames):
        depth = bytes(number % 7)
        header += np.eye(4, dtype="<f4").tobytes() + struct.pack("<QQQQ", number, number, len(content), len(depth))
        header += content + depth
    return header


def write_scene(folder: Path, seed: int, count: int = 41) -> list[np.ndarray]:
    """A recording whose frames 0, 20, 40, .. are pictures; all others are junk that is never to be decoded."""
    folder.mkdir(parents=True)
    images = {number: colours(seed + number, 820, 860) for number in range(0, count, 20)}
    frames = [jpeg(images[number]) if number in images else b"junk" for number in range(count)]
    (folder / f"{folder.name}.sens").write_bytes(sens(frames))
    with zipfile.ZipFile(folder / f"{folder.name}_2d-instance-filt.zip", "w") as archive:
        for number in images:
            archive.writestr(f"instance-filt/{number}.png", png(scannet_labels(number)))
    return [np.asarray(Image.open(io.BytesIO(frames[number]))) for number in images]


@pytest.fixture
def scannet(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    root = tmp_path / "scannet"
    decoded = write_scene(root / "scans/scene0000_00", 0, 81)
    write_scene(root / "scans/scene0007_01", 1000, 21)
    (root / "scannetv2_train.txt").write_text("scene0000_00\n")
    (root / "scannetv2_val.txt").write_text("scene0007_01")
    return root, decoded


def test_scannet_recordings(scannet: tuple[Path, list[np.ndarray]]) -> None:
    root, decoded = scannet
    found = samples("scannet", root)
    assert [(split, name) for split, name, _ in found] == [
        *(("train", f"scene0000_00/{number}") for number in (0, 20, 40)),
        *(("val", f"scene0000_00/{number}") for number in (60, 80)),
        *(("test", f"scene0007_01/{number}") for number in (0, 20)),
    ]
    rows, columns = 10 + np.arange(128) * 800 // 128, 30 + np.arange(128) * 800 // 128
    codes = scannet_labels(20)[np.ix_(rows, columns)]
    expected = np.select([codes == 3, codes == 33, codes == 200], [1, 2, 3])
    np.testing.assert_array_equal(found[1][2].mask, expected)
    pixels = decoded[1][np.ix_(rows, columns)].copy()
    pixels[expected == 0] = 0
    np.testing.assert_array_equal(found[1][2].image, pixels)


def test_scannet_frames_exported_already(scannet: tuple[Path, list[np.ndarray]]) -> None:
    root, decoded = scannet
    before = samples("scannet", root)
    scene = root / "scans/scene0000_00"
    (scene / "color").mkdir()
    for number in range(81):  # their order is that of the numbers, not of the names
        image = decoded[number // 20] if number % 20 == 0 else decoded[0][:1, :1]
        Image.fromarray(image).save(scene / "color" / f"{number}.png", compress_level=0)
    (scene / "scene0000_00.sens").unlink()
    with zipfile.ZipFile(scene / "scene0000_00_2d-instance-filt.zip") as archive:
        archive.extractall(scene)
    (scene / "scene0000_00_2d-instance-filt.zip").unlink()
    (root / "scannetv2_val.txt").rename(root / "scannetv2_validation.txt")
    (root / "scans/scene0007_01").rename(root / "scene0007_01")
    for (split, name, sample), (split2, name2, sample2) in zip(before, samples("scannet", root), strict=True):
        assert (split, name) == (split2, name2)
        np.testing.assert_array_equal(sample.image, sample2.image)
        np.testing.assert_array_equal(sample.mask, sample2.mask)


def test_size_limits_are_inclusive() -> None:
    kind = releases._KINDS["scannet"]
    square = np.zeros((128, 128), np.uint8)
    square.flat[:3276] = 1  # 0.19995
    square.flat[4000:4115] = 2  # 0.00702
    square.flat[5000:5114] = 3  # 0.00696
    square.flat[6000:9277] = 4  # 0.20001
    assert releases._chosen(square, kind).tolist() == [1, 2]


def test_scannet_what_is_missing_or_broken(scannet: tuple[Path, list[np.ndarray]]) -> None:
    root, _ = scannet
    scene = root / "scans/scene0007_01"
    recording, archive = scene / "scene0007_01.sens", scene / "scene0007_01_2d-instance-filt.zip"
    whole = recording.read_bytes()
    for content, message in (
        (whole[:-10], "truncated after 20 of 21 frames"),
        (whole[:300], "ends in its header"),
        (b"\5" + whole[1:], "is not a .sens file of version 4"),
        (sens([b"x"], coding=1), r"has colour coding 1; 2 \(jpeg\) expected"),
    ):
        recording.write_bytes(content)
        with pytest.raises(InputError, match=message):
            READERS["scannet"](root)
    recording.write_bytes(sens([b"no picture"]))
    with pytest.raises(InputError, match=r"scene0007_01.sens is not an image"):
        samples("scannet", root)
    recording.write_bytes(whole)
    zipped = archive.read_bytes()
    archive.write_bytes(zipped[:-30])
    with pytest.raises(InputError, match="not a whole zip file"):
        samples("scannet", root)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("instance-filt/0.png", png(scannet_labels(0)))
    with pytest.raises(InputError, match=r"has no instance-filt/20.png"):
        samples("scannet", root)
    archive.unlink()
    with pytest.raises(InputError, match=r"has neither instance-filt nor scene0007_01_2d-instance-filt.zip"):
        READERS["scannet"](root)
    archive.write_bytes(zipped)
    recording.unlink()
    with pytest.raises(InputError, match=r"has neither color nor scene0007_01.sens"):
        READERS["scannet"](root)
    (root / "scannetv2_train.txt").write_text("scene0000_00\nscene0009_00\n")
    recording.write_bytes(whole)
    assert READERS["scannet"](root).notices == ["1 scenes of the lists are missing: scene0009_00"]
    assert READERS["scannet"](root).partial


# COCO.

SIZE = (61, 80)


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def annotation(number: int, image: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    packed = reference.encode(np.asfortranarray(mask))
    packed["counts"] = packed["counts"].decode()
    return {"id": number, "image_id": image, "segmentation": packed, "area": int(mask.sum()), "iscrowd": 0, **more}


def write_coco(root: Path, train: int = 6) -> Path:
    """Three objects, the second over the first; a fourth is a crowd, and counts; a fifth is cut away by the crop."""
    masks = [rectangle(2, 12, 30, 40), rectangle(5, 20, 25, 35), rectangle(40, 50, 60, 70), rectangle(31, 11, 38, 60)]
    masks.append(rectangle(0, 71, 61, 80))
    (root / "annotations").mkdir(parents=True)
    for name, count in (("train2017", train), ("val2017", 2)):
        (root / name).mkdir()
        images, annotations = [], []
        for number in reversed(range(count)):  # ids do not follow the names
            file_name = f"{number:012d}.png"
            Image.fromarray(colours(number + 50 * (name == "val2017"), *SIZE)).save(root / name / file_name)
            images.append({"id": 900 - number, "file_name": file_name, "height": SIZE[0], "width": SIZE[1]})
            for k, mask in enumerate(masks[: 1 if number == 1 else 5]):
                annotations.append(annotation(99 - len(annotations), 900 - number, mask, iscrowd=int(k == 3)))
        content = {"images": images, "annotations": annotations, "categories": []}
        (root / f"annotations/instances_{name}.json").write_text(json.dumps(content))
    return root


def test_coco_order_crop_and_crowds(tmp_path: Path) -> None:
    found = samples("coco", write_coco(tmp_path))
    names = [(split, name.split("/")[1][11:12]) for split, name, _ in found]
    assert names == [("train", "0"), ("train", "2"), ("train", "3"), ("val", "4"), ("val", "5"), ("test", "0")]
    codes = np.zeros(SIZE, int)
    codes[2:30, 12:40] = 1
    codes[5:25, 20:35] = 2
    codes[40:60, 50:70] = 3
    codes[31:38, 11:60] = 4
    step = np.floor(np.arange(128) * (1 / (128 / 61))).astype(int)
    grid = np.ix_(step, 10 + step)  # 80 // 2 - 61 // 2, not (80 - 61) // 2
    np.testing.assert_array_equal(found[1][2].mask, codes[grid])
    pixels = colours(2, *SIZE)[grid].copy()
    pixels[codes[grid] == 0] = 0
    np.testing.assert_array_equal(found[1][2].image, pixels)


def test_upright_pictures_and_more_annotations_than_eight_bits_hold() -> None:
    masks = [np.arange(80 * 61).reshape(80, 61) // 15 == number for number in range(300)]
    outlines = tuple(
        Annotation(number, {"size": [80, 61], "counts": reference.encode(np.asfortranarray(mask))["counts"]}, False, 1)
        for number, mask in enumerate(masks)
    )
    item = Item("x", "", (), Picture(1, "x", (80, 61), outlines))
    codes = releases._coco_ids(item)
    expected = np.minimum(np.arange(80 * 61) // 15 + 1, 255) * (np.arange(80 * 61) < 4500)
    np.testing.assert_array_equal(codes, expected.reshape(80, 61))
    square = releases._square(codes, releases._KINDS["coco"], item)
    np.testing.assert_array_equal(square, codes[10:71])  # 80 // 2 - 61 // 2


def test_coco_archives(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "a")
    (tmp_path / "zips").mkdir()
    for name in ("train2017", "val2017", "annotations"):
        archive = "annotations_trainval2017" if name == "annotations" else name
        with zipfile.ZipFile(tmp_path / f"zips/{archive}.zip", "w") as file:
            for path in sorted((root / name).iterdir()):
                file.write(path, f"{name}/{path.name}")
    plain = prepare("coco", root, tmp_path / "plain")
    assert prepare("coco", tmp_path / "zips", tmp_path / "packed").fingerprint == plain.fingerprint
    assert PackedDataset(tmp_path / "plain", "test").names() == ["val2017/000000000000.png"]


def test_coco_what_is_missing_or_broken(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    (root / "val2017/000000000000.png").unlink()
    with pytest.raises(InputError, match=r"000000000000.png does not exist"):
        samples("coco", root)
    Image.fromarray(colours(0, 80, 61)).save(root / "val2017/000000000000.png")
    with pytest.raises(InputError, match="is 80x61, the JSON says 61x80"):
        samples("coco", root)
    Image.fromarray(colours(0, *SIZE)).save(root / "val2017/000000000000.png")
    content["annotations"][-1]["segmentation"]["size"] = [80, 61]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"annotation 94 is malformed: its run lengths are of size \[80, 61\]"):
        samples("coco", root)
    content["images"][0]["height"] = content["images"][0]["width"] = 10**9
    content["annotations"] = [
        {"id": k, "image_id": 899, "segmentation": [[0, 0, 9, 0, 9, 9]], "iscrowd": 0} for k in range(3)
    ]
    path.write_text(json.dumps(content))  # nothing of that size is allocated
    Image.fromarray(colours(0, 61, 80)).save(root / "val2017/000000000001.png")
    with pytest.raises(InputError, match="the JSON says 1000000000x1000000000"):
        samples("coco", root)
    path.unlink()
    with pytest.raises(InputError, match=r"instances_val2017.json does not exist"):
        READERS["coco"](root)


def test_nothing_to_keep(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    for path in root.glob("annotations/*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    with pytest.raises(InputError, match="none of 8 pictures shows 2 to 6 objects"):
        READERS["coco"](root)
    with pytest.raises(InputError, match="variant 'C' needs the folders image_C"):
        READERS["coco"](root, variant="C")


@pytest.mark.parametrize("name", ["coco", "scannet"])
def test_damage_is_an_input_error_or_harmless(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    if name == "coco":
        write_coco(root)
    else:
        write_scene(root / "scene1", 0, 61)
        write_scene(root / "scene2", 9, 1)
        (root / "scannetv2_train.txt").write_text("scene1\n")
        (root / "scannetv2_val.txt").write_text("scene2\n")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    rng = random.Random(0)
    refused: list[str] = []
    for attempt in range(30):
        path = rng.choice(files)
        whole = path.read_bytes()
        changed = bytearray(whole)
        reach = min(len(changed), 2000)  # where the headers are
        match attempt % 3:
            case 0:
                for _ in range(3):
                    changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
            case 1:
                del changed[rng.randrange(len(changed)) :]
            case 2:
                changed = bytearray(rng.choice(files).read_bytes())
        path.write_bytes(changed)
        try:
            manifest = prepare(name, root, tmp_path / f"packed{attempt}", workers=1)
            assert sum(manifest.counts.values()) > 0
        except InputError as error:
            refused.append(str(error))
        path.write_bytes(whole)
    assert len(refused) >= 8
    assert not any("\n" in message for message in refused)


def test_val_is_whole_videos() -> None:
    def frames(video: str, count: int) -> list[Item]:
        return [Item(f"{video}/{index}", "", (Path(video, f"{index}.png"),)) for index in range(count)]

    train = frames("0001", 30) + frames("0002", 40) + frames("0003", 30)
    items, _ = releases.arrange(train, frames("0004", 5), "clean")
    assert {item.name.split("/")[0] for item in items if item.split == "val"} == {"0003"}
    assert {item.name.split("/")[0] for item in items if item.split == "train"} == {"0001", "0002"}
    items, _ = releases.arrange(frames("train2017", 100), frames("val2017", 5), "clean")  # one folder of photographs
    assert sum(item.split == "val" for item in items) == 5
