"""What the Multi-Object Datasets have in common (spec/datasets.md 1.1-1.4): gzip TFRecords of an image and 0/255 maps.

A record has `image` (H, W, C) and `mask`, one map for each entity, background first; the entities are the first axis
of `mask`, or the last one. The readers of the single sets say which shapes, splits and crops they have.

Notable choices:
 - Splits are by position, as everybody has made them: the head of the file is test, then val, the rest train. A file
   that is too small for that, as a stand-in is, is split 80/10/10 in file order.
 - A file is read twice, first to count and verify its records, so that a damaged file is refused at once and not after
   hours of packing. With a `limit`, only as far as it will be used.
 - Items carry the record's bytes: a gzip stream can only be read from its start. They are decoded in the same process
   unless others are asked for: sending a record costs more than decoding it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray

from boqsa.data.manifest import Option
from boqsa.data.readers.source import ORDER_RULE, Item, Progress, Sample, Source, choose, split_by_order
from boqsa.data.readers.tfrecord import Feature, parse_example, read_records
from boqsa.data.resample import resize_image, resize_mask
from boqsa.errors import InputError

HELD_OUT = 10_000
"""Records of the usual test split, and of val."""
OVERLAP = "entities overlap; the first one has the pixel"
UNCOVERED = "pixels of no entity; they are background"
INVISIBLE = "an entity whose visibility is 0 has pixels"

Keep = Callable[[bytes], bool]
"""Whether the record of this payload is wanted; true for one that cannot be read, which then fails by its name."""
Box = tuple[int, int, int, int]
"""A crop: top, left, height, width."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shapes in a record."""

    image: tuple[int, int, int]
    """Height, width, channels; one channel is grey."""
    entities: int
    entities_last: bool = False
    """Whether a map's pixels are (H, W, E) and not (E, H, W)."""
    background: int = 1
    """How many entities are background: the first ones."""
    visibility: bool = False
    """Whether the feature `visibility` is there and can be trusted."""


@dataclass(frozen=True)
class Record:
    """One decoded record."""

    image: UInt8[np.ndarray, "h w 3"]
    entities: Bool[np.ndarray, "e h w"]
    notices: tuple[str, ...]
    """Phrases for what is odd about it."""


@dataclass(frozen=True)
class Range:
    """Records `start` up to `stop` of a file, which are one split, and how many of them are taken at most."""

    split: str
    start: int
    stop: int
    count: int


@dataclass(frozen=True)
class RecordFile:
    """A file that was verified, and what is taken from it."""

    path: Path
    records: int
    """How many it has; with a limit, how many were counted."""
    ranges: tuple[Range, ...]
    by_position: bool = False
    """Whether the usual split by position was used."""
    keep: Keep | None = None

    @property
    def total(self) -> int:
        """How many samples are taken."""
        return sum(part.count for part in self.ranges)

    def items(self) -> Iterator[Item]:
        """Its samples in file order; `facts` is the payload."""
        left = {part.split: part.count for part in self.ranges}
        stop = max((part.stop for part in self.ranges if part.count), default=0)
        with closing(read_records(self.path)) as records:
            for index, payload in enumerate(islice(records, stop)):
                split = next(part.split for part in self.ranges if part.start <= index < part.stop)
                if not left[split] or not (self.keep is None or self.keep(payload)):
                    continue
                yield Item(record_name(self.path, index), split, (self.path,), payload)
                left[split] -= 1
                if not any(left.values()):
                    return


def record_name(path: Path, index: int) -> str:
    """What a record is called in messages and lists."""
    return f"{path.name} record {index}"


