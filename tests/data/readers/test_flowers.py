"""Flowers: both splits, both mask rules, and `setid.mat` in every state."""

import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from boqsa.data import PackedDataset, prepare
from boqsa.data.mimic.content import Content
from boqsa.data.mimic.flowers import write_flowers
from boqsa.data.readers import flowers
from boqsa.data.readers.source import Source
from boqsa.errors import InputError

Damage = Callable[[Path, np.random.Generator], None]

IDS = {"trnid": [5, 3], "valid": [2], "tstid": [1, 4, 8189]}
SIZE = (32, 48)
PETAL, LEAF = (slice(0, 16), slice(24, 48)), (slice(16, 24), slice(24, 32))


def painted(number: int) -> np.ndarray:
    """A petal of pure red (no green) in the upper right and a grey part below it, on blue."""
    pixels = np.full((*SIZE, 3), (0, 0, 254), np.uint8)
    pixels[PETAL] = (255, 0, 0)
    pixels[LEAF] = (120, 100, 40 + number % 40)
    return pixels


def flower() -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[PETAL] = mask[LEAF] = 1
    return mask


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for folder, stem in (("jpg", "image"), ("segmim", "segmim")):
        (root / folder).mkdir(parents=True)
        for number in sorted(number for numbers in IDS.values() for number in numbers):
            pixels = painted(number)
            if folder == "jpg":
                pixels[flower() == 0] = (30, 140, 60)
            Image.fromarray(pixels).save(root / folder / f"{stem}_{number:05d}.jpg", quality=97, subsampling=0)
    write_ids(root / "setid.mat")
    return root


def write_ids(path: Path, **other: object) -> None:
    savemat(path, {name: np.array([numbers], np.uint16) for name, numbers in IDS.items()} | other)


def names(source: Source) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for item in source.items():
        found.setdefault(item.split, []).append(int(item.name[6:11]))
    return found


def test_splits(source: Path) -> None:
    clean = flowers.read(source)
    assert names(clean) == {"train": [5, 3], "val": [2], "test": [1, 4, 8189]}
    assert list(flowers.read(source, split="official").items()) == list(clean.items())
    published = flowers.read(source, split="published")
    assert names(published) == {"train": [1, 4, 8189], "val": [2], "test": [5, 3]}
    assert clean.partial
    assert not published.leak
    assert "exchanged" in published.split_rule
    assert clean.options == {"mask_rule": "robust", "split": "clean"}
    assert published.options == {"mask_rule": "published", "split": "published"}
    assert flowers.read(source, split="published", mask_rule="robust").options["mask_rule"] == "robust"
    assert names(flowers.read(source, limit=1)) == {"train": [5], "val": [2], "test": [1]}


