"""Arrays: layouts, names, types, splits, files larger than memory should be, and refusals."""

import io
import json
import random
import re
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from boqsa.data import PackedDataset, prepare
from boqsa.data.mimic import Content, mimic
from boqsa.data.readers import Sample, Source, arrays
from boqsa.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
MASKS = np.random.default_rng(1).integers(-1, 5, (10, 8, 8))
LABELS = np.where(MASKS < 0, 255, MASKS)


def save_npz(folder: Path, **content: Any) -> Path:
    np.savez(folder / "a.npz", **content)
    return folder / "a.npz"


def save_compressed(folder: Path, **content: Any) -> Path:
    np.savez_compressed(folder / "a.npz", **content)
    return folder / "a.npz"


def save_hdf5(folder: Path, **content: Any) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        for name, values in content.items():
            file[name] = values.astype("S") if values.dtype.kind == "U" else values
    return folder / "a.h5"


def save_chunked(folder: Path, **content: Any) -> Path:
    with h5py.File(folder / "a.hdf5", "w") as file:
        for name, values in content.items():
            stored = values.astype("S") if values.dtype.kind == "U" else values
            file.create_dataset(
                name, data=stored, chunks=(3, *(min(2, side) for side in stored.shape[1:])), compression="gzip"
            )
    return folder / "a.hdf5"


SAVERS = [save_npz, save_compressed, save_hdf5, save_chunked]
Saver = Callable[..., Path]


@pytest.fixture(params=SAVERS)
def save(request: pytest.FixtureRequest) -> Saver:
    saver: Saver = request.param
    return saver


def loaded(source: Source) -> list[Sample]:
    return [source.load(item) for item in source.items()]


def splits(source: Source) -> list[str]:
    return [item.split for item in source.items()]


@pytest.mark.parametrize("block", [1, 700, 1 << 20])
@pytest.mark.parametrize(("channels_first", "names"), [(False, ("image", "mask")), (True, ("images", "masks"))])
def test_layouts_names_and_formats(
    block: int,
    channels_first: bool,
    names: tuple[str, str],
    save: Saver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrays, "_BLOCK_BYTES", block)  # one row at a time, three, all
    monkeypatch.setattr(arrays, "_MOST_BLOCK_BYTES", block)
    images = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)) if channels_first else IMAGES
    source = arrays.read(save(tmp_path, **{names[0]: images, names[1]: MASKS}))
    samples = loaded(source)
    np.testing.assert_array_equal([sample.image for sample in samples], IMAGES)
    np.testing.assert_array_equal([sample.mask for sample in samples], LABELS)
    assert splits(source) == ["train"] * 8 + ["val", "test"]
    assert [item.name for item in source.items()] == [f"image {index}" for index in range(10)]
    assert source.task == "multi-object"
    assert not source.partial


def test_npy_is_images_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    samples = loaded(arrays.read(tmp_path / "a.npy"))
    np.testing.assert_array_equal([sample.image for sample in samples], IMAGES)
    assert samples[0].mask is None
    (tmp_path / "a.npy").rename(tmp_path / "a.txt")  # the content tells what it is
    assert arrays.read(tmp_path / "a.txt").total == 10


@pytest.mark.parametrize("shape", [(10, 8, 8, 1), (10, 1, 8, 8)])
def test_masks_may_have_an_axis_of_one(shape: tuple[int, ...], save: Saver, tmp_path: Path) -> None:
    samples = loaded(arrays.read(save(tmp_path, image=IMAGES, mask=MASKS.reshape(shape))))
    np.testing.assert_array_equal([sample.mask for sample in samples], LABELS)


@pytest.mark.parametrize("kind", ["i1", "u1", ">i4", "<u8"])
def test_integer_types_of_masks(kind: str, save: Saver, tmp_path: Path) -> None:
    masks = (np.abs(MASKS) if "u" in kind else MASKS).astype(kind)
    samples = loaded(arrays.read(save(tmp_path, image=IMAGES, mask=masks)))
    np.testing.assert_array_equal([sample.mask for sample in samples], np.abs(MASKS) if "u" in kind else LABELS)


def test_given_splits_and_a_limit_for_each(save: Saver, tmp_path: Path) -> None:
    names = ["test", "train"] * 5
    path = save(tmp_path, image=IMAGES, split=np.array(names))
    source = arrays.read(path)
    assert splits(source) == names
    assert source.split_rule == "as the array 'split' says"
    limited = arrays.read(path, limit=2)
    assert splits(limited) == names[:4]
    assert limited.total == 4
    assert limited.partial
    by_order = arrays.read(save(tmp_path, image=IMAGES), limit=1)
    assert [(item.split, item.name) for item in by_order.items()] == [
        ("train", "image 0"),
        ("val", "image 8"),
        ("test", "image 9"),
    ]