def open_file(
    path: Path,
    layout: Layout,
    what: str,
    *,
    split: str | None = None,
    used: int | None = None,
    limit: int | None = None,
    keep: Keep | None = None,
    verified: Callable[[int], None] = lambda _: None,
) -> RecordFile:
    """Count and verify the records of a file, and decide which are taken for which split.

    Args:
        path: The file.
        layout: What its first record is tried against.
        what: The data set and variant, for messages.
        split: All records are this split; by default they are split by position.
        used: Look at no more than so many records.
        limit: At most so many records of each split.
        keep: Which records are wanted; the split is made before.
        verified: Called with the compressed bytes that were read so far.

    Raises:
        InputError: if the file is missing, empty, truncated or damaged, or its first record has another layout.
    """
    enough = used
    if limit is not None and keep is None:
        needed = limit + (2 * HELD_OUT if split is None else 0)
        enough = needed if used is None else min(used, needed)
    wanted = bytearray()  # one byte a record, and only where records are chosen by their content
    count = 0
    with closing(read_records(path, at=verified)) as records:
        for payload in islice(records, enough):
            if count == 0:
                decode(payload, layout, str(path.parent / record_name(path, 0)), what)
            if keep is not None:
                wanted.append(keep(payload))
            count += 1
    if count == 0:
        raise InputError(f"{path} holds no records; copy or download it again.")
    by_position = split is None and count > 2 * HELD_OUT
    ranges = []
    for of_split, start, stop in [(split, 0, count)] if split else _split(count, by_position):
        found = stop - start if keep is None else sum(wanted[start:stop])
        ranges.append(Range(of_split, start, stop, found if limit is None else min(found, limit)))
    if not any(part.count for part in ranges):
        raise InputError(f"{path}: none of its {count} records is wanted; change the options.")
    return RecordFile(path, count, tuple(ranges), by_position, keep)


def _split(count: int, by_position: bool) -> list[tuple[str, int, int]]:
    if by_position:
        return [("test", 0, HELD_OUT), ("val", HELD_OUT, 2 * HELD_OUT), ("train", 2 * HELD_OUT, count)]
    splits = [split_by_order(index, count) for index in range(count)]
    return [(split, splits.index(split), splits.index(split) + splits.count(split)) for split in dict.fromkeys(splits)]


def split_rule(file: RecordFile) -> str:
    """How a file was split by position, as a sentence."""
    if not file.by_position:
        return ORDER_RULE
    return f"by position: records 0-{HELD_OUT - 1:,} test, {HELD_OUT:,}-{2 * HELD_OUT - 1:,} val, all after them train"


def open_set(
    path: Path,
    layout: Layout,
    what: str,
    *,
    size: tuple[int, int],
    published: int,
    split: str,
    used_by_published: int,
    box: Box | None,
    limit: int | None,
    keep: Keep | None = None,
    progress: Progress | None,
    options: dict[str, Option],
) -> Source:
    """The `Source` of a data set that is one file.

    Args:
        path: The file.
        layout: The shapes in its records.
        what: The data set and variant, for messages.
        size: Height and width that every sample gets.
        published: Records of the whole file.
        split: `clean` or `published`; both have the same test and val.
        used_by_published: `published` looks at so many records alone.
        box: The crop.
        limit: At most so many records of each split.
        keep: Which records are wanted.
        progress: As `open_file`'s, for the whole.
        options: What was chosen besides.

    Raises:
        InputError: as `open_file`, and for an unknown `split`.
    """
    choose("split", split, ("clean", "published"))
    used = used_by_published if split == "published" else None
    told = tellers([path], progress)[0]
    file = open_file(path, layout, what, used=used, limit=limit, keep=keep, verified=told)
    rule = split_rule(file) if used is None else f"{split_rule(file)}; no record after the first {used:,}"
    return Source(
        items=file.items,
        load=partial(_load, layout=layout, what=what, size=size, box=box),
        total=file.total,
        in_one_process=True,
        image_size=size,
        split_rule=rule,
        partial=limit is not None or file.records < (used or published),
        options={**options, "split": split},
    )


