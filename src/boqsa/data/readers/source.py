"""What every reader returns: a list of samples still to be read, and how one is read.

A reader lists its source in a fixed order and says which function turns one `Item` into a `Sample`. Listing is cheap;
reading is the work, which `prepare` does on all cores and continues after an interruption. So `load` and the
items must pickle, and a sample must depend on its item alone.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Int, UInt8
from numpy.typing import NDArray

from boqsa.data.manifest import Option, Task
from boqsa.data.packing import Extra
from boqsa.errors import InputError

ORDER_RULE = "80/10/10 in file order: the first images are train, then val, then test"
HASH_RULE = "80/10/10 by a hash of the name, stable when images are added"

Progress = Callable[[str, int, int], None]
"""Called with what is being done in one word, how much of it is done, and how much there is."""


STAND_IN = ".stand-in-of-boqsa"
"""An empty file, in the folders that `boqsa.data.mimic` writes, that tells `prepare` what it reads."""


@dataclass(frozen=True, slots=True)
class Item:
    """One sample still to be read."""

    name: str
    """The file or record, relative to the source: for messages, and for the list of names."""
    split: str
    files: tuple[Path, ...]
    """The files it is read from. Their sizes and times tell whether an interrupted `prepare` can go on."""
    facts: Any = None
    """What `load` needs besides: a record's bytes, a box, an annotation."""


@dataclass(frozen=True)
class Sample:
    """One image at target size."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Int[np.ndarray, "h w"] | None
    """0 = background, 1..254 = objects, 255 = ignore; None if the split has no masks. With `Source.wide_labels` int16,
    -1 = ignore."""
    notices: tuple[str, ...] = ()
    """Phrases that `prepare` counts over all samples: "alpha dropped", "entities overlap"."""
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """A value for each of `Source.extras`."""


@dataclass(kw_only=True)
class Source:
    """A source that was found sound as far as can be told without reading all of it."""

    items: Callable[[], Iterable[Item]]
    """Every sample in the order in which it is packed; the same at each call."""
    load: Callable[[Item], Sample]
    """Reads one; raises `InputError` for a broken one. A function of a module, or `functools.partial` of one."""
    total: int
    image_size: tuple[int, int]
    """Height and width in pixels of every sample."""
    split_rule: str
    partial: bool = False
    """True if the source is smaller than the published data set."""
    task: Task | None = None
    """None where the catalog knows."""
    leak: str = ""
    """As in `Manifest`."""
    in_one_process: bool = False
    """True if reading a sample costs less than sending it to another process, as with records of a stream."""
    wide_labels: bool = False
    """Whether a picture may have more than 254 objects."""
    extras: Mapping[str, Extra] = field(default_factory=dict)
    options: dict[str, Option] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    """What the listing found."""


def listed(items: Sequence[Item]) -> Callable[[], Iterable[Item]]:
    """`Source.items` of a list that is in memory."""
    return lambda: items


def split_by_order(index: int, total: int) -> str:
    """The split of image `index` of `total` by `ORDER_RULE`; from three images on no split is empty."""
    held_out = max(1, total // 10) if total >= 3 else 0
    if index < total - 2 * held_out:
        return "train"
    return "val" if index < total - held_out else "test"


def split_by_hash(name: str) -> str:
    """The split of an image by `HASH_RULE`."""
    tenth = _hash(name) % 10
    return "train" if tenth < 8 else ("val", "test")[tenth - 8]


def held_out_by_hash(name: str) -> bool:
    """Whether a training image belongs to the 5 % that clean splits carve out for validation (spec/datasets.md 17)."""
    return _hash(name) % 20 == 0


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big")


def take(items: Iterable[Item], limit: int | None) -> list[Item]:
    """At most `limit` items of each split, the first ones, in their order."""
    if limit is None:
        return list(items)
    taken: dict[str, int] = {}
    kept = []
    for item in items:
        if taken.get(item.split, 0) < limit:
            taken[item.split] = taken.get(item.split, 0) + 1
            kept.append(item)
    return kept


def require_folder(source: Path, hint: str) -> None:
    """Go on if `source` is a folder.

    Raises:
        InputError: if it is not; `hint` says what to give instead.
    """
    if not source.is_dir():
        raise InputError(f"{source} {'is not a folder' if source.exists() else 'does not exist'}; {hint}.")


def refuse_unreadable(error: OSError) -> NoReturn:
    """The `onerror` of `os.walk`: what may not be listed must not look as if it were empty.

    Raises:
        InputError: always.
    """
    raise InputError(f"cannot read the folder {error.filename}: {error.strerror}.") from None


def files_below(folder: Path, left_out: Iterable[Path] = ()) -> Iterator[Path]:
    """Every file in a folder and its sub-folders, in no order; hidden ones and what is in hidden ones is left out.

    Links to folders are followed, wherever these are, but each folder is entered once: under its own name if that lies
    below `folder`, or else by one of the links. So a link back leads nowhere.

    Args:
        folder: Where to look.
        left_out: Folders that are not entered.

    Raises:
        InputError: if a folder cannot be read.
    """
    entered = {os.path.realpath(path) for path in left_out}
    waiting = deque([folder])
    while waiting:
        for where, folders, files in os.walk(waiting.popleft(), onerror=refuse_unreadable):
            here, real = Path(where), os.path.realpath(where)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            waiting += [here / name for name in folders if (here / name).is_symlink()]  # `os.walk` passes them over
            yield from (here / name for name in files if not name.startswith("."))


def levels(source: Path) -> Iterator[list[Path]]:
    """The folder `source`, then the folders in it, then those in them: where an archive may have put a data set.

    Raises:
        InputError: if one of them cannot be read.
    """
    level = [source]
    for depth in range(3):
        yield level
        if depth < 2:
            try:
                level = [inner for folder in level for inner in sorted(folder.iterdir()) if inner.is_dir()]
            except OSError as error:
                refuse_unreadable(error)


def find_root(source: Path, *needed: str, missing: str = "") -> Path:
    """The folder that holds all of `needed`: `source`, or one that lies up to two levels below it.

    Archives unpack into a folder of their own, or do not; nobody should have to care.

    Args:
        source: Where to look.
        needed: Files and folders, as paths below the folder.
        missing: What to say where there is none; by default which names were looked for.

    Raises:
        InputError: if there is none, or several.
    """
    require_folder(source, f"give the folder that holds {' and '.join(needed)}")
    for level in levels(source):
        found = [folder for folder in level if all((folder / name).exists() for name in needed)]
        if len(found) > 1:
            raise InputError(f"{some_of([str(folder) for folder in found])} all hold {needed[0]}; name one.")
        if found:
            return found[0]
    raise InputError(missing or f"{source} does not hold {' and '.join(needed)}, nor do the folders in it.")


def is_stand_in(source: Path) -> bool:
    """Whether `source` lies in a folder that `boqsa.data.mimic` wrote."""
    return any((folder / STAND_IN).exists() for folder in (source, *source.absolute().parents[:3]))


def choose(option: str, value: str, legal: Sequence[str]) -> str:
    """`value`, if it is legal.

    Raises:
        InputError: if it is not; the message names all that are.
    """
    if value not in legal:
        raise InputError(f"{option} '{value}' is unknown; choose one of {', '.join(legal)}.")
    return value


def some_of(names: list[str], shown: int = 5) -> str:
    """The first few names and how many more there are, for a message."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
