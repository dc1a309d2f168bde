"""Archives as downloaded: unpacked once, whole, and never outside of their folder."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from boqsa.data import archives
from boqsa.data.archives import unpacked
from boqsa.errors import InputError

FILES = {"set/images/a.png": b"A" * 3000, "set/images/b.png": b"B" * 5, "set/empty.txt": b""}


def write_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes] = FILES) -> Path:
    if not hasattr(tarfile, "data_filter"):  # as `safe_tar`, where a parameter says which kind is written
        pytest.skip("Python 3.11.4 or later is needed to unpack tar files")
    mode = {".tgz": "w:gz", ".gz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2", ".tar": "w"}[path.suffix]
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_500_000_000
            archive.addfile(member, io.BytesIO(content))
    return path


def quiet(*_: object) -> None:
    pass


def found(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.zip", write_zip),
        ("A.ZIP", write_zip),
        ("a.tar", write_tar),
        ("a.tgz", write_tar),
        ("a.tar.gz", write_tar),
        ("a.tar.xz", write_tar),
        ("a.tar.bz2", write_tar),
    ],
)
def test_an_archive_as_source(name: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = write(tmp_path / name)
    root = unpacked(path, tmp_path / "scratch", patterns=(), progress=lambda *told: seen.append(told))
    assert found(root) == FILES
    assert seen[-1][0] == "unpacking"
    assert all(0 < done <= total == path.stat().st_size for _, done, total in seen)


def test_a_folder_of_archives_and_loose_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_zip(source / "images.zip", {"jpg/1.jpg": b"1"})
    write_tar(source / "masks.tgz", {"masks/1.png": b"2"})
    write_zip(source / "unrelated.zip", {"other": b"3"})
    (source / "setid.mat").write_bytes(b"4")
    root = unpacked(source, tmp_path / "scratch", patterns=("IMAGES.zip", "masks*"), progress=quiet)
    assert {name: content for name, content in found(root).items() if name != "unrelated.zip"} == {
        "jpg/1.jpg": b"1",
        "masks/1.png": b"2",
        "setid.mat": b"4",
    }
    assert sorted(path.name for path in source.iterdir()) == ["images.zip", "masks.tgz", "setid.mat", "unrelated.zip"]


def test_what_is_no_archive_is_left_alone(tmp_path: Path) -> None:
    write_zip(tmp_path / "images.zip")
    for source, patterns in ((tmp_path, ()), (tmp_path, ("other*",)), (tmp_path / "none", ("*",))):
        assert unpacked(source, tmp_path / "scratch", patterns=patterns, progress=quiet) == source
    assert not (tmp_path / "scratch").exists()


def test_an_archive_is_unpacked_once_and_again_if_it_changed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip")
    root = unpacked(path, tmp_path / "scratch", patterns=(), progress=quiet)
    (root / "set/images/a.png").write_bytes(b"kept")
    unpacked(path, tmp_path / "scratch", patterns=(), progress=quiet)
    assert (root / "set/images/a.png").read_bytes() == b"kept"
    write_zip(path, {"set/images/a.png": b"new", "set/more": b"!"})
    unpacked(path, tmp_path / "scratch", patterns=(), progress=quiet)
    assert found(root) == {"set/images/a.png": b"new", "set/more": b"!"}


def test_nothing_stays_of_another_archive(tmp_path: Path) -> None:
    one, other = write_zip(tmp_path / "one.zip"), write_zip(tmp_path / "other.zip", {"set/b": b"other"})
    for path, expected in ((one, FILES), (other, {"set/b": b"other"}), (one, FILES)):
        assert found(unpacked(path, tmp_path / "scratch", patterns=(), progress=quiet)) == expected


def test_nothing_stays_of_an_archive_that_is_gone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("images", "masks"):
        write_zip(source / f"{name}.zip", {f"{name}/1": b"1"})
    assert len(found(unpacked(source, tmp_path / "scratch", patterns=("*",), progress=quiet))) == 2
    (source / "masks.zip").unlink()
    assert list(found(unpacked(source, tmp_path / "scratch", patterns=("*",), progress=quiet))) == ["images/1"]


def test_nothing_stays_of_another_archive_that_was_cut_off(tmp_path: Path) -> None:
    def kill(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpacked(write_zip(tmp_path / "one.zip"), tmp_path / "scratch", patterns=(), progress=kill)
    assert found(tmp_path / "scratch/content")
    other = write_zip(tmp_path / "other.zip", {"set/b": b"other"})
    assert found(unpacked(other, tmp_path / "scratch", patterns=(), progress=quiet)) == {"set/b": b"other"}


def test_what_is_half_removed_is_not_taken_for_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = write_zip(tmp_path / "one.zip"), write_zip(tmp_path / "other.zip", {"set/b": b"other"})
    unpacked(one, tmp_path / "scratch", patterns=(), progress=quiet)

    def kill(folder: Path) -> None:
        (folder / "content/set/images/a.png").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            unpacked(other, tmp_path / "scratch", patterns=(), progress=quiet)
    assert found(unpacked(one, tmp_path / "scratch", patterns=(), progress=quiet)) == FILES


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "..\\out", "C:/out"])
@pytest.mark.parametrize(("suffix", "write"), [(".zip", write_zip), (".tgz", write_tar)])
def test_nothing_lands_outside(name: str, suffix: str, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", {name: b"bad"})
    with pytest.raises(InputError, match="points outside"):
        unpacked(path, tmp_path / "deep/scratch", patterns=(), progress=quiet)
    assert not any("out" in path.name for path in tmp_path.rglob("*"))


@pytest.mark.usefixtures("safe_tar")
def test_links_in_a_tar_do_not_lead_outside(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        member = tarfile.TarInfo("link/out")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"bad"))
    unpacked(tmp_path / "a.tar", tmp_path / "scratch", patterns=(), progress=quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("suffix", "write"), [(".zip", write_zip), (".tgz", write_tar), (".tar", write_tar)])
def test_a_cut_or_changed_archive_is_refused(suffix: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    whole = write(tmp_path / f"a{suffix}").read_bytes()
    for index, content in enumerate((whole[: min(len(whole) // 2, 1_000)], b"", b"no archive" * 100)):
        path = tmp_path / f"broken{index}{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"broken{index}{suffix} is not a whole archive"):
            unpacked(path, tmp_path / f"scratch{index}", patterns=(), progress=quiet)


@pytest.mark.parametrize(("suffix", "write"), [(".zip", write_zip), (".tgz", write_tar)])
def test_a_bomb_is_refused(
    suffix: str, write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED", 1_000)
    path = write(tmp_path / f"a{suffix}", {"zeros": bytes(2_000_000)})
    with pytest.raises(InputError, match="more than 100 times its size"):
        unpacked(path, tmp_path / "scratch", patterns=(), progress=quiet)
    assert not (tmp_path / "scratch/content/zeros").exists()


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_RESERVE", 1 << 60)
    with pytest.raises(InputError, match="no space is left"):
        unpacked(write_zip(tmp_path / "a.zip"), tmp_path / "scratch", patterns=(), progress=quiet)


def test_files_beside_an_archive_are_never_written_to(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "set/images").mkdir(parents=True)
    (source / "set/images/a.png").write_bytes(b"mine")
    (source / "set/images/c.png").write_bytes(b"loose")
    write_zip(source / "set.zip")
    for packed, expected in ((FILES, b"loose"), (FILES | {"set/images/c.png": b"packed"}, b"packed")):
        write_zip(source / "set.zip", packed)
        before = found(source)
        root = unpacked(source, tmp_path / "scratch", patterns=("set*",), progress=quiet)
        seen = {name: content for name, content in found(root).items() if name.startswith("set/")}
        assert seen == FILES | {"set/images/c.png": expected}
        assert found(source) == before