def find_files(source: Path, folder: str, names: Sequence[str]) -> dict[str, Path]:
    """Those of `names` that lie in `source`, or in its subfolder `folder`.

    Raises:
        InputError: if there is none; the message names all.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist; give {names[0]} or the folder that holds it.")
    for place in (source, source / folder):
        if found := {name: place / name for name in names if (place / name).is_file()}:
            return found
    raise InputError(f"{source} holds none of {', '.join(names)}; give the folder that holds them, or a file.")


def tellers(paths: Sequence[Path], progress: Progress | None) -> list[Callable[[int], None]]:
    """For each file what is to be called with the bytes of it that were read; `progress` hears of all together."""
    sizes = [path.stat().st_size for path in paths]
    if progress is None:
        return [lambda _: None for _ in paths]
    return [partial(_tell, progress, sum(sizes[:index]), sum(sizes)) for index in range(len(paths))]


def _tell(progress: Progress, before: int, total: int, read: int) -> None:
    progress("verifying", before + read, total)


def decode(payload: bytes, layout: Layout, where: str, what: str) -> Record:
    """One record as arrays.

    Raises:
        InputError: if the payload has no such features, or they have other sizes or values.
    """
    features = parse(payload, where, ("image", "mask", "visibility"))
    height, width, channels = layout.image
    sizes = {"image": height * width * channels, "mask": layout.entities * height * width}
    for name, expected in sizes.items():
        content = features.get(name)
        if not isinstance(content, bytes):
            there = ", ".join(map(repr, sorted(parse(payload, where)))) or "none"
            raise InputError(f"{where} has no bytes feature '{name}' as {what} has; its features: {there}.")
        if len(content) != expected:
            raise InputError(f"{where} has {len(content)} bytes of '{name}', {expected} expected for {what}.")
    image = np.frombuffer(features["image"], np.uint8).reshape(layout.image)
    maps = np.frombuffer(features["mask"], np.uint8)
    if not ((maps == 0) | (maps == 255)).all():
        raise InputError(f"{where} has mask values other than 0 and 255, which {what} has not.")
    if layout.entities_last:
        maps = maps.reshape(height, width, layout.entities).transpose(2, 0, 1)  # (H, W, E) -> (E, H, W)
    entities = maps.reshape(layout.entities, height, width) > 0
    notices = []
    owners = entities.sum(axis=0)
    if owners.max() > 1:
        notices.append(OVERLAP)
    if owners.min() < 1:
        notices.append(UNCOVERED)
    visibility = features.get("visibility")
    known = layout.visibility and isinstance(visibility, np.ndarray) and visibility.shape == (layout.entities,)
    if known and entities[visibility == 0].any():
        notices.append(INVISIBLE)
    return Record(np.repeat(image, 3, axis=2) if channels == 1 else image, entities, tuple(notices))


def parse(payload: bytes, where: str, names: Sequence[str] | None = None) -> dict[str, Feature]:
    """The features of a record, or those of `names` that it has.

    Raises:
        InputError: if it is not a tf.train.Example.
    """
    try:
        return parse_example(payload, names)
    except ValueError as error:
        raise InputError(f"{where} is not a tf.train.Example: {error}.") from None


def label_map(entities: Bool[np.ndarray, "e h w"], background: int) -> UInt8[np.ndarray, "h w"]:
    """Entity `background` becomes label 1, and so on; those before it, and pixels of no entity, are 0."""
    owner = entities.argmax(axis=0).astype(np.int16)
    labels: NDArray[np.uint8] = np.maximum(owner - (background - 1), 0).astype(np.uint8)
    return labels


def central(layout: Layout, side: int) -> Box:
    """The central square of `side` pixels; where it cannot be central it is half a pixel to the top left."""
    height, width, _ = layout.image
    return (height - side) // 2, (width - side) // 2, side, side


def _load(item: Item, *, layout: Layout, what: str, size: tuple[int, int], box: Box | None) -> Sample:
    record = decode(item.facts, layout, str(item.files[0].parent / item.name), what)
    labels = label_map(record.entities, layout.background)
    image = record.image
    if box is not None:
        top, left, height, width = box
        image, labels = (pixels[top : top + height, left : left + width] for pixels in (image, labels))
    return Sample(resize_image(image, size), resize_mask(labels, size), record.notices)
