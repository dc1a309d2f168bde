"""Files and folders that appear under their name only when they are whole: write beside, flush, rename.

And `one_process`, for what two processes must not change at the same time.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from boqsa.errors import BusyError, InputError

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk, a quota or a limit that is used up. Such an OSError is never turned into an InputError: the
name was right, and what to do is to free some space."""

LONGEST_NAME = 255
"""Bytes, on the usual file systems."""
_PREFIX = 24
"""Bytes for `.partial-` and a process number, or `.previous-`."""

_PATIENCE_S = 1.0
"""How long a process that does not wait tries: someone who asks whether a lock is held has it for a moment."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is flushed to disk and renamed to `path`.

    If the body raises, the partial file is removed and whatever stood at `path` before is untouched.

    Raises:
        InputError: if the folder of `path` does not exist or cannot be written to, or `path` is a folder.
        OSError: if the disk is full.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"cannot write {path}: there is a folder of that name; name a file.")
    partial = _partial(path)
    try:
        partial.touch()
    except OSError as error:
        if error.errno in DISK_IS_FULL:
            raise
        raise InputError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable."
        ) from None
    try:
        yield partial
        flush_to_disk(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    flush_to_disk(path.parent)


@contextmanager
def atomic_folder(path: str | Path, *, older: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a fresh folder beside `path` to fill; on success it takes the place of `path`.

    A reader never sees a half-filled folder: an old one is moved aside, the new one renamed, then the old one
    deleted. If the process dies between the two renames, `recover_folder` puts things right. If the body
    raises, the old folder stays, and parents that were made for the new one go again. A link is followed:
    the folder that it points to is the one replaced.

    Args:
        path: Folder to make or to replace.
        older: Names beside it that keep the replaced ones, newest first: each moves one name on, and what had the last
            name is deleted once the new folder is in its place. Without any, that is the replaced one.

    Raises:
        InputError: if `path` is a file, or its parent cannot be made or written to.
        OSError: if the disk is full.
    """
    shown, path = path, Path(os.path.realpath(path))
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(f"cannot write {shown}: there is a file of that name; name a folder.")
    partial = _partial(path)
    with folder_and_parents(partial, shown=shown):
        try:
            yield partial
            for file in partial.rglob("*"):
                flush_to_disk(file)
            flush_to_disk(partial)
            _replace_folder(partial, _chain(path, older))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def folder_and_parents(folder: Path, *, shown: str | Path, exist_ok: bool = False) -> Iterator[None]:
    """Make `folder` and its parents. After the body, parents that are new and in which nothing stands go again.

    Args:
        folder: Folder to make.
        shown: What is said to be written, in messages.
        exist_ok: Whether it may be there.

    Raises:
        InputError: if one of them cannot be made.
        OSError: if the disk is full.
    """
    new_parents = [parent for parent in folder.parents if not os.path.exists(parent)]  # deepest first
    try:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=exist_ok)
        except OSError as error:
            if error.errno in DISK_IS_FULL:
                raise
            above_is_file = isinstance(error, FileExistsError | NotADirectoryError)
            reason = "a folder above it is a file" if above_is_file else error.strerror
            raise InputError(f"cannot write {shown}: {reason}; choose a folder that is writable.") from None
        yield
    finally:
        for parent in new_parents:
            with suppress(OSError):  # what was to be made stands in it, or what someone else has put there
                parent.rmdir()


def recover_folder(path: str | Path, *, older: Sequence[str] = ()) -> None:
    """Finish an `atomic_folder` that was killed half-way: restore the previous folder, sweep partial ones.

    What a process that is still alive is filling stays. With `older`, a name of these that nobody has goes to the next
    older folder, so that `path` is the newest one there is.
    """
    path = Path(os.path.realpath(path))
    _restore(_chain(path, older))
    partial = re.compile(r"\.partial-(\d+)-" + re.escape(_fitting(path.name)))
    if os.path.isdir(path.parent):
        for neighbour in list(path.parent.iterdir()):
            left = partial.fullmatch(neighbour.name)
            if left and not _is_alive(int(left[1])):
                shutil.rmtree(neighbour, ignore_errors=True)


def sweep_partial_files(folder: str | Path) -> None:
    """Remove the files that `atomic_file` was writing in `folder` when its process was killed.

    What a process that is still alive is writing stays. Folders are somebody else's.
    """
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        for entry in list(entries):
            left = re.fullmatch(r"\.partial-(\d+)-.+", entry.name, re.DOTALL)
            if left and not entry.is_dir(follow_symlinks=False) and not _is_alive(int(left[1])):
                Path(entry.path).unlink(missing_ok=True)


