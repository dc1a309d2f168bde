"""Files and folders that appear under their final name only when they are whole: write beside, flush, rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boqsa.errors import InputError

_PARTIAL = ".partial-"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is flushed to disk and renamed to `path`.

    If the body raises, the partial file is removed and whatever stood at `path` before is untouched.

    Raises:
        InputError: if the folder of `path` does not exist or cannot be written to.
    """
    path = Path(path)
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    try:
        partial.touch()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable.") from None
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _flush(path.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a fresh folder beside `path` to fill; on success it takes the place of `path`, replacing an old one.

    A reader never sees a half-filled folder: the old one is moved aside, the new one renamed, then the old one
    deleted. If the process dies between the two renames, `recover_folder` puts things right.

    Raises:
        InputError: if the parent of `path` cannot be written to.
    """
    path = Path(path)
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder that is writable.") from None
    try:
        yield partial
        for file in partial.rglob("*"):
            _flush(file)
        _flush(partial)
        previous = path.with_name(f".previous-{path.name}")
        shutil.rmtree(previous, ignore_errors=True)
        if path.exists():
            os.replace(path, previous)
        os.replace(partial, path)
        _flush(path.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Finish an `atomic_folder` that was killed half-way: restore the previous folder, sweep partial ones."""
    path = Path(path)
    previous = path.with_name(f".previous-{path.name}")
    if previous.exists():
        if path.exists():
            shutil.rmtree(previous)
        else:
            os.replace(previous, path)
    for leftover in path.parent.glob(f"{_PARTIAL}*-{path.name}"):
        shutil.rmtree(leftover, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file so that it is either the old one or the new one, never half of it."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
