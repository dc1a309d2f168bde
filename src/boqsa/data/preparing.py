"""Pack a source once: list it, read it on all cores, and let the packed folder appear whole.

    TARGET                     appears when everything is written, and not before
    .preparing-TARGET/         beside it, while it is made
        journal.json           how far it is: what was asked, samples done, a hash over what they came from
        packed/                the arrays so far
        unpacked/              what archives held

Notable choices:
 - Samples are packed in the order of the listing, however many processes read them, so the result is the same bytes.
 - An interrupted `prepare` goes on when the same command is typed again, if the archives, and the files behind the
   samples that are done, still have their sizes and times; otherwise it starts again.
 - A broken sample stops everything unless it was allowed (`skip_broken`); what was done until then is kept.
"""

import hashlib
import inspect
import json
import multiprocessing
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from boqsa.atomic import flush_to_disk, folder_and_parents, one_process, write_text
from boqsa.cores import cores
from boqsa.data.archives import archives_of, unpacked
from boqsa.data.catalog import DatasetEntry, entry
from boqsa.data.manifest import FORMAT, Manifest, Option
from boqsa.data.packing import PackedWriter
from boqsa.data.readers import READERS, Source
from boqsa.data.readers.source import Item, Progress, Sample, is_stand_in, some_of
from boqsa.errors import InputError
from boqsa.parent import end_with_the_parent

LARGEST_SIDE = 4096
_SECONDS_BETWEEN_JOURNALS = 5.0
_CHUNK_BYTES = 8 << 20
"""Most bytes that a process is sent, or sends back, at a time: bounds the memory."""
_CHUNK_SAMPLES = 64
_FEWEST_FOR_PROCESSES = 256
"""Below, starting processes takes longer than reading."""
_MOST_WORKERS = 16


