"""The uORF sets: grouping by scene, cameras, ranks of grey, decoys, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data import prepare
from boqsa.data.mimic import Content
from boqsa.data.mimic.views import write_clevr567, write_room_diverse
from boqsa.data.packed import PackedDataset
from boqsa.data.readers import views
from boqsa.data.readers.source import held_out_by_hash
from boqsa.errors import InputError

BLACK, DARK, RED, LIGHT = (0, 0, 0), (30, 30, 30), (200, 10, 10), (150, 220, 90)  # greys 0, 30, 67, 184


def colours_of(scene: int, view: int) -> np.ndarray:
    """A mask of 48x48: dark background, a black strip, two objects; nothing is symmetric."""
    mask = np.empty((48, 48, 3), np.uint8)
    mask[:] = DARK
    mask[:5, :30] = BLACK
    mask[10:20, 6 : 26 + view] = LIGHT
    mask[30:44, 20 : 30 + scene] = RED
    return mask


def labels_of(scene: int, view: int) -> np.ndarray:
    labels = np.zeros((48, 48), np.uint8)
    labels[:5, :30] = 1
    labels[30:44, 20 : 30 + scene] = 2
    labels[10:20, 6 : 26 + view] = 3
    return labels


def camera_of(scene: int, view: int) -> np.ndarray:
    turn = 0.3 + scene + view
    camera = np.eye(4)
    camera[:3, :3] = [[np.cos(turn), -np.sin(turn), 0], [0, 0, -1], [np.sin(turn), np.cos(turn), 0]]
    camera[:3, 3] = [scene + 1, view - 9.5, 3]
    return camera


def write(root: Path, stem: str = "clevr_567", scenes: tuple[int, int] = (2, 2), count: int = 5) -> Path:
    """Scenes x views in each folder, names as published, and files of scene editing among them."""
    draw = np.random.default_rng(0)
    for split, of_split in zip(("train", "test"), scenes, strict=True):
        folder = root / f"{stem}_{split}"
        folder.mkdir(parents=True)
        for scene in range(of_split):
            for view in range(count):
                number = view * of_split + scene  # names do not sort by scene
                name = f"{number:05d}_sc{scene:04d}_az{view:02d}_el{scene:02d}"
                pixels = draw.integers(0, 256, (48, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}.png")
                Image.fromarray(colours_of(scene, view)).save(folder / f"{name}_mask.png")
                np.savetxt(folder / f"{name}_RT.txt", camera_of(scene, view))
                np.savetxt(folder / f"{name}_azi_rot.txt", camera_of(scene, view)[[0, 2, 1], :3])
                np.save(folder / f"{name}_depth.npy", np.zeros((48, 48, 1), np.float32))
        for ending in views.NO_IMAGES[1:]:
            (folder / f"00000_sc0000_az00_el00{ending}").write_bytes(b"a decoy")
        (folder / "._00000_sc0000_az00_el00.png").write_bytes(b"left by a file browser")
    return root


def first(folder: Path) -> Path:
    return folder / "clevr_567_test" / "00000_sc0000_az00_el00.png"


def beside(folder: Path, ending: str) -> Path:
    return first(folder).with_name(first(folder).stem + ending)


def test_views_of_a_scene_are_together_in_the_order_of_their_names(tmp_path: Path) -> None:
    source = views.read_clevr567(write(tmp_path), split="published")
    items = list(source.items())
    assert [item.split for item in items] == ["train"] * 10 + ["test"] * 10
    assert [item.name for item in items[:6]] == [
        f"clevr_567_train/{2 * view:05d}_sc0000_az{view:02d}_el00.png" for view in range(5)
    ] + ["clevr_567_train/00001_sc0001_az00_el01.png"]
    for place, item in enumerate(items[:10]):
        sample = source.load(item)
        scene, view = divmod(place, 5)
        assert sample.extras["scene"] == scene
        np.testing.assert_allclose(sample.extras["camera"], camera_of(scene, view), atol=1e-6)
        np.testing.assert_allclose(sample.extras["azimuth"], camera_of(scene, view)[[0, 2, 1], :3], atol=1e-6)
    assert source.partial
    assert not source.notices
    assert not source.leak


def test_image_and_mask_by_hand(tmp_path: Path) -> None:
    root = write(tmp_path)
    source = views.read_clevr567(root, image_size=(24, 24))
    item = next(item for item in source.items() if item.split == "test")
    sample = source.load(item)
    np.testing.assert_array_equal(sample.mask, labels_of(0, 0)[1::2, 1::2])
    with Image.open(first(root)) as picture:
        expected = picture.resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample.image, np.asarray(expected))
    assert not sample.notices


def test_labels_are_the_published_ranks(tmp_path: Path) -> None:
    """Grey by Pillow, levels ascending, background = the second."""
    root = write(tmp_path)
    source = views.read_clevr567(root, image_size=(48, 48), split="published")
    with Image.open(beside(root, "_mask.png")) as picture:
        ranks = np.unique(np.asarray(picture.convert("L")), return_inverse=True)[1].reshape(48, 48)
    mask = source.load(list(source.items())[10]).mask
    np.testing.assert_array_equal(mask == 0, ranks == 1)
    np.testing.assert_array_equal(mask, np.array([1, 0, 2, 3])[ranks])


def test_clean_holds_out_whole_scenes(tmp_path: Path) -> None:
    root = write(tmp_path, "room_chair", scenes=(12, 1), count=2)
    source = views.read_room_chair(root)
    found: dict[str, set[int]] = {}
    for item in source.items():
        found.setdefault(item.split, set()).add(item.facts[0])
    assert found == {"train": set(range(12)) - {0, 9, 10}, "val": {0, 9, 10}, "test": {0}}
    assert [number for number in range(12) if held_out_by_hash(str(number))] == [0, 9, 10]
    manifest = prepare("room_chair", root, tmp_path / "packed", image_size=(16, 16))
    assert manifest.counts == {"train": 18, "val": 6, "test": 2}
    assert manifest.task == "views"
    assert manifest.extras == ("scene", "camera", "azimuth")
    val = PackedDataset(tmp_path / "packed", "val")
    assert val.batch(range(6))["scene"].tolist() == [0, 0, 9, 9, 10, 10]
    published = prepare("room_chair", root, tmp_path / "published", image_size=(16, 16), split="published")
    assert published.counts == {"train": 24, "test": 2}


def test_one_folder_is_enough_and_a_parent_may_be_named_like_a_scene(tmp_path: Path) -> None:
    root = write(tmp_path / "sc0001", scenes=(1, 2))
    for given in (root / "clevr_567_test", tmp_path, root):
        source = views.read_clevr567(given, split="published")
        assert [item.facts[0] for item in source.items() if item.split == "test"] == [0] * 5 + [1] * 5
    with pytest.raises(InputError, match="does not hold room_diverse_train or room_diverse_test"):
        views.read_room_diverse(root)


def test_the_last_scene_number_of_a_name_counts(tmp_path: Path) -> None:
    root = write(tmp_path, scenes=(0, 1))
    for path in (root / "clevr_567_test").glob("00*"):
        path.rename(path.with_name(f"sc0007_{path.name}"))
    assert [item.facts[0] for item in views.read_clevr567(root).items()] == [0] * 5


def test_a_split_without_masks_and_a_mask_that_is_missing(tmp_path: Path) -> None:
    root = write(tmp_path)
    for path in (root / "clevr_567_train").glob("*_mask.png"):
        path.unlink()
    beside(root, "_mask.png").unlink()
    source = views.read_clevr567(root, split="published")
    items = list(source.items())
    assert source.load(items[0]).mask is None
    assert source.load(items[11]).mask is not None
    with pytest.raises(InputError, match=r"el00_mask\.png does not exist"):
        source.load(items[10])


def test_a_missing_azimuth_is_that_of_the_camera_and_counted(tmp_path: Path) -> None:
    root = write(tmp_path)
    beside(root, "_azi_rot.txt").unlink()
    manifest = prepare("clevr567", root, tmp_path / "packed", image_size=(16, 16))
    assert any(
        "1 images: no _azi_rot.txt, the azimuth is computed from the camera" in notice for notice in manifest.notices
    )
    sample = PackedDataset(tmp_path / "packed", "test")[0]
    towards = camera_of(0, 0)[:2, 2]
    along = sample["azimuth"].numpy() @ [np.linalg.norm(towards), 0, 0]
    np.testing.assert_allclose(along, [*towards, 0], atol=1e-6)
    np.testing.assert_allclose(sample["camera"].numpy(), camera_of(0, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("colours", "labels", "notice"),
    [
        ([DARK, DARK, DARK, DARK], [0, 0, 0, 0], "one grey level"),
        ([DARK, RED, RED, DARK], [1, 0, 0, 1], "the darkest level of the mask is not black"),
        ([BLACK, DARK, (100, 0, 0), (0, 51, 0)], [1, 0, 3, 2], "colours of one grey level"),  # greys 0, 30, 30, 30
        ([BLACK, (30, 30, 31), LIGHT, RED], [1, 0, 3, 2], ""),
    ],
)
def test_odd_masks(colours: list[tuple[int, int, int]], labels: list[int], notice: str, tmp_path: Path) -> None:
    root = write(tmp_path)
    mask = np.repeat(np.repeat(np.array(colours, np.uint8).reshape(2, 2, 3), 24, 0), 24, 1)
    Image.fromarray(mask).save(beside(root, "_mask.png"))
    source = views.read_clevr567(root, image_size=(48, 48), split="published")
    sample = source.load(list(source.items())[10])
    if "colours of" in notice:
        labels = [1, 0, 0, 0]  # all of the second level is background, as published
    np.testing.assert_array_equal(sample.mask[::24, ::24].ravel(), labels)
    assert [phrase for phrase in sample.notices if notice and notice in phrase] == list(sample.notices)
    assert bool(sample.notices) == bool(notice)


def test_two_objects_of_one_grey_stay_two(tmp_path: Path) -> None:
    root = write(tmp_path)
    mask = np.zeros((48, 48, 3), np.uint8)
    mask[:, 10:] = DARK
    mask[:, 20:] = (201, 0, 0)  # grey 60
    mask[:, 30:] = (0, 102, 1)  # grey 60
    Image.fromarray(mask).save(beside(root, "_mask.png"))
    source = views.read_clevr567(root, image_size=(48, 48), split="published")
    sample = source.load(list(source.items())[10])
    assert sample.notices == ("colours of one grey level in the mask",)
    assert sample.mask is not None
    assert sample.mask[0, [0, 10, 20, 30]].tolist() == [1, 0, 3, 2]


IDENTITY = "1 0 0 0\n0 1 0 0\n0 0 1 0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (IDENTITY + "0 0 0 2", "the last row is"),
        ("2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "not orthonormal"),
        ("1 0.01 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "not orthonormal"),
        ("1e38 1e38 1e38 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "not orthonormal"),
        ("1 0 0 nan\n0 1 0 0\n0 0 1 0\n0 0 0 1", "all of them finite"),
        ("1 0 0 1e300\n0 1 0 0\n0 0 1 0\n0 0 0 1", "all of them finite"),
        (IDENTITY, "12 numbers; 16 numbers of a 4x4 matrix expected"),
        ("", "0 numbers"),
        ("1 " * 100_000, "numbers of a 4x4 matrix"),
        ("1 0 x", "cannot read"),
        ("\xff\xfe", "cannot read"),
    ],
)
def test_malformed_cameras(text: str, message: str, tmp_path: Path) -> None:
    root = write(tmp_path)
    beside(root, "_RT.txt").write_text(text, encoding="latin-1")
    source = views.read_clevr567(root, split="published")
    with pytest.raises(InputError, match=message) as refusal:
        source.load(list(source.items())[10])
    assert "_RT.txt" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_other_refusals(tmp_path: Path) -> None:
    root = write(tmp_path)
    source = views.read_clevr567(root, split="published")
    item = list(source.items())[10]
    beside(root, "_azi_rot.txt").write_text("1 0 0 0 1 0 0 0 3")
    with pytest.raises(InputError, match=r"_azi_rot\.txt: its rotation is not orthonormal"):
        source.load(item)
    beside(root, "_azi_rot.txt").write_text("1 0 0 0 1 0 0 0 1")
    source.load(item)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(
        beside(root, "_mask.png")
    )
    with pytest.raises(InputError, match="colours; a mask has one for each surface"):
        source.load(item)
    Image.new("L", (48, 47)).save(beside(root, "_mask.png"))
    with pytest.raises(InputError, match=r"is 48x48, its mask .* is 47x48; they must agree"):
        source.load(item)
    Image.new("RGB", (48, 47)).save(first(root))
    with pytest.raises(InputError, match="is 47x48; a square image expected"):
        source.load(item)
    beside(root, "_RT.txt").unlink()
    Image.new("RGB", (48, 48)).save(first(root))
    with pytest.raises(InputError, match=r"_RT\.txt: No such file"):
        source.load(item)
    with pytest.raises(InputError, match="choose one of clean, published"):
        views.read_clevr567(root, split="official")
    with pytest.raises(InputError, match="does not exist"):
        views.read_clevr567(root / "none")
    (tmp_path / "empty" / "clevr_567_train").mkdir(parents=True)
    with pytest.raises(InputError, match="has no images"):
        views.read_clevr567(tmp_path / "empty")


def test_names_without_a_scene_and_uneven_scenes_are_reported(tmp_path: Path) -> None:
    root = write(tmp_path)
    first(root).with_name("thumbnail.png").touch()
    first(root).with_name("00001_sc99999999999_az00.png").touch()
    first(root).unlink()
    source = views.read_clevr567(root)
    assert source.notices == [
        "2 pictures of clevr_567_test have no scene number in their name and are left out: "
        "00001_sc99999999999_az00.png, thumbnail.png",
        "scenes of clevr_567_test have from 4 to 5 views",
    ]
    assert source.total == 19


def test_mutations_give_an_error_or_a_good_result(tmp_path: Path) -> None:
    root = write(tmp_path / "source", scenes=(0, 1), count=2)
    paths = [beside(root, ending) for ending in (".png", "_mask.png", "_RT.txt", "_azi_rot.txt")]
    originals = {path: path.read_bytes() for path in paths}
    draw = np.random.default_rng(0)
    refused = 0
    for trial in range(40):
        path = paths[trial % 4]
        content = bytearray(originals[path])
        if trial % 3 == 0:
            del content[int(draw.integers(0, len(content))) :]
        else:
            for place in draw.integers(0, len(content), 2):
                content[place] = int(draw.integers(0, 256))
        path.write_bytes(content)
        try:
            prepare("clevr567", root, tmp_path / f"packed{trial}", image_size=(16, 16))
        except InputError:
            refused += 1
        else:
            sample = PackedDataset(tmp_path / f"packed{trial}", "test")[0]
            assert np.isfinite(sample["camera"].numpy()).all()
        path.write_bytes(originals[path])
    assert refused > 10


def test_mimicked(tmp_path: Path) -> None:
    content = Content(6, 0)
    manifest = prepare("clevr567", write_clevr567(tmp_path / "views", content), tmp_path / "packed")
    assert manifest.counts == {"train": 15, "val": 5, "test": 10}
    packed = PackedDataset(tmp_path / "packed", "test")
    for scene, index in enumerate((4, 5)):  # scenes 4 and 5 of the content are 0 and 1 of test
        _, masks, cameras, _ = content.views(index, 5, 128)
        for view in range(5):
            sample = packed[5 * scene + view]
            seen, ranks = np.unique(masks[view], return_inverse=True)
            assert seen[0] == 0
            np.testing.assert_array_equal(sample["mask"].numpy(), ranks.reshape(128, 128))
            np.testing.assert_allclose(sample["camera"].numpy(), cameras[view], atol=1e-6)
            assert sample["scene"] == scene
    assert write_room_diverse(tmp_path / "room", content) == tmp_path / "room"