def test_image_and_robust_mask(source: Path) -> None:
    opened = flowers.read(source, image_size=(16, 12))
    item = next(iter(opened.items()))
    sample = opened.load(item)
    with Image.open(source / "jpg/image_00005.jpg") as picture:
        np.testing.assert_array_equal(sample.image, np.asarray(picture.resize((12, 16), Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(sample.mask, flower()[1::2, 2::4])
    assert pickle.loads(pickle.dumps(opened.load)).keywords == opened.load.keywords


def test_rules_on_colours() -> None:
    colours = {
        (0, 0, 254): (0, 0),
        (3, 2, 250): (0, 1),  # near blue, as a JPEG has it
        (40, 40, 200): (0, 1),
        (41, 40, 200): (1, 1),
        (40, 41, 200): (1, 1),
        (40, 40, 199): (1, 1),
        (255, 0, 0): (1, 0),  # a pure red petal
        (0, 90, 90): (1, 0),
        (90, 90, 254): (1, 0),
        (120, 100, 40): (1, 1),
    }
    pixels = np.array([list(colours)], np.uint8)
    assert flowers.robust_mask(pixels)[0].tolist() == [robust for robust, _ in colours.values()]
    assert flowers.published_mask(pixels, (1, len(colours)))[0].tolist() == [seen for _, seen in colours.values()]


def test_published_mask_is_resized_linearly_and_cut_at_a_half() -> None:
    pixels = np.full((1, 6, 3), (0, 0, 254), np.uint8)
    pixels[0, [0, 1, 3]] = (9, 9, 9)
    # Two pixels wide, each of triangles over six: weights 1, 3, 5, 5, 3(, 1) of 17 on the first five.
    assert flowers.published_mask(pixels, (1, 2)).tolist() == [[1, 0]]
    pixels[0, 1] = (0, 0, 254)
    assert flowers.published_mask(pixels, (1, 2)).tolist() == [[0, 0]]


def test_published_rule_makes_holes(source: Path) -> None:
    opened = flowers.read(source, split="published", image_size=SIZE)
    mask = opened.load(next(iter(opened.items()))).mask
    assert mask[2:12, 28:44].mean() < 0.2  # the red petal is lost
    assert mask[18:22, 26:30].all()


@pytest.mark.usefixtures("safe_tar")
def test_pieces_apart_and_archives(source: Path, tmp_path: Path) -> None:
    packed = tmp_path / "downloads"
    (packed / "lists").mkdir(parents=True)
    for name, folder in (("102flowers", "jpg"), ("102segmentations", "segmim")):
        made = shutil.make_archive(str(tmp_path / name), "gztar", source, folder)
        Path(made).rename(packed / f"{name}.tgz")
    shutil.copy(source / "setid.mat", packed / "lists")
    first = prepare("flowers", packed, tmp_path / "a", image_size=(8, 8))
    assert first.counts == {"train": 2, "val": 1, "test": 3}
    assert first.fingerprint == prepare("flowers", source, tmp_path / "b", image_size=(8, 8)).fingerprint


@pytest.mark.parametrize("piece", ["jpg", "segmim", "setid.mat"])
def test_missing_pieces(piece: str, source: Path) -> None:
    (source / piece).rename(source / "other")
    with pytest.raises(InputError, match=f"does not hold {piece}"):
        flowers.read(source)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"valid": np.array([["a"]])}, "valid of .* is char 1x1.*; 1xN numbers expected"),
        ({"valid": np.array([[1, 2], [3, 4]])}, "valid of .* is numeric 2x2"),
        ({"valid": np.arange(9000)[None]}, "valid of .* has numbers outside"),
        ({"valid": np.array([[0]])}, "numbers outside of 1 to 8,189"),
        ({"valid": np.array([[8190]])}, "numbers outside"),
        ({"valid": np.array([[np.nan]])}, "numbers outside"),
        ({"valid": np.array([[2.5]])}, "numbers outside"),
        ({"valid": np.array([[1 + 2j]])}, "valid of .* is complex 1x1"),
        ({"valid": np.array([[2, 4, 2]])}, "names 2, 4 more than once"),
        ({"valid": np.zeros((1, 0))}, "valid of .* is numeric 1x0"),
        ({"valid": {"a": 1}}, "valid of .* is struct"),
    ],
)
def test_set_ids_that_are_wrong(other: dict[str, object], message: str, tmp_path: Path) -> None:
    write_ids(tmp_path / "setid.mat", **other)
    with pytest.raises(InputError, match=message):
        flowers.read_set_ids(tmp_path / "setid.mat")


def test_set_ids_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "setid.mat"
    write_ids(path, tstid=np.array([[1.0], [4.0], [8189.0]]))  # a column, as floats
    assert flowers.read_set_ids(path) == IDS
    savemat(path, {name: np.array([numbers]) for name, numbers in IDS.items()}, do_compression=True)
    assert flowers.read_set_ids(path) == IDS
    savemat(path, {"trnid": [[1]], "tstid": [[2]], "other": {"valid": 3}})
    with pytest.raises(InputError, match="has no valid; it has trnid, tstid"):
        flowers.read_set_ids(path)


def test_big_endian_set_ids(tmp_path: Path) -> None:
    body = b""
    for name, numbers in IDS.items():
        content = struct.pack(f">{len(numbers)}H", *numbers)
        parts = struct.pack(">IIII", 6, 8, 11, 0) + struct.pack(">IIii", 5, 8, 1, len(numbers))
        parts += struct.pack(">II", 1, 5) + name.encode().ljust(8, b"\0")
        small = len(content) <= 4
        parts += struct.pack(">HH", len(content), 4) if small else struct.pack(">II", 4, len(content))
        parts += content.ljust(4 if small else 8, b"\0")
        body += struct.pack(">II", 14, len(parts)) + parts
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    (tmp_path / "setid.mat").write_bytes(header + body)
    assert flowers.read_set_ids(tmp_path / "setid.mat") == IDS