def test_wrong_splits(save: Saver, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'split' has '\.\./x'"):
        arrays.read(save(tmp_path, image=IMAGES, split=np.array(["../x"] * 10)))
    for wrong in (np.array(["train"] * 9), np.arange(10)):
        with pytest.raises(InputError, match="one string for each of the 10 images"):
            arrays.read(save(tmp_path, image=IMAGES, split=wrong))


def test_too_many_splits(tmp_path: Path) -> None:
    names = np.array([f"s{index}" for index in range(101)])
    with pytest.raises(InputError, match="more than 100 names"):
        arrays.read(save_npz(tmp_path, image=np.zeros((101, 2, 2, 3), np.uint8), split=names))


def test_size_and_crop(tmp_path: Path) -> None:
    path = save_npz(tmp_path, image=IMAGES[:, :6], mask=MASKS[:, :6])
    source = arrays.read(path)
    assert source.image_size == (6, 6)
    assert source.notices == ["images of 6x8 were cropped to their central square"]
    np.testing.assert_array_equal(loaded(source)[0].image, IMAGES[0, :6, 1:7])
    np.testing.assert_array_equal(loaded(source)[0].mask, LABELS[0, :6, 1:7])
    whole = arrays.read(path, crop="none")
    assert whole.image_size == (6, 8)
    assert not whole.notices
    np.testing.assert_array_equal(loaded(whole)[0].mask, LABELS[0, :6])
    assert loaded(arrays.read(path, image_size=(4, 2)))[0].image.shape == (4, 2, 3)
    with pytest.raises(InputError, match="crop 'box' is unknown"):
        arrays.read(path, crop="box")  # type: ignore[arg-type]


def test_boolean_and_black_and_white_masks_are_foreground(save: Saver, tmp_path: Path) -> None:
    for mask in (MASKS > 2, np.where(MASKS > 2, 255, 0).astype(np.uint8)):
        source = arrays.read(save(tmp_path, image=IMAGES, mask=mask))
        assert source.task == "foreground"
        assert source.notices == ([] if mask.dtype == bool else [arrays.FOREGROUND])
        np.testing.assert_array_equal([sample.mask for sample in loaded(source)], (MASKS > 2).astype(int))


def test_one_label_anywhere_makes_255_ignore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_BLOCK_BYTES", 1)
    mask = np.where(MASKS > 2, 255, 0)
    mask[0, 7, 7] = 3  # the blocks after it have 0 and 255 alone
    source = arrays.read(save_npz(tmp_path, image=IMAGES, mask=mask))
    np.testing.assert_array_equal([sample.mask for sample in loaded(source)], mask)
    assert source.task == "multi-object"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"picture": IMAGES}, "(no array 'image'; it has picture|no dataset 'image'; it has picture)"),
        ({"image": IMAGES / 255}, r"float64.*multiply \[0, 1\] images by 255"),
        ({"image": IMAGES[..., 0]}, r"uint8 \(N, H, W, 3\) or"),
        ({"image": IMAGES[..., :2]}, r"\(10, 8, 8, 2\)"),
        ({"image": IMAGES, "mask": MASKS[:9]}, r"shape \(9, 8, 8\)"),
        ({"image": IMAGES, "mask": MASKS / 2}, "integer labels expected"),
        ({"image": IMAGES, "mask": MASKS * 100}, "labels from -100 to 400"),
        ({"image": IMAGES, "mask": MASKS.astype(np.uint64)}, "labels from 0 to 18446744073709551615"),
    ],
)
def test_wrong_content(content: dict[str, Any], message: str, save: Saver, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        arrays.read(save(tmp_path, **content))


def test_nothing_in_it(tmp_path: Path) -> None:
    for save_empty in (save_npz, save_hdf5):
        with pytest.raises(InputError, match=r"\(0, 8, 8, 3\)"):
            arrays.read(save_empty(tmp_path, image=IMAGES[:0]))
    with pytest.raises(InputError, match=r"no dataset 'image'; it has none"):
        arrays.read(save_hdf5(tmp_path))
    with pytest.raises(InputError, match=r"a\.npz"):
        arrays.read(save_npz(tmp_path))


def test_pickled_and_scattered_arrays(tmp_path: Path) -> None:
    objects = np.array([{}], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    for path in (tmp_path / "a.npy", save_npz(tmp_path, image=objects)):
        with pytest.raises(InputError, match="pickled"):
            arrays.read(path)
    np.save(tmp_path / "a.npy", np.asfortranarray(IMAGES))
    for path in (tmp_path / "a.npy", save_npz(tmp_path, image=IMAGES, mask=np.asfortranarray(MASKS))):
        with pytest.raises(InputError, match=r"Fortran order; save numpy\.ascontiguousarray"):
            arrays.read(path)


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 64, 64, 3), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 64, 64, 3), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (), }",
        "{'descr': '|V7', 'fortran_order': False, 'shape': (1, 2), }",
        "{'descr': [('a', 'u1')], 'fortran_order': False, 'shape': (1, 2), }",
        "{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,), }",
        "(" * 9000,
        "'''",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (1, 2), }",
        "\xff\xfe",
    ],
)
def test_headers_are_not_believed(header: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy(header, b"abc"))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", npy(header, b"abc"))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=re.escape(str(tmp_path / name))):
            arrays.read(tmp_path / name)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        arrays.read(tmp_path / "none.npz")
    with pytest.raises(InputError, match="is not a file"):
        arrays.read(tmp_path)
    for name in ("empty.npz", "text.npz", "text.npy", "text.h5"):
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"hello")
        with pytest.raises(InputError, match=f"{re.escape(name)} is neither an .npz, an .npy nor an HDF5 file"):
            arrays.read(tmp_path / name)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_truncated_files(share: float, save: Saver, tmp_path: Path) -> None:
    path = save(tmp_path, image=IMAGES, mask=MASKS)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf"cannot read .*{path.name}: .*; it is truncated or damaged"):
        arrays.read(path)
    np.save(tmp_path / "a.npy", IMAGES)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"a\.npy: .* truncated or damaged"):
        arrays.read(tmp_path / "a.npy")