@contextmanager
def one_process(lock: Path, *, wait: bool, busy: str = "") -> Iterator[None]:
    """Hold the file `lock` while the body runs. The kernel frees it when the process dies, so none is ever stale.

    Args:
        lock: File in a folder that exists; it is made, and stays: removing it could let two processes in.
        wait: Whether to wait while another process holds it.
        busy: What to say where it is held for more than a second and `wait` is False.

    Raises:
        BusyError: `busy`.
        InputError: if the folder of `lock` cannot be written to.
        OSError: if the disk is full.
    """
    held = FileLock(lock)
    try:
        held.acquire(timeout=-1 if wait else _PATIENCE_S)
    except Timeout:
        raise BusyError(busy) from None
    except OSError as error:
        if error.errno in DISK_IS_FULL:
            raise
        if error.errno == errno.ENOENT and not wait:  # whoever held it has taken its folder away just now
            raise BusyError(busy) from None
        raise InputError(f"cannot write {lock}: {error.strerror}; choose a folder that is writable.") from None
    try:
        yield
    finally:
        held.release()


def is_held(lock: Path) -> bool:
    """Whether a process holds the file `lock` of `one_process` now. No file is made; the answer may be old at once.

    It asks by a shared lock, which those who ask at the same time can all have.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NONBLOCK)  # a pipe, in a stranger's run, would wait for ever
    except OSError:
        return False  # there is none, or nobody here may lock it, so nobody here does
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a disk without locks
    finally:
        os.close(descriptor)
    return False


def write_text(path: str | Path, text: str) -> None:
    r"""Write a text file, in UTF-8, so that it is either the old one or the new one, never half of it.

    A byte of a file's name that is no UTF-8 stands there as `\udcff`: it must not end what has taken hours.
    """
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def flush_to_disk(path: Path) -> None:
    """Have the content of a file, or the names in a folder, outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial(path: Path) -> Path:
    if not path.name:
        raise InputError(f"cannot write {path}: it has no name of its own; name what to write.")
    return path.with_name(f".partial-{os.getpid()}-{_fitting(path.name)}")


def _fitting(name: str) -> str:
    """A name, or where a prefix alone would make it longer than file systems allow, 32 letters that stand for it."""
    encoded = os.fsencode(name)
    if not LONGEST_NAME - _PREFIX < len(encoded) <= LONGEST_NAME:
        return name
    return hashlib.sha256(encoded).hexdigest()[:32]


def _previous(path: Path) -> Path:
    return path.with_name(f".previous-{_fitting(path.name)}")


def _chain(path: Path, older: Sequence[str]) -> list[Path]:
    return [path, *(path.with_name(name) for name in older)]


def _replace_folder(partial: Path, chain: Sequence[Path]) -> None:
    """Renames, for a folder cannot be renamed onto one that has files: from the oldest on, so that none is lost."""
    _restore(chain)
    free = next((place for place, path in enumerate(chain) if not os.path.exists(path)), len(chain) - 1)
    previous = _previous(chain[free])
    try:
        if os.path.exists(chain[free]):
            os.replace(chain[free], previous)
        for place in range(free, 0, -1):
            os.replace(chain[place - 1], chain[place])
        os.replace(partial, chain[0])
    except BaseException:
        _restore(chain)
        raise
    flush_to_disk(chain[0].parent)
    shutil.rmtree(previous, ignore_errors=True)


def _restore(chain: Sequence[Path]) -> None:
    """Undo renames that did not come to their end: folders that they were to move get their names back."""
    _restore_previous(chain[0])
    for place, path in enumerate(chain):
        if not os.path.exists(path):
            following = next((other for other in chain[place + 1 :] if os.path.exists(other)), None)
            if following is None:
                break
            os.replace(following, path)
    for path in chain:
        _restore_previous(path)


def _restore_previous(path: Path) -> None:
    """Give the folder that was moved aside its name back, unless the new one has it already."""
    previous = _previous(path)
    if os.path.exists(path):
        shutil.rmtree(previous, ignore_errors=True)
    elif os.path.exists(previous):
        os.replace(previous, path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True  # it lives, as someone else's
    except (OSError, OverflowError):
        return False
    return process != os.getpid()
