"""Whole or not at all: failures, interrupts, and processes killed at every moment."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from boqsa.atomic import atomic_file, atomic_folder, is_held, one_process, recover_folder, write_text
from boqsa.errors import BusyError, InputError

OLD = {"one": "old", "inner/two": "old"}
NEW = {"one": "new", "inner/three": "new"}


def fill(folder: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def fill_and_fail(folder: Path, error: type[BaseException], meanwhile: Path | None = None) -> None:
    with atomic_folder(folder) as partial:
        fill(partial, NEW)
        if meanwhile is not None:
            meanwhile.touch()
        raise error


def content_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a b ü.txt"
    path.write_text("old")
    with atomic_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failing_body_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    write_text(tmp_path / "file", "old")

    def fail() -> None:
        with atomic_file(tmp_path / "file") as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert content_of(tmp_path) == {"file": "old"}


def test_a_byte_that_is_no_utf_8_does_not_end_a_text(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "boqsa evaluate run\udcff é\n")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "boqsa evaluate run\\udcff é\n"


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, message in [
        (tmp_path / "none" / "file", "No such file or directory"),
        (Path("/dev/null/file"), "Not a directory"),
        (tmp_path / "folder", "there is a folder of that name"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(InputError, match=message), atomic_file(path):
            pytest.fail("the body must not run")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "parents" / "folder"
    for content in (OLD, NEW):
        with atomic_folder(path) as partial:
            fill(partial, content)
        assert content_of(path) == content
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failing_body_leaves_no_new_parents(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(error):
        fill_and_fail(tmp_path / "there" / "a" / "b" / "c", error)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_a_failing_body_leaves_the_old_folder(tmp_path: Path) -> None:
    fill(tmp_path / "folder", OLD)
    with pytest.raises(ValueError):
        fill_and_fail(tmp_path / "folder", ValueError)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
    assert content_of(tmp_path / "folder") == OLD


def test_parents_that_others_use_meanwhile_stay(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        fill_and_fail(tmp_path / "a" / "b" / "c", ValueError, meanwhile=tmp_path / "a" / "of another")
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "of another"]


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, message in [
        (Path("/dev/null/a/b"), "/dev/null/a/b: a folder above it is a file"),
        (tmp_path / "file" / "a", "a folder above it is a file"),
        (tmp_path / "file", "there is a file of that name"),
        (tmp_path / "loop", "there is a file of that name"),
        (tmp_path / "a" / ("x" * 300), "File name too long"),
        (Path("/"), "no name of its own"),
    ]:
        with pytest.raises(InputError, match=message), atomic_folder(path):
            pytest.fail("the body must not run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_followed(tmp_path: Path, dangling: bool) -> None:
    if not dangling:
        fill(tmp_path / "big disk" / "folder", OLD)
    (tmp_path / "link").symlink_to(tmp_path / "big disk" / "folder")
    with atomic_folder(tmp_path / "link") as partial:
        fill(partial, NEW)
    assert (tmp_path / "link").is_symlink()
    assert content_of(tmp_path / "big disk" / "folder") == NEW
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big disk", "link"]


def test_the_old_folder_comes_back_if_the_second_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "folder", OLD)
    rename = os.replace

    def fail_on_partial(source: Path, target: Path) -> None:
        if ".partial-" in Path(source).name:
            raise OSError("the disk went away")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail_on_partial)
    with pytest.raises(OSError, match="went away"), atomic_folder(tmp_path / "folder") as partial:
        fill(partial, NEW)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
    assert content_of(tmp_path / "folder") == OLD


def test_recovery_sweeps_what_is_its_own_and_nothing_else(tmp_path: Path) -> None:
    mine, others = tmp_path / ".partial-9999999-last [1]", tmp_path / ".partial-9999999-big-last [1]"
    fill(mine, NEW)
    fill(others, NEW)
    fill(tmp_path / ".previous-last [1]", OLD)
    recover_folder(tmp_path / "last [1]")
    assert sorted(tmp_path.iterdir()) == [others, tmp_path / "last [1]"]
    assert content_of(tmp_path / "last [1]") == OLD


def test_recovery_leaves_what_a_living_process_is_filling(tmp_path: Path) -> None:
    partial = tmp_path / f".partial-{os.getppid()}-last"
    fill(partial, NEW)
    recover_folder(tmp_path / "last")
    assert content_of(partial) == NEW


HOLDS = """
import sys
from pathlib import Path
from boqsa.atomic import one_process