@pytest.mark.filterwarnings("error")
def test_a_flipped_bit_of_an_npz_is_found_before_the_first_sample(tmp_path: Path) -> None:
    path = save_npz(tmp_path, image=IMAGES, mask=MASKS)
    content = bytearray(path.read_bytes())
    content[900] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"CRC-32.*'image\.npy'"):
        arrays.read(path)


def test_hdf5_that_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    cases: list[tuple[Callable[[h5py.File], Any], str]] = [
        (lambda file: file.create_group("image"), "no dataset 'image'"),
        (lambda file: file.create_dataset("image", shape=(10**12, 8, 8, 3), dtype="u1", chunks=True), "claims"),
        (
            lambda file: file.create_dataset("image", shape=(10**5, 64, 64, 2), dtype="u1", chunks=(10**5, 64, 64, 2)),
            "chunks of 781 MiB",
        ),
        (lambda file: file.create_dataset("image", data=np.float64(3)), "a plain array expected"),
        (lambda file: file.create_dataset("image", data=["a", "b"]), r"variable length; save .* dtype='S'"),
        (lambda file: file.create_dataset("image", data=np.array(["a", "b"], "S")), "uint8"),
        (
            lambda file: file.create_dataset("image", (2, 8, 8, 3), "u1", external=[("b", 0, h5py.h5f.UNLIMITED)]),
            "lies in other files",
        ),
    ]
    for make, message in cases:
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(InputError, match=message):
            arrays.read(path)
    path.rename(tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["image"] = IMAGES
    with h5py.File(path, "w") as file:
        file["image"] = h5py.ExternalLink("b.h5", "/image")
    with pytest.raises(InputError, match="lies in other files"):
        arrays.read(path)


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_hdf5(tmp_path, image=IMAGES)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"an HDF5 file, which needs h5py: pip install 'boqsa\[hdf5\]'"):
        arrays.read(path)