def prepare(
    name: str,
    source: str | Path,
    target: str | Path,
    *,
    skip_broken: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Manifest:
    """Read `source` as the data set `name` and pack it at `target`.

    Args:
        name: A data set of `boqsa.data.catalog` that has a reader.
        source: Its files, a folder or the archives as downloaded; the catalog says which.
        target: The folder to make; it must not exist, or be empty.
        skip_broken: Leave out so many samples that cannot be read; the manifest lists them in `skipped`.
        workers: Processes that read; by default one a core, or a single one where the source is a compressed stream.
            The result does not depend on it.
        progress: Called with (what is done, how much, of how much) now and then.
        **options: The reader's own (`boqsa.data.readers`): `image_size` is (height, width), the data set's own size if
            not given; `limit` is how many samples of each split at most. None and False are as if not given.

    Returns:
        The manifest of the packed folder.

    Raises:
        InputError: if anything about the names, options, files or folders is wrong. What was done until then is kept
            beside `target` if it is worth it, and the message says so.
    """
    dataset = entry(name)
    read = _reader(dataset)
    given = {option: value for option, value in options.items() if value is not None and value is not False}
    if given.get("split") in dataset.splits and "split" not in inspect.signature(read).parameters:
        del given["split"]  # all that the catalog names are the same
    _check_options(name, read, given)
    _check_number("skip_broken", skip_broken, 0, None)
    if workers is not None:
        _check_number("workers", workers, 1, None)
    folder = free_target(target)
    tell = progress or (lambda *_: None)
    with workplace(folder) as place:
        try:
            archives = archives_of(Path(source), dataset.archives)
            root = unpacked(Path(source), place / "unpacked", patterns=dataset.archives, progress=tell)
            told = {"progress": tell} if "progress" in inspect.signature(read).parameters else {}
            opened = read(root, **given, **told)
        except OSError as error:  # a folder that may not be read, a file where a folder should be
            raise InputError(f"cannot read {error.filename or source}: {error.strerror}.") from None
        if is_stand_in(Path(source)) or is_stand_in(root):
            opened.partial = True
            opened.notices.append("a stand-in with built-in scenes, by `boqsa data mimic`: not the data set")
        asked = {
            "name": name,
            "source": os.path.abspath(source),
            "archives": list(archives.values()),  # what is in another one may have the same sizes and times
            "options": given,
            "format": FORMAT,
        }
        packing = _Packing(dataset, opened, place, str(source), asked, skip_broken)
        manifest = packing.run(_worker_count(workers, opened), tell)
        move_into_place(place / "packed", folder)
    return manifest


@dataclass
class _Journal:
    """How far a `prepare` is. Everything in it was safe on disk when it was written."""

    asked: dict[str, Any]
    done: int = 0
    """Samples read, those left out as broken included."""
    chain: str = ""
    """A hash over how they are read, and over name, facts, and size and time of every file of each, in order."""
    counts: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    notices: dict[str, list[Any]] = field(default_factory=dict)
    """Phrase -> how many samples, and the names of the first ones."""

    def add(self, item: Item, outcome: Sample | str) -> None:
        """Count one more sample."""
        self.done += 1
        self.chain = _linked(self.chain, item)
        if isinstance(outcome, str):
            self.skipped.append(outcome)
            return
        self.counts[item.split] = self.counts.get(item.split, 0) + 1
        for phrase in outcome.notices:
            counted = self.notices.setdefault(phrase, [0, []])
            counted[0] += 1
            if len(counted[1]) < 6:
                counted[1].append(item.name)

    @property
    def consistent(self) -> bool:
        """False where Ctrl-C fell between two lines of `add`."""
        return sum(self.counts.values()) + len(self.skipped) == self.done

    def sentences(self) -> list[str]:
        """The notices, in words."""
        return [
            f"{count} images: {phrase}, in {', '.join(names[:5])}{' and others' if count > 5 else ''}"
            for phrase, (count, names) in sorted(self.notices.items())
        ]


@dataclass
class _Packing:
    """One pass over a source."""

    dataset: DatasetEntry
    opened: Source
    place: Path
    source: str
    asked: dict[str, Any]
    skip_broken: int

    def run(self, workers: int, progress: Progress) -> Manifest:
        journal, writer, items = self._continued()
        self._check_space(journal.done)
        saved = time.monotonic()
        with writer:
            try:
                for item, outcome in _loaded(self.opened, items, workers):
                    if isinstance(outcome, str):
                        self._refuse_or_skip(outcome, journal)
                    else:
                        _append(writer, item, outcome)
                    journal.add(item, outcome)
                    progress("packing", journal.done, self.opened.total)
                    if time.monotonic() - saved >= _SECONDS_BETWEEN_JOURNALS:
                        self._save(journal, writer)
                        saved = time.monotonic()
            except BaseException as error:
                self._keep(journal, writer, error, (self.place / "journal.json").exists())
                raise
            if not writer.counts:
                raise InputError(f"no image of {self.source} can be used: {some_of(journal.skipped, 3)}.")
            return writer.finish(
                name=self.dataset.name,
                source=self.source,
                licence=self.dataset.licence,
                task=self.opened.task or self.dataset.task,
                foreground=self.dataset.foreground,
                split_rule=self.opened.split_rule,
                partial=self.opened.partial,
                leak=self.opened.leak,
                options=self.opened.options | {"limit": self.asked["options"].get("limit")},
                notices=[*self.opened.notices, *journal.sentences()],
                skipped=journal.skipped,
            )

    def _continued(self) -> tuple[_Journal, PackedWriter, Iterator[Item]]:
        """The journal of an interrupted pass over these samples, or a fresh one; a writer and the items that follow."""
        packed = self.place / "packed"
        with suppress(OSError, ValueError, TypeError, InputError):
            journal = _Journal(**json.loads((self.place / "journal.json").read_text(encoding="utf-8")))
            chain = _first_link(self.opened)
            items = iter(self.opened.items())
            for item in islice(items, journal.done):
                chain = _linked(chain, item)
            if journal.asked == json.loads(json.dumps(self.asked, default=str)) and journal.chain == chain:
                return journal, self._writer(packed, journal.counts), items
        (self.place / "journal.json").unlink(missing_ok=True)
        shutil.rmtree(packed, ignore_errors=True)
        packed.mkdir()
        fresh = _Journal(self.asked, chain=_first_link(self.opened))
        return fresh, self._writer(packed, {}), iter(self.opened.items())

    def _writer(self, packed: Path, counts: dict[str, int]) -> PackedWriter:
        return PackedWriter(
            packed,
            self.opened.image_size,
            wide_labels=self.opened.wide_labels,
            extras=self.opened.extras,
            counts=counts,
        )

    def _check_space(self, done: int) -> None:
        height, width = self.opened.image_size
        needed = (self.opened.total - done) * height * width * (5 if self.opened.wide_labels else 4)
        free = shutil.disk_usage(self.place).free
        if needed > free:
            raise InputError(
                f"the packed set needs up to {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
                "choose another target, a smaller size or a --limit."
            )

    def _refuse_or_skip(self, broken: str, journal: _Journal) -> None:
        if len(journal.skipped) < self.skip_broken:
            return
        found = some_of([*journal.skipped, broken])
        allowed = f"; {self.skip_broken} were allowed" if self.skip_broken else ""
        raise InputError(
            f"{found}{allowed}. Mend it, or give --skip-broken {max(10, 2 * self.skip_broken)} to leave out as many."
        )

    def _save(self, journal: _Journal, writer: PackedWriter) -> None:
        writer.flush()  # it may hold one image more than the journal; a later writer cuts that off
        write_text(self.place / "journal.json", json.dumps(asdict(journal), default=str))

    def _keep(self, journal: _Journal, writer: PackedWriter, error: BaseException, begun: bool) -> None:
        """Save how far it came, where that is worth going on from."""
        if not journal.done or not journal.consistent or not (begun or isinstance(error, KeyboardInterrupt)):
            return
        with suppress(InputError):  # a full disk: the journal before stands
            self._save(journal, writer)
        if isinstance(error, InputError):
            error.args = (f"{error} {journal.done} of {self.opened.total} samples are kept; the same command goes on.",)


def _append(writer: PackedWriter, item: Item, sample: Sample) -> None:
    image = np.moveaxis(sample.image, 2, 0)  # (H, W, 3) -> (3, H, W)
    writer.append(
        item.split,
        image[None],
        None if sample.mask is None else sample.mask[None],
        names=[item.name],
        extras={name: np.asarray(values)[None] for name, values in sample.extras.items()},
    )


def _first_link(opened: Source) -> str:
    """What the listing decided for all samples: another decision would read the ones that are done otherwise."""
    bound = opened.load.keywords if isinstance(opened.load, partial) else {}
    return repr((sorted(bound.items()), opened.wide_labels, sorted(opened.extras.items())))


def _linked(chain: str, item: Item) -> str:
    known_by_its_file = isinstance(item.facts, bytes)
    facts = [chain, item.name, item.split, "" if known_by_its_file else repr(item.facts)]
    for path in item.files:
        with suppress(OSError):
            known = os.stat(path)
            facts.append(f"{known.st_size} {known.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()


# Reading, in this process or in others.


def _loaded(source: Source, items: Iterable[Item], workers: int) -> Iterator[tuple[Item, Sample | str]]:
    """Every item with its sample, or with what is wrong with it, in order."""
    if workers == 1:
        for item in items:
            yield item, _load(source.load, item)
        return
    height, width = source.image_size
    samples = max(1, min(_CHUNK_SAMPLES, _CHUNK_BYTES // (height * width * 4)))
    waiting: deque[tuple[list[Item], Future[list[Sample | str]]]] = deque()
    executor = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_the_parent
    )
    try:
        for chunk in _chunks(items, samples):
            waiting.append((chunk, executor.submit(_load_all, source.load, chunk)))
            if len(waiting) > 2 * workers:
                yield from _next_of(waiting)
        while waiting:
            yield from _next_of(waiting)
    except BrokenProcessPool:
        raise InputError(
            "a process that read images died, perhaps for want of memory; try again with --workers 1."
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _next_of(
    waiting: deque[tuple[list[Item], Future[list[Sample | str]]]],
) -> Iterator[tuple[Item, Sample | str]]:
    chunk, future = waiting.popleft()
    yield from zip(chunk, future.result(), strict=True)


def _chunks(items: Iterable[Item], samples: int) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += len(item.facts) if isinstance(item.facts, bytes) else 0
        if len(chunk) == samples or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _load_all(load: Callable[[Item], Sample], items: list[Item]) -> list[Sample | str]:
    return [_load(load, item) for item in items]


def _load(load: Callable[[Item], Sample], item: Item) -> Sample | str:
    try:
        return load(item)
    except InputError as error:
        return str(error).rstrip(".")
    except OSError as error:
        return f"cannot read {error.filename or item.name}: {error.strerror}"


def _worker_count(asked: int | None, opened: Source) -> int:
    if asked is not None:
        return asked
    if opened.in_one_process or opened.total < _FEWEST_FOR_PROCESSES:
        return 1
    return min(cores(), _MOST_WORKERS)


# The folder that it is made in.


def workplace_of(target: str | Path) -> Path:
    """Where an unfinished `prepare` for `target` keeps what is done."""
    folder = Path(os.path.realpath(target))
    return folder.with_name(f".preparing-{folder.name}")


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A folder beside `target`, for one process at a time; it stays only while there is a journal to go on from."""
    place = workplace_of(target)
    busy = f"another process is preparing {target}; let it finish."
    with folder_and_parents(place, shown=target, exist_ok=True), one_process(place / "lock", wait=False, busy=busy):
        free_target(target)  # another process may have finished it meanwhile
        try:
            yield place
        finally:
            if os.path.exists(target / "manifest.json") or not (place / "journal.json").exists():
                shutil.rmtree(place, ignore_errors=True)


def move_into_place(packed: Path, target: Path) -> None:
    """Bring a packed folder to disk and give it its final name.

    Raises:
        InputError: if the target cannot be written.
    """
    for path in (*packed.iterdir(), packed):
        flush_to_disk(path)
    final = Path(os.path.realpath(target))
    try:
        os.replace(packed, final)  # an empty folder is replaced
    except OSError as error:
        raise InputError(f"cannot write to the target {target}: {error.strerror}.") from None


def free_target(target: str | Path) -> Path:
    """The folder to make, if nothing is there yet.

    Raises:
        InputError: if it is a file, or a folder that is not empty.
    """
    folder = Path(target)
    if folder.name in ("", ".."):
        raise InputError(f"the target '{target}' has no name of its own; name the folder to make.")
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"the target {folder} is a file; name a folder that does not exist yet.")
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"the target {folder} is not empty; delete it or name another folder.")
    except OSError as error:
        raise InputError(f"cannot write to the target {folder}: {error.strerror}.") from None
    return folder


# What was asked.


def _reader(dataset: DatasetEntry) -> Callable[..., Source]:
    if dataset.status == "built in":
        raise InputError(f"'{dataset.name}' is built in and needs no preparing; train on it by its name.")
    return READERS[dataset.name]


def _check_options(name: str, read: Callable[..., Source], given: dict[str, Option]) -> None:
    known = [option for option in inspect.signature(read).parameters if option not in ("source", "progress")]
    if unknown := [option for option in given if option not in known]:
        there = ", ".join(map(_typed, known))
        raise InputError(f"'{name}' has no option {_typed(unknown[0])}; it has {there}.")
    if "image_size" in given:
        size = given["image_size"]
        if not isinstance(size, tuple) or len(size) != 2:
            raise InputError(f"image_size is {size!r}; (height, width) expected.")
        for side in size:
            _check_number("image_size", side, 1, LARGEST_SIDE)
    for option, (lowest, highest) in {"limit": (1, None), "mask_threshold": (0, 254)}.items():
        if option in given:
            _check_number(option, given[option], lowest, highest)


def _typed(option: str) -> str:
    """An option as it is typed on the command line."""
    return "--" + ("size" if option == "image_size" else option.replace("_", "-"))


def _check_number(option: str, value: Any, lowest: int, highest: int | None) -> None:
    if type(value) is not int or value < lowest or (highest is not None and value > highest):
        upper = "" if highest is None else f" to {highest}"
        raise InputError(f"{option} is {value!r}; a whole number from {lowest}{upper} expected.")
