"""Dogs and cars: token lists, channel order, both splits, masks of a network."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data import PackedDataset, prepare
from boqsa.data.catalog import CATALOG
from boqsa.data.mimic.content import Content
from boqsa.data.mimic.drc import write_cars, write_dogs
from boqsa.data.readers import drc
from boqsa.data.readers.source import Source, held_out_by_hash
from boqsa.errors import InputError

Damage = Callable[[Path, np.random.Generator], None]

HELD_OUT = next(number for number in range(1, 100) if held_out_by_hash(str(number)))
TRAIN = [HELD_OUT, 101, 102]
TEST = [7, 8]


def mask_of(token: int) -> np.ndarray:
    mask = np.zeros((24, 36), np.uint8)
    mask[2 : 8 + token % 5, 20:30] = 255
    mask[2:8, 30] = 127
    return mask


def image_of(token: int) -> np.ndarray:
    image = np.full((24, 36, 3), (10, 200, 30), np.uint8)
    image[mask_of(token) == 255] = (255, token, 0)  # red, so that exchanged channels show
    return image


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    """Dogs with lists of integers beside `data_mrcnn`; one mask has three channels."""
    root = tmp_path / "dogs"
    for part, tokens in (("train", TRAIN), ("test", TEST)):
        folder = root / "data_mrcnn" / part / "resized"
        folder.mkdir(parents=True)
        for token in tokens:
            Image.fromarray(image_of(token)).save(folder / f"{token}_resized.png")
            mask = mask_of(token)
            Image.fromarray(np.dstack([mask] * 3) if token == 101 else mask).save(folder / f"{token}_maskresized.png")
    np.save(root / "data_tr_sel.npy", np.array(TRAIN))
    np.save(root / "data_te_sel.npy", np.array(TEST))
    return root


def as_cars(root: Path) -> None:
    (root / "data_tr_sel.npy").rename(root / "data_mrcnn_train_select.npy")
    (root / "data_te_sel.npy").rename(root / "data_mrcnn_test_select.npy")


def names(source: Source) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in source.items():
        found.setdefault(item.split, []).append(item.name)
    return found


@pytest.mark.parametrize("read", [drc.read_dogs, drc.read_cars])
def test_clean_split(read: Callable[..., Source], dogs: Path) -> None:
    if read is drc.read_cars:
        as_cars(dogs)
    source = read(dogs, image_size=(24, 36))
    assert names(source) == {
        "train": ["train/101", "train/102"],
        "val": [f"train/{HELD_OUT}"],
        "test": ["test/7", "test/8"],
    }
    assert not source.leak
    assert not source.partial
    assert "pseudo ground truth" in source.notices[0]
    for item in source.items():
        sample = source.load(item)
        token = int(item.name.split("/")[1])
        np.testing.assert_array_equal(sample.image, image_of(token))
        np.testing.assert_array_equal(sample.mask, mask_of(token) > 127)
    assert pickle.loads(pickle.dumps(source.load)).keywords == source.load.keywords


def test_published_split_leaks_and_says_so(dogs: Path, tmp_path: Path) -> None:
    source = drc.read_dogs(dogs, split="published")
    everything = [f"train/{token}" for token in TRAIN]
    assert names(source) == {"train": everything, "val": everything, "test": ["test/7", "test/8"]}
    assert source.leak == "selected on training masks"
    manifest = prepare("dogs", dogs, tmp_path / "packed", split="published", image_size=(24, 36))
    assert manifest.leak == "selected on training masks"
    assert "3 images occur both in train and in val" in manifest.notices


def test_bgr_swaps_red_and_blue(dogs: Path) -> None:
    source = drc.read_dogs(dogs, image_size=(12, 12), channel_order="bgr")
    item = next(iter(source.items()))
    straight = drc.read_dogs(dogs, image_size=(12, 12)).load(item).image
    swapped = source.load(item).image
    np.testing.assert_array_equal(swapped, straight[..., ::-1])
    assert straight[..., 0].max() > 200 > straight[..., 2].max()
    assert source.options["channel_order"] == "bgr"


def test_published_masks_have_dots(dogs: Path) -> None:
    source = drc.read_dogs(dogs, image_size=(24, 36), mask_resample="published")
    mask = source.load(next(iter(source.items()))).mask
    assert 0 < mask[2:8, 30].sum() < 6


@pytest.mark.parametrize("where", ["data_mrcnn", "data_mrcnn/train", "data_mrcnn/train/resized", "../"])
def test_lists_lie_anywhere(where: str, dogs: Path, tmp_path: Path) -> None:
    expected = names(drc.read_dogs(dogs))
    for name in ("data_tr_sel.npy", "data_te_sel.npy"):
        (dogs / name).rename(dogs / where / name)
    assert names(drc.read_dogs(tmp_path)) == expected
    if where != "../":
        assert names(drc.read_dogs(dogs / "data_mrcnn")) == expected


def test_archive(dogs: Path, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    shutil.make_archive(str(tmp_path / "downloads/dogs"), "zip", tmp_path, "dogs")
    manifest = prepare("dogs", tmp_path / "downloads", tmp_path / "packed", image_size=(8, 8))
    assert manifest.counts == {"train": 2, "val": 1, "test": 2}


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (np.array([3, 12], np.int32), ["3", "12"]),
        (np.array(["n02085620-Chihuahua/n02085620_10074", "b"]), ["n02085620-Chihuahua/n02085620_10074", "b"]),
        (np.array([b"00001", b"2"]), ["00001", "2"]),
    ],
)
def test_kinds_of_tokens(tokens: np.ndarray, expected: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", tokens)
    assert drc.read_tokens(tmp_path / "a.npy") == expected


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.array(["a", None], object), "without pickle, expected"),
        (np.array([1.0, 2.0]), r"holds float64 \(2,\); a one-dimensional"),
        (np.array([[1, 2]]), r"holds int64 \(1, 2\)"),
        (np.array(["../a"]), r"the token '\.\./a', which names no file"),
        (np.array(["/a"]), "names no file"),
        (np.array(["a\nb"]), r"the token 'a\\nb'"),
        (np.array([b"\xff"]), "a token that is no text"),
        (np.array([], int), "a.npy"),
    ],
)
def test_lists_that_are_none(tokens: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", tokens, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        drc.read_tokens(tmp_path / "a.npy")


def test_impossible_characters(tmp_path: Path) -> None:
    for order in "<>":
        np.save(tmp_path / "a.npy", np.array(["ab", "c"], order + "U2"))
        assert drc.read_tokens(tmp_path / "a.npy") == ["ab", "c"]
        content = bytearray((tmp_path / "a.npy").read_bytes())
        content[-16:-12] = b"\xff\xff\xff\xff"
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(InputError, match="a token that is no text"):
            drc.read_tokens(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["empty", "text", "npz", "promise", "pickle"])
def test_files_that_are_no_list(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    if kind == "npz":
        with open(path, "wb") as file:
            np.savez(file, a=np.arange(3))
    elif kind == "promise":
        with open(path, "wb") as file:
            header = {"descr": "<i8", "fortran_order": False, "shape": (10**12,)}
            np.lib.format.write_array_header_1_0(file, header)
    else:
        path.write_bytes({"empty": b"", "text": b"1\n2\n", "pickle": pickle.dumps([1, 2])}[kind])
    with pytest.raises(InputError, match=r"a\.npy.*a one-dimensional \.npy of integers or strings"):
        drc.read_tokens(path)


def test_missing_pieces_and_unknown_words(dogs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no data_mrcnn_train_select\.npy, the list of tokens"):
        drc.read_cars(dogs)
    for option, message in (("channel_order", "rgb, bgr"), ("split", "clean, published"), ("mask_resample", "pil")):
        with pytest.raises(InputError, match=f"{option} 'x' is unknown; choose one of {message}"):
            drc.read_dogs(dogs, **{option: "x"})
    np.save(dogs / "data_tr_sel.npy", np.array([*TRAIN, 101]))
    assert drc.read_dogs(dogs).notices[1] == "the list of train names 1 tokens more than once: 101"
    limited = drc.read_dogs(dogs, limit=1)
    assert [len(found) for found in names(limited).values()] == [1, 1, 1]
    assert limited.partial
    shutil.rmtree(dogs / "data_mrcnn/test")
    with pytest.raises(InputError, match="does not hold train/resized and test/resized"):
        drc.read_dogs(dogs)


def test_a_broken_pair_is_an_error_of_its_sample(dogs: Path, tmp_path: Path) -> None:
    folder = dogs / "data_mrcnn/train/resized"
    (folder / "101_maskresized.png").unlink()
    Image.fromarray(mask_of(102)[1:]).save(folder / "102_maskresized.png")
    with pytest.raises(InputError, match=r"101_maskresized\.png does not exist.*--skip-broken"):
        prepare("dogs", dogs, tmp_path / "packed")
    manifest = prepare("dogs", dogs, tmp_path / "packed", skip_broken=2)
    assert manifest.counts == {"val": 1, "test": 2}
    assert manifest.skipped[1].endswith("is 23x36; they must agree")


@pytest.mark.parametrize(("name", "write"), [("dogs", write_dogs), ("cars", write_cars)])
def test_mimic(name: str, write: Callable[[Path, Content], Path], tmp_path: Path) -> None:
    content = Content(count=24, seed=2)
    manifest = prepare(name, write(tmp_path / "mimic", content), tmp_path / "packed", image_size=(120, 144))
    assert manifest.counts == {"train": 16, "val": 4, "test": 4}
    assert "pseudo ground truth" in CATALOG[name].foreground
    for split, first in (("train", 0), ("val", 4), ("test", 5)):
        image, mask = content.scene(first, (120, 144))
        packed = PackedDataset(tmp_path / "packed", split).batch([0])
        np.testing.assert_array_equal(packed["image"][0].permute(1, 2, 0), image)
        np.testing.assert_array_equal(packed["mask"][0], mask > 0)


def test_damage_ends_in_an_input_error_or_a_good_result(dogs: Path, tmp_path: Path, damage: Damage) -> None:
    files = [path.relative_to(dogs) for path in sorted(dogs.rglob("*.*")) if path.is_file()]
    files = files[:4] + [path for path in files if path.suffix == ".npy"] * 2
    refused = 0
    for seed in range(18):
        rng = np.random.default_rng(seed)
        shutil.copytree(dogs, tmp_path / "bad", dirs_exist_ok=True)
        damage(tmp_path / "bad" / files[seed % len(files)], rng)
        try:
            manifest = prepare("dogs", tmp_path / "bad", tmp_path / f"packed{seed}", image_size=(4, 4))
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
        else:
            assert sum(manifest.counts.values()) <= 5
    assert 4 <= refused < 18
