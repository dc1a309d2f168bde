"""Preparing: the whole way, on any number of processes, through interruptions; refusals leave nothing behind."""

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boqsa.data import PackedDataset, packing, prepare, preparing
from boqsa.data.mimic import WRITERS, mimic
from boqsa.data.preparing import workplace_of
from boqsa.data.readers import READERS
from boqsa.errors import BusyError, InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
MASKS = np.random.default_rng(1).integers(0, 4, (20, 8, 8))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.savez(tmp_path / "source.npz", image=IMAGES, mask=MASKS)
    return tmp_path / "source.npz"


def write_photos(folder: Path, count: int) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(count):
        Image.fromarray(RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(folder / f"images/{index:03}.png")
        Image.fromarray(RNG.integers(0, 3, (24, 20), dtype=np.uint8)).save(folder / f"masks/{index:03}.png")
    return folder


def test_the_whole_way(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    target = tmp_path / "new" / "packed"
    manifest = prepare("arrays", source, target, progress=lambda *told: seen.append(told))
    assert manifest.counts == {"train": 16, "val": 2, "test": 2}
    assert [told for told in seen if told[0] == "packing"] == [("packing", index, 20) for index in range(1, 21)]
    val = PackedDataset(target, "val")
    np.testing.assert_array_equal(val.batch([0, 1])["image"].permute(0, 2, 3, 1), IMAGES[16:18])
    np.testing.assert_array_equal(val.batch([0, 1])["mask"], MASKS[16:18])
    names = val.names()
    assert names is not None
    assert len(names) == 2
    assert manifest.source == str(source)
    assert sorted(path.name for path in target.parent.iterdir()) == ["packed"]


def test_twice_the_same_on_any_number_of_processes(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 150)
    Image.fromarray(RNG.integers(0, 256, (24, 20, 4), dtype=np.uint8)).save(photos / "images/007.png")
    (photos / "images/100.png").write_bytes(b"broken")
    one = prepare("folder", photos, tmp_path / "a", image_size=(12, 16), skip_broken=1, workers=1)
    two = prepare("folder", photos, tmp_path / "b", image_size=(12, 16), skip_broken=1, workers=2)
    assert one == two
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()
    assert sum(one.counts.values()) == 149
    assert "100.png" in one.skipped[0]
    assert any("1 images: alpha dropped, in images/007.png" in notice for notice in one.notices)


def test_an_empty_target_is_taken(source: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    prepare("arrays", source, tmp_path / "packed")
    with pytest.raises(InputError, match="not empty"):
        prepare("arrays", source, tmp_path / "packed")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("array", {}, "did you mean arrays"),
        ("scenes", {}, "built in"),
        ("arrays", {"masks": "m"}, "'arrays' has no option --masks; it has --size, "),
        ("arrays", {"image_size": (0, 8)}, "image_size is 0; a whole number from 1 to 4096"),
        ("arrays", {"image_size": (8, 5000)}, "image_size is 5000"),
        ("arrays", {"image_size": 8}, r"image_size is 8; \(height, width\) expected"),
        ("arrays", {"limit": -1}, "limit is -1; a whole number from 1 expected"),
        ("arrays", {"skip_broken": -1}, "skip_broken is -1; a whole number from 0 expected"),
        ("arrays", {"workers": 0}, "workers is 0; a whole number from 1 expected"),
        ("folder", {}, "not a folder"),
        ("objectsroom", {}, "not a TFRecord file"),
        ("shapestacks", {}, "not a folder"),
    ],
)
def test_refusals_leave_nothing(name: str, options: dict[str, Any], message: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        prepare(name, source, tmp_path / "new" / "packed", **options)
    assert list(tmp_path.iterdir()) == [source]


def test_targets_that_cannot_be(source: Path) -> None:
    for target, message in (("", "no name of its own"), ("..", "no name"), (source, "is a file")):
        with pytest.raises(InputError, match=message):
            prepare("arrays", source, target)
    too_long = "x" * 300
    for target in (source / "inside", source.parent / too_long, source.parent / "new" / too_long):
        with pytest.raises(InputError, match="cannot write"):
            prepare("arrays", source, target)
    assert list(source.parent.iterdir()) == [source]


def test_a_full_disk_is_no_wrong_target(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left on device"):
        prepare("arrays", source, tmp_path / "packed")


def test_no_space_is_said_before_anything_is_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Little:
        free = 100

    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda _: Little)
    with pytest.raises(InputError, match=r"needs up to 0\.0 GB, 0\.0 GB are free"):
        prepare("arrays", source, tmp_path / "packed")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_image_stops_it_and_leaves_nothing(workers: int, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 12)
    content = (photos / "images/005.png").read_bytes()
    (photos / "images/005.png").write_bytes(content[: len(content) // 2])
    (photos / "images/007.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"005\.png.*--skip-broken 10"):
        prepare("folder", photos, tmp_path / "packed", workers=workers)
    with pytest.raises(InputError, match=r"005\.png.*007\.png.*; 1 were allowed"):
        prepare("folder", photos, tmp_path / "packed", workers=workers, skip_broken=1)
    assert list(tmp_path.iterdir()) == [photos]
    manifest = prepare("folder", photos, tmp_path / "packed", workers=workers, skip_broken=2)
    assert sum(manifest.counts.values()) == 10
    assert [name in text for name, text in zip(("005", "007"), manifest.skipped, strict=True)] == [True, True]


def test_nothing_but_broken_images(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    for path in (photos / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"no image of .* can be used"):
        prepare("folder", photos, tmp_path / "none", skip_broken=9)
    assert list(tmp_path.iterdir()) == [photos]


def test_leaks_between_splits_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.concatenate([IMAGES[:10], IMAGES[:10]]))
    manifest = prepare("arrays", tmp_path / "a.npz", tmp_path / "packed")
    assert {notice for notice in manifest.notices if "occur both" in notice} == {
        "2 images occur both in train and in val",
        "2 images occur both in train and in test",
    }


def test_archives_are_unpacked_and_removed(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 6)
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    direct = prepare("folder", photos, tmp_path / "a")
    zipped = prepare("folder", tmp_path / "photos.zip", tmp_path / "b")
    assert direct.fingerprint == zipped.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "photos", "photos.zip"]


# --- interruptions ---


def interrupt_at(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next pass be stopped, as by Ctrl-C, after so many samples."""
    original = preparing._Journal.add

    def add(self: preparing._Journal, *arguments: Any) -> None:
        original(self, *arguments)
        if self.done == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(preparing._Journal, "add", add)


def test_an_interrupted_pass_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", 30)
    (photos / "images/002.png").write_bytes(b"")
    whole = prepare("folder", photos, tmp_path / "whole", skip_broken=3)
    for count in (1, 5, 17, 29):
        with monkeypatch.context() as patch:
            interrupt_at(count, patch)
            with pytest.raises(KeyboardInterrupt):
                prepare("folder", photos, tmp_path / "cut", skip_broken=3)
        assert workplace_of(tmp_path / "cut").is_dir()
        assert not (tmp_path / "cut").exists()
    seen: list[tuple[str, int, int]] = []
    cut = prepare("folder", photos, tmp_path / "cut", skip_broken=3, progress=lambda *told: seen.append(told))
    assert [told for told in seen if told[0] == "packing"] == [("packing", 30, 30)]
    assert cut == whole
    assert not workplace_of(tmp_path / "cut").exists()


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["hashing", "fsync", "replace"])
def test_a_stop_after_the_last_sample_loses_nothing(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", 12)
    whole = prepare("folder", photos, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_SECONDS_BETWEEN_JOURNALS", 0.0)
        if at == "hashing":
            patch.setattr(packing.hashlib, "file_digest", stop)
        else:
            real = preparing.move_into_place
            patch.setattr(preparing, "move_into_place", lambda *given: (patch.setattr(os, at, stop), real(*given)))
        with pytest.raises(KeyboardInterrupt):
            prepare("folder", photos, tmp_path / "cut")
    seen: list[tuple[str, int, int]] = []
    assert prepare("folder", photos, tmp_path / "cut", progress=lambda *told: seen.append(told)) == whole
    assert "packing" not in {what for what, *_ in seen}, "all samples were done"
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == sorted(["manifest.json", *whole.sha256])


@pytest.mark.parametrize("change", ["options", "a file that was done", "journal", "arrays", "what all masks mean"])
def test_it_starts_again_where_it_cannot_go_on(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", 12)
    if change == "what all masks mean":
        for path in (photos / "masks").iterdir():
            Image.fromarray(RNG.integers(0, 2, (24, 20), dtype=np.uint8) * 255).save(path)
    with monkeypatch.context() as patch:
        interrupt_at(8, patch)
        with pytest.raises(KeyboardInterrupt):
            prepare("folder", photos, tmp_path / "packed")
    place = workplace_of(tmp_path / "packed")
    size = (16, 16) if change == "options" else None
    if change == "a file that was done":
        Image.fromarray(RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(photos / "images/003.png")
    elif change == "journal":
        (place / "journal.json").write_text("{")
    elif change == "what all masks mean":  # 0 and 255 alone were foreground; one label 7 makes them labels and ignore
        Image.fromarray(np.full((24, 20), 7, np.uint8)).save(photos / "masks/011.png")
    elif change == "arrays":
        (place / "packed/train.image.000.npy").unlink()
    packed = prepare("folder", photos, tmp_path / "packed", image_size=size)
    assert packed.fingerprint == prepare("folder", photos, tmp_path / "fresh", image_size=size).fingerprint


def write_archive(path: Path, photos: Path) -> Path:
    """A tar as a script makes it that wants the same bytes each time: all of the same old date; or a zip."""
    if path.suffix == ".zip":
        return Path(shutil.make_archive(str(path.with_suffix("")), "zip", photos))
    if not hasattr(tarfile, "data_filter"):  # as `safe_tar`, where a parameter says which kind is written
        pytest.skip("Python 3.11.4 or later is needed to unpack tar files")
    with tarfile.open(path, "w") as archive:
        for file in sorted(photos.glob("*/*")):
            member = archive.gettarinfo(file, file.relative_to(photos).as_posix())
            member.mtime = 0
            archive.addfile(member, io.BytesIO(file.read_bytes()))
    return path


def write_bitmaps(folder: Path, names: range) -> Path:
    """Pictures that all have the same number of bytes."""
    (folder / "images").mkdir(parents=True)
    for name in names:
        Image.fromarray(RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(folder / f"images/{name:03}.bmp")
    return folder


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_an_archive_goes_on_where_it_was(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_archive(tmp_path / f"a{suffix}", write_bitmaps(tmp_path / "photos", range(10)))
    with monkeypatch.context() as patch:
        interrupt_at(6, patch)
        with pytest.raises(KeyboardInterrupt):
            prepare("folder", source, tmp_path / "packed")
    seen: list[tuple[str, int, int]] = []
    prepare("folder", source, tmp_path / "packed", progress=lambda *told: seen.append(told))
    assert seen == [("packing", done, 10) for done in range(7, 11)], "nothing is unpacked anew"


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("names", [range(10), range(5, 15)])
@pytest.mark.parametrize("under", ["another name", "the same name"])
def test_two_archives_are_never_mixed(
    under: str, names: range, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_archive(tmp_path / f"a{suffix}", write_bitmaps(tmp_path / "first", range(10)))
    with monkeypatch.context() as patch:
        interrupt_at(6, patch)
        with pytest.raises(KeyboardInterrupt):
            prepare("folder", first, tmp_path / "packed")
    later = write_archive(tmp_path / f"b{suffix}", write_bitmaps(tmp_path / "later", names))
    if under == "the same name":
        later = later.replace(first)
    manifest = prepare("folder", later, tmp_path / "packed")
    assert sum(manifest.counts.values()) == 10
    assert manifest.fingerprint == prepare("folder", later, tmp_path / "fresh").fingerprint


@pytest.mark.parametrize("name", WRITERS)
def test_every_set_can_go_on(name: str, tmp_path: Path) -> None:
    """What a journal compares must be the same when the same files are listed again, by another process too."""
    source = mimic(name, tmp_path / "source", count=6)
    chains = []
    for _ in range(2):
        opened = READERS[name](source.path, **source.options)
        chain = preparing._first_link(opened)
        assert " at 0x" not in chain
        for item in opened.items():
            assert isinstance(item.facts, bytes) or " at 0x" not in repr(item.facts)
            chain = preparing._linked(chain, item)
        chains.append(chain)
    assert chains[0] == chains[1]


def test_a_file_that_was_mended_lets_it_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", 12)
    whole = (photos / "images/009.png").read_bytes()
    (photos / "images/009.png").write_bytes(b"")
    monkeypatch.setattr(preparing, "_SECONDS_BETWEEN_JOURNALS", 0.0)
    with pytest.raises(InputError, match=r"009\.png.*9 of 12 samples are kept; the same command goes on"):
        prepare("folder", photos, tmp_path / "packed")
    (photos / "images/009.png").write_bytes(whole)
    seen: list[tuple[str, int, int]] = []
    prepare("folder", photos, tmp_path / "packed", progress=lambda *told: seen.append(told))
    assert [done for what, done, _ in seen if what == "packing"] == [10, 11, 12]


def test_two_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", 3)

    def meanwhile(*_: Any) -> None:
        with pytest.raises(BusyError, match="another process is preparing"):
            prepare("folder", photos, tmp_path / "packed")

    prepare("folder", photos, tmp_path / "packed", progress=meanwhile)
    assert (tmp_path / "packed/manifest.json").exists()


KILLED = """
import sys, time
from boqsa.data import preparing
if __name__ == "__main__":
    preparing._SECONDS_BETWEEN_JOURNALS = 0.0
    append = preparing._append
    def slow(*arguments):
        append(*arguments)
        print("one", flush=True)
        time.sleep(0.002)
    preparing._append = slow
    preparing.prepare("folder", sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
"""


@pytest.mark.system
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_ten_times_it_ends_with_the_same_bytes(workers: int, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 200)
    whole = prepare("folder", photos, tmp_path / "whole")
    (tmp_path / "killed.py").write_text(KILLED)
    chance = random.Random(workers)
    kills = 0
    for _ in range(40):
        command = [sys.executable, str(tmp_path / "killed.py"), str(photos), str(tmp_path / "cut"), str(workers)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        if kills < 10:
            for _ in range(chance.randint(1, 30)):
                child.stdout.readline()
            time.sleep(chance.uniform(0, 0.01))
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.communicate(timeout=60)
        if child.returncode == 0:
            break
    assert kills == 10
    assert PackedDataset(tmp_path / "cut", "train").manifest == whole
    ours = json.loads((tmp_path / "cut/manifest.json").read_text())
    assert ours == json.loads((tmp_path / "whole/manifest.json").read_text())


def test_a_stand_in_is_told_from_the_data_set(tmp_path: Path) -> None:
    source = mimic("ycb", tmp_path / "source", count=6).path
    shutil.make_archive(str(tmp_path / "packed-source"), "zip", tmp_path / "source")
    for place in (source, tmp_path / "packed-source.zip"):
        manifest = prepare("ycb", place, tmp_path / f"packed-{place.suffix}")
        assert manifest.partial
        assert any("stand-in" in notice for notice in manifest.notices)


@pytest.mark.parametrize("name", ["objectsroom", "clevrtex_outd"])
def test_a_published_split_that_leaks_nothing_is_the_clean_one(name: str, tmp_path: Path) -> None:
    source = mimic(name, tmp_path / "source", count=6).path
    plain, clean, published = (
        prepare(name, source, tmp_path / str(split), split=split) for split in (None, "clean", "published")
    )
    assert plain == clean == published
    with pytest.raises(InputError, match="no option --split"):
        prepare(name, source, tmp_path / "other", split="other")
