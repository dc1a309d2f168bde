"""Data sets as they are downloaded: zip, tar and compressed tar, unpacked beside the target and removed afterwards.

Unpacking first, and reading files then, costs disk space for a while, but a compressed tar can only be read from its
start, and images and masks often come in different ones. What is unpacked already is not unpacked again when a
`prepare` goes on that was interrupted while it packed, unless it is of other archives or one of them changed: then all
of it is removed first.
"""

import json
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from boqsa.errors import InputError

_TAR = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_MOST_RATIO = 100
"""Unpacked bytes to packed ones. Images hardly shrink in an archive; what grows more than this is not a data set."""
_ALWAYS_ALLOWED = 1 << 30
_RESERVE = 256 << 20
"""Bytes of the disk that unpacking leaves free."""
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is a zip or a tar."""
    return path.name.lower().endswith((".zip", *_TAR))


def archives_of(source: Path, patterns: Sequence[str]) -> dict[Path, str]:
    """The archives of `source` that `unpacked` unpacks, each with what tells it from another one: its size and time."""
    if source.is_file() and is_archive(source):
        archives = [source]
    elif source.is_dir() and patterns:
        inside = sorted(source.iterdir(), key=lambda path: path.name)
        archives = [path for path in inside if path.is_file() and is_archive(path) and _matches(path, patterns)]
    else:
        archives = []
    known = {path: path.stat() for path in archives}
    return {path: f"{facts.st_size} {facts.st_mtime_ns}" for path, facts in known.items()}


def unpacked(
    source: Path, scratch: Path, *, patterns: Sequence[str], progress: Callable[[str, int, int], None]
) -> Path:
    """The folder to read `source` from: itself, or `scratch` with all that its archives hold.

    Args:
        source: A folder or a file. An archive is unpacked; of a folder those archives are whose names match `patterns`,
            and what else lies in it is linked beside their content.
        scratch: A folder of our own, made if it is needed; what it holds of other archives is removed.
        patterns: Names of the archives in which a data set is published, with `*`.
        progress: Called with ("unpacking", bytes read, bytes of all archives).

    Raises:
        InputError: if an archive is broken, leads outside of the folder, unpacks to far too much, or there is
            no space for it.
    """
    archives = archives_of(source, patterns)
    if not archives:
        return source
    content = _content_of(archives, scratch)
    total = sum(path.stat().st_size for path in archives)
    before = 0
    for path in archives:
        done = scratch / f"{path.name}.done"
        if not done.exists():
            for read in _unpack(path, content):
                progress("unpacking", before + read, total)
            done.touch()
        before += path.stat().st_size
    if source.is_dir():
        for path in sorted(source.iterdir()):
            if path not in archives and not path.name.startswith("."):
                _link(path, content / path.name)
    return content


def _content_of(archives: Mapping[Path, str], scratch: Path) -> Path:
    """The folder to unpack to: with what an earlier pass unpacked of the same archives, else empty."""
    content, made_from = scratch / "content", scratch / "made-from.json"
    listing = json.dumps([(str(path.absolute()), state) for path, state in archives.items()])
    if not made_from.exists() or made_from.read_text() != listing:
        made_from.unlink(missing_ok=True)  # first, or it would vouch for what is left if this is cut off
        if scratch.exists():
            shutil.rmtree(scratch)
        content.mkdir(parents=True)
        made_from.write_text(listing)
    _remove_links(content)  # of an earlier pass: nothing may be unpacked through them, onto the user's files
    return content


def _link(path: Path, place: Path) -> None:
    """Let `path` be seen at `place`. Folders that are in an archive too are joined; of files the archive's stays."""
    if place.is_dir() and path.is_dir():
        for inner in sorted(path.iterdir()):
            _link(inner, place / inner.name)
    elif not os.path.lexists(place):
        place.symlink_to(path.resolve())


def _remove_links(folder: Path) -> None:
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(where, name)):
                os.unlink(os.path.join(where, name))


def _matches(path: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatch(path.name.lower(), pattern.lower()) for pattern in patterns)


def _unpack(path: Path, folder: Path) -> Iterator[int]:
    """Unpack one archive; yields how many of its bytes were read."""
    budget = max(_ALWAYS_ALLOWED, _MOST_RATIO * path.stat().st_size)
    try:
        with open(path, "rb") as file:
            members = _zip_members(file, folder) if path.name.lower().endswith(".zip") else _tar_members(file, folder)
            written = 0
            for name, size, write in members:
                written += size
                if written > budget:
                    raise InputError(
                        f"{path} unpacks to more than {_MOST_RATIO} times its size at '{name}'; that is no data set."
                    )
                if size + _RESERVE > shutil.disk_usage(folder).free:
                    raise InputError(f"no space is left to unpack {path} beside the target; choose another target.")
                write()
                yield file.tell()
    except _BROKEN as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(f"{path} is not a whole archive ({reason}); download it again.") from None
    except OSError as error:
        raise InputError(f"cannot unpack {path}: {error.strerror or error}.") from None


def _zip_members(file: BinaryIO, folder: Path) -> Iterator[tuple[str, int, Callable[[], object]]]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            _refuse_outside(member.filename)
            yield member.filename, member.file_size, partial(archive.extract, member, folder)


def _tar_members(file: BinaryIO, folder: Path) -> Iterator[tuple[str, int, Callable[[], object]]]:
    if not hasattr(tarfile, "data_filter"):
        raise InputError("this Python cannot unpack tar files safely; update it (3.11.4 or later).")
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            _refuse_outside(member.name)
            if member.isfile() or member.isdir():
                yield member.name, member.size, partial(archive.extract, member, folder, filter="data")
            archive.members = []  # type: ignore[attr-defined]  # it would remember every one of millions


def _refuse_outside(name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or name.startswith(("/", "\\")) or (parts and ":" in parts[0]):
        raise InputError(f"the archive holds '{name}', which points outside of the folder it is unpacked to.")