with one_process(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_keeps_others_out_until_its_process_dies(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDS, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=r"^busy$"), one_process(lock, wait=False, busy="busy"):
            pytest.fail("the body must not run")
        holder.kill()
        with one_process(lock, wait=True):
            pass
    with pytest.raises(InputError, match="cannot write"), one_process(Path("/dev/null/.lock"), wait=False):
        pytest.fail("the body must not run")


def test_asking_whether_a_lock_is_held_makes_no_file(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_held(lock)
    assert not lock.exists()
    with one_process(lock, wait=False):
        assert is_held(lock)
    assert not is_held(lock)
    with one_process(lock, wait=False):  # asking has left it free
        pass


def test_a_pipe_for_a_lock_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    assert not is_held(tmp_path / "lock")


def test_who_asks_whether_a_lock_is_held_is_not_in_the_way(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    with open(lock) as asking:  # as `is_held` does, but for a moment that can be seen
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not is_held(lock), "two that ask are no process that holds it"
        timer = threading.Timer(0.2, fcntl.flock, (asking, fcntl.LOCK_UN))
        timer.start()
        with one_process(lock, wait=False):
            assert is_held(lock)
        timer.join()


def test_a_lock_on_a_full_disk_is_no_wrong_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("boqsa.atomic.FileLock.acquire", full)
    with pytest.raises(OSError, match="No space left"), one_process(tmp_path / "lock", wait=False):
        pytest.fail("the body must not run")


def test_a_lock_whose_folder_goes_while_it_is_waited_for_was_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr("boqsa.atomic.FileLock.acquire", gone)
    with pytest.raises(BusyError, match=r"^busy$"), one_process(tmp_path / "lock", wait=False, busy="busy"):
        pass


def test_recovery_where_nothing_is(tmp_path: Path) -> None:
    recover_folder(tmp_path / "none" / "folder")
    recover_folder("/dev/null/folder")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from boqsa.atomic import atomic_folder

moment = int(sys.argv[2])

def deadly(call):
    def counted(*arguments, **options):
        global moment
        if moment == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        moment -= 1
        return call(*arguments, **options)
    return counted

for name in ("mkdir", "fsync", "replace", "unlink", "rmdir"):
    setattr(os, name, deadly(getattr(os, name)))
with atomic_folder(Path(sys.argv[1])) as partial:
    (partial / "one").write_text("new")
    (partial / "inner").mkdir()
    (partial / "inner" / "three").write_text("new")
"""


def test_killed_at_every_moment_the_folder_is_old_or_new(tmp_path: Path) -> None:
    outcomes = []
    for moment in range(40):
        folder = tmp_path / str(moment) / "folder"
        fill(folder, OLD)
        child = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(moment)], check=False)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        if moment % 2:  # the next writer, instead of the next reader, comes first, and fails
            with pytest.raises(ValueError):
                fill_and_fail(folder, ValueError)
        recover_folder(folder)
        assert content_of(folder) in (OLD, NEW)
        assert list(folder.parent.iterdir()) == [folder]
        outcomes.append("old" if content_of(folder) == OLD else "new")
    assert child.returncode == 0
    assert outcomes == sorted(outcomes, reverse=True)  # first old, from one rename on new
    assert {"old", "new"} == set(outcomes)
    assert len(outcomes) > 8


OLDER = ["folder-1", "folder-2"]


def write_numbered(folder: Path, number: int) -> None:
    with atomic_folder(folder, older=OLDER) as partial:
        (partial / "number").write_text(str(number))


def numbers(folder: Path) -> list[int]:
    """What the folder and its older ones hold, newest first."""
    paths = [folder, *(folder.with_name(name) for name in OLDER)]
    return [int((path / "number").read_text()) for path in paths if path.exists()]


def test_older_folders_keep_their_order_and_the_oldest_goes(tmp_path: Path) -> None:
    for number in range(1, 6):
        write_numbered(tmp_path / "folder", number)
        assert numbers(tmp_path / "folder") == list(range(number, max(0, number - 3), -1))
    assert len(list(tmp_path.iterdir())) == 3


def test_without_the_newest_the_next_older_one_takes_its_name(tmp_path: Path) -> None:
    for number in range(1, 4):
        write_numbered(tmp_path / "folder", number)
    (tmp_path / "folder" / "number").unlink()
    (tmp_path / "folder").rmdir()
    recover_folder(tmp_path / "folder", older=OLDER)
    assert numbers(tmp_path / "folder") == [2, 1]
    assert not (tmp_path / "folder-2").exists()


def test_a_full_disk_is_no_wrong_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    monkeypatch.setattr(Path, "mkdir", full)
    for write in (lambda: write_text(tmp_path / "file", ""), lambda: fill_and_fail(tmp_path / "folder", ValueError)):
        with pytest.raises(OSError, match="No space left"):
            write()


class Dead(BaseException):
    """Stands for the end of the process: from then on nothing more can be done."""


def test_dead_at_every_moment_no_older_folder_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for moment in range(60):
        folder = tmp_path / str(moment) / "folder"
        for number in range(1, 4):
            write_numbered(folder, number)
        left = moment
        with monkeypatch.context() as patch:

            def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
                def counted(*arguments: Any, **options: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if left < 0:
                        raise Dead
                    return call(*arguments, **options)

                return counted

            for name in ("mkdir", "fsync", "replace", "unlink", "rmdir"):
                patch.setattr(os, name, deadly(getattr(os, name)))
            with suppress(Dead):
                write_numbered(folder, 4)
        recover_folder(folder, older=OLDER)
        assert numbers(folder) in ([3, 2, 1], [4, 3, 2], [3, 2]), f"dead at operation {moment}"
        assert not list(folder.parent.glob(".previous-*"))
        outcomes.append(numbers(folder)[0])
        if left > 0:
            break
    assert left > 0, "the last writing was to live"
    assert outcomes == sorted(outcomes)
    assert {3, 4} == set(outcomes)