@pytest.mark.parametrize("kind", ["npz", "npy", "h5"])
def test_memory_does_not_grow_with_the_arrays(kind: str, tmp_path: Path) -> None:
    count, side = 4_000, 48
    images = np.broadcast_to(np.arange(side, dtype=np.uint8)[:, None], (count, side, side, 3))  # 27 MB
    masks = np.broadcast_to(np.arange(side) // 20, (count, side, side))  # 74 MB
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez_compressed(path, image=images[:1000], mask=masks[:1000])
    elif kind == "npy":
        np.save(path, images)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("image", data=images, chunks=(50, side, side, 3), compression="lzf")
            file.create_dataset("mask", data=masks, chunks=(50, side, side), compression="lzf")
    tracemalloc.start()
    source = arrays.read(path)
    used = sum(len(item.facts) for item in source.items())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used > 8 << 20
    assert peak < 18 << 20


def test_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_BLOCK_BYTES", 5 * 8 * 8 * 11)
    seen: list[tuple[str, int, int]] = []
    arrays.read(save_npz(tmp_path, image=IMAGES, mask=MASKS), progress=lambda *told: seen.append(told))
    assert seen == [("verifying", 3520, 7040), ("verifying", 7040, 7040)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_mutations_are_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        save_compressed(tmp_path, image=IMAGES, mask=MASKS, split=np.array(["train", "test"] * 5))
    else:
        np.save(path, IMAGES)
    refused = _prepare_mutated(path, path.read_bytes(), 36, tmp_path)
    assert refused > 12


def test_mutated_hdf5_is_refused_or_harmless(tmp_path: Path) -> None:
    """In a process of its own: a broken file could take the HDF5 library, and these tests, with it."""
    path = save_chunked(tmp_path, image=IMAGES, mask=MASKS, split=np.array(["train", "test"] * 5))
    script = (
        "import importlib.util, json, pathlib, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"  # of its own time: a busy machine is no hang
        "spec = importlib.util.spec_from_file_location('tests_of_arrays', sys.argv[1])\n"
        "tests = importlib.util.module_from_spec(spec); spec.loader.exec_module(tests)\n"
        "path = pathlib.Path(sys.argv[2])\n"
        "print(json.dumps(tests._prepare_mutated(path, path.read_bytes(), 24, path.parent)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, __file__, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) > 5


def _prepare_mutated(path: Path, whole: bytes, trials: int, folder: Path) -> int:
    """Prepare `trials` damaged copies; how many were refused. Any other exception goes through."""
    rng = random.Random(0)
    refused = 0
    for trial in range(trials):
        content = bytearray(whole)
        place = rng.randrange(min(len(content), 300 if trial % 4 == 0 else len(content)))
        if trial % 3 == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif trial % 3 == 1:
            del content[place:]
        else:
            other = rng.randrange(len(content))
            content[place], content[other] = content[other], content[place]
        path.write_bytes(content)
        try:
            manifest = prepare("arrays", path, folder / f"out{trial}")
            assert sum(manifest.counts.values()) == 10
        except InputError:
            refused += 1
    return refused


def test_resumed_to_the_same_bytes(save: Saver, tmp_path: Path) -> None:
    path = save(tmp_path, image=IMAGES, mask=MASKS)
    whole = prepare("arrays", path, tmp_path / "whole")

    def stop(what: str, done: int, _: int) -> None:
        if (what, done) == ("packing", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("arrays", path, tmp_path / "resumed", progress=stop)
    assert prepare("arrays", path, tmp_path / "resumed").fingerprint == whole.fingerprint
    assert whole.options == {"crop": "centre", "limit": None}


def test_npz_of_another_writer(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("readme.txt", "not an array")
        for name, values in {"image": IMAGES, "split": np.array([b"train"] * 10)}.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, values, version=(2, 0))
            archive.writestr(f"{name}.npy", buffer.getvalue())
    source = arrays.read(tmp_path / "a.npz")
    assert splits(source) == ["train"] * 10
    np.testing.assert_array_equal(loaded(source)[9].image, IMAGES[9])


def test_rendered_arrays(shared: Path, tmp_path: Path) -> None:
    path = shared / "objectsroom_like" / "data.npz"
    with np.load(path) as expected:
        images, masks = expected["image"][-1], expected["mask"][-1]
    source = arrays.read(path)
    *_, last = source.items()
    assert (source.total, source.task) == (5_000, "multi-object")
    np.testing.assert_array_equal(source.load(last).image, images)
    np.testing.assert_array_equal(source.load(last).mask, masks)


def test_mimic(tmp_path: Path) -> None:
    stand_in = mimic("arrays", tmp_path / "in", count=24)
    manifest = prepare("arrays", stand_in.path, tmp_path / "out")
    assert manifest.counts == {"train": 20, "val": 2, "test": 2}
    assert len(manifest.notices) == 1  # that it is a stand-in
    batch = PackedDataset(tmp_path / "out", "test").batch([1])
    image, mask = Content(24).scene(23, (64, 64))
    np.testing.assert_array_equal(batch["mask"][0], mask)
    np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0), image)