def test_files_that_are_no_set_ids(tmp_path: Path) -> None:
    path = tmp_path / "setid.mat"
    for content in (b"", b"trnid = 1, 2, 3", b"\x89HDF\r\n\x1a\n" + bytes(600), bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"setid\.mat is no MAT file of MATLAB 5"):
            flowers.read_set_ids(path)
    savemat(path, {name: np.array([numbers]) for name, numbers in IDS.items()}, format="4")
    with pytest.raises(InputError, match="is no MAT file of MATLAB 5"):
        flowers.read_set_ids(path)
    with open(path, "wb") as file:
        file.truncate(1 << 30)  # sparse
    with pytest.raises(InputError, match="larger than 1 MB"):
        flowers.read_set_ids(path)


def test_every_cut_of_set_ids_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "setid.mat"
    for compressed in (False, True):
        savemat(path, {name: np.array([numbers]) for name, numbers in IDS.items()}, do_compression=compressed)
        content = path.read_bytes()
        for length in range(0, len(content) - 8, 5):
            path.write_bytes(content[:length])
            with pytest.raises(InputError, match=r"setid\.mat"):
                flowers.read_set_ids(path)


def test_a_mat_that_promises_gigabytes(tmp_path: Path) -> None:
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    flags, dimensions = struct.pack("<IIII", 6, 8, 6, 0), struct.pack("<IIii", 5, 8, 1, 2_000_000_000)
    parts = flags + dimensions + struct.pack("<II", 1, 5) + b"trnid\0\0\0" + struct.pack("<II", 9, 8) + bytes(8)
    matrix = struct.pack("<II", 14, len(parts)) + parts
    bomb = zlib.compress(bytes(50_000_000), 9)
    for body, message in (
        (matrix, "2000000000 numbers expected in 8 bytes"),
        (struct.pack("<II", 15, len(zlib.compress(matrix))) + zlib.compress(matrix), "2000000000 numbers expected"),
        (struct.pack("<II", 14, 4_000_000_000) + parts, "it ends too early"),
        (struct.pack("<II", 15, len(bomb)) + bomb, "an element unpacks to more than 1 MB"),
    ):
        (tmp_path / "setid.mat").write_bytes(header + body)
        with pytest.raises(InputError, match=message):
            flowers.read_set_ids(tmp_path / "setid.mat")


def test_a_broken_pair_is_an_error_of_its_sample(source: Path, tmp_path: Path) -> None:
    (source / "segmim/segmim_00005.jpg").unlink()
    Image.fromarray(painted(3)[1:]).save(source / "segmim/segmim_00003.jpg")
    with pytest.raises(InputError, match=r"segmim_00005\.jpg does not exist.*--skip-broken"):
        prepare("flowers", source, tmp_path / "packed")
    manifest = prepare("flowers", source, tmp_path / "packed", skip_broken=2)
    assert manifest.counts == {"val": 1, "test": 3}
    assert manifest.skipped[1].endswith("segmim_00003.jpg is 31x48; they must agree")


def test_unknown_words(source: Path) -> None:
    with pytest.raises(InputError, match="split 'x' is unknown; choose one of clean, official, published"):
        flowers.read(source, split="x")
    with pytest.raises(InputError, match="mask_rule 'x' is unknown; choose one of robust, published"):
        flowers.read(source, mask_rule="x")


def test_mimic(tmp_path: Path) -> None:
    content = Content(count=24, seed=4)
    manifest = prepare("flowers", write_flowers(tmp_path / "mimic", content), tmp_path / "packed", image_size=(60, 72))
    assert manifest.counts == {"train": 16, "val": 4, "test": 4}
    for split, first in (("train", 0), ("val", 4)):
        _, mask = content.scene(first, (120, 144))
        packed = PackedDataset(tmp_path / "packed", split).batch([0])["mask"][0].numpy() == 1
        expected = mask[1::2, 1::2] > 0
        assert (packed & expected).sum() / (packed | expected).sum() > 0.97  # a JPEG blurs the border


def test_damage_ends_in_an_input_error_or_a_good_result(source: Path, tmp_path: Path, damage: Damage) -> None:
    files = [Path("setid.mat")] * 3 + [Path("jpg/image_00005.jpg"), Path("segmim/segmim_00003.jpg")]
    refused = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shutil.copytree(source, tmp_path / "bad", dirs_exist_ok=True)
        damage(tmp_path / "bad" / files[seed % len(files)], rng)
        try:
            manifest = prepare("flowers", tmp_path / "bad", tmp_path / f"packed{seed}", image_size=(4, 4))
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
        else:
            assert sum(manifest.counts.values()) <= 6
    assert 4 <= refused < 20
