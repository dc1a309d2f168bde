"""Writing packed sets: shards of plain `.npy` arrays, grown image by image, that can be continued.

    TARGET/manifest.json                 source, counts, split rule, licence, sha256 of every file
    TARGET/<split>.image.<shard>.npy     uint8 (n, 3, H, W), RGB
    TARGET/<split>.mask.<shard>.npy      uint8 (n, H, W), 0 = background, 1.. = objects, 255 = ignore; or int16,
                                         -1 = ignore, where a picture can have more than 254 objects; optional
    TARGET/<split>.<extra>.<shard>.npy   what some data sets have for each image: camera, scene, classes, ...
    TARGET/<split>.names.txt             the source's name of each image, one a line

Notable choices:
 - Plain `.npy`, so that anyone can read a packed set with `numpy.load(..., mmap_mode="r")` and nothing else.
 - No file is larger than 2 GiB, so that a set moves over any file system. Every shard but a split's last one holds
   `images_per_shard` images, so that finding image i is arithmetic.
 - Writing streams: memory does not grow with the number of images, which need not be known beforehand. The header of a
   shard is written again with the final count when the shard is full.
 - `counts` is the whole state: a writer opened on a half-made folder with the counts that were safe on disk cuts off
   whatever came after them and goes on, to the same bytes.
"""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from jaxtyping import Int, UInt8
from numpy.lib import format as npy
from numpy.typing import NDArray

from boqsa.atomic import atomic_folder
from boqsa.data.manifest import MANIFEST, Manifest, Option, Task, shard_file, valid_split_name
from boqsa.errors import InputError

IGNORE = 255
"""How a pixel without a label is stored in eight bits; `PackedDataset` returns it as -1."""
CLASSES = "classes"
"""The extra that says which class the object of each label is of, int32 (labels,): from 0 up, -1 for labels without."""
SHARD_BYTES = 2**31 - 2**20
"""Most bytes of an array of one file: 2 GiB, less a little for the header."""


@dataclass(frozen=True)
class Extra:
    """An array beside the images, one entry an image: its NumPy type in words, and the shape of an entry."""

    dtype: str
    shape: tuple[int, ...]


class PackedWriter:
    """Appends images to the splits of a packed folder that is being made.

    Args:
        folder: The folder to fill; nobody reads it before it has its manifest.
        image_size: Height and width in pixels.
        wide_labels: Store masks in 16 bits, for pictures with more than 254 objects.
        extras: Further arrays, one entry an image.
        counts: Images of each split that `folder` holds already; whatever lies behind them is cut off.
        shard_bytes: Most bytes of an image array in one file.

    Raises:
        InputError: if `folder` holds less than `counts` says.
    """

    def __init__(
        self,
        folder: Path,
        image_size: tuple[int, int],
        *,
        wide_labels: bool = False,
        extras: Mapping[str, Extra] | None = None,
        counts: Mapping[str, int] | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self._folder = folder
        self._image_size = image_size
        self._columns = {
            "image": Extra("|u1", (3, *image_size)),
            "mask": Extra("<i2" if wide_labels else "|u1", image_size),
            **(extras or {}),
        }
        largest = max(_entry_bytes(column) for column in self._columns.values())
        self.images_per_shard = max(1, shard_bytes // largest)
        self._counts = dict(counts or {})
        self._files: dict[str, BinaryIO] = {}
        self._reopen()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    @property
    def counts(self) -> dict[str, int]:
        """Images written so far to each split: train, val, test first, then the others as they came."""
        first = [split for split in ("train", "val", "test") if split in self._counts]
        return {split: self._counts[split] for split in dict.fromkeys([*first, *self._counts])}

    def append(
        self,
        split: str,
        images: UInt8[np.ndarray, "n 3 h w"],
        masks: Int[np.ndarray, "n h w"] | None,
        *,
        names: Sequence[str] = (),
        extras: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Append n images, with masks or without; a split has masks for all of its images or for none.

        Mask values: -1 or 255 = ignore, 0 = background, 1..254 = objects; with `wide_labels` -1 = ignore, and objects
        up to 32767. `names` and `extras` have an entry for each image; a split has names for all of them or for none.

        Raises:
            InputError: if a label does not fit, or the disk is full.
            ValueError: if shapes, element types or the presence of masks, names or extras are wrong.
        """
        if not valid_split_name(split):
            raise ValueError(f"split name {split!r}: letters, digits and underscores expected.")
        if images.dtype != np.uint8 or images.shape[1:] != (3, *self._image_size):
            raise ValueError(f"images: uint8 (n, 3, {self._image_size}) expected, {images.dtype} {images.shape} found.")
        columns: dict[str, NDArray[Any]] = {"image": images}
        if masks is not None:
            if masks.shape != (len(images), *self._image_size):
                raise ValueError(f"masks: one an image of shape {self._image_size} expected, {masks.shape} found.")
            columns["mask"] = _stored_labels(masks, self._columns["mask"].dtype)
        columns |= self._checked_extras(extras or {}, len(images))
        if len(names) not in (0, len(images)):
            raise ValueError(f"{len(images)} images, {len(names)} names.")
        if len(images) == 0:
            return
        if self._counts.get(split):
            present = {name: (self._folder / shard_file(split, name, 0)).exists() for name in self._columns}
            if (masks is not None) != present["mask"]:
                raise ValueError(f"split '{split}' has images with a mask and images without.")
            if bool(names) != (self._folder / names_file(split)).exists():
                raise ValueError(f"split '{split}' has images with a name and images without.")
        try:
            self._write(split, columns)
            self._write_names(split, names)
        except OSError as error:
            raise InputError(f"cannot write the packed data: {error.strerror}; choose another target.") from None
        self._counts[split] = self._counts.get(split, 0) + len(images)

    def flush(self) -> dict[str, int]:
        """Bring everything that was appended to disk; the counts with which a later writer can go on."""
        try:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write the packed data: {error.strerror}; choose another target.") from None
        return self.counts

    def finish(
        self,
        *,
        name: str,
        source: str,
        licence: str,
        task: Task,
        split_rule: str,
        foreground: str = "labels 1 and above",
        partial: bool = False,
        leak: str = "",
        options: Mapping[str, Option] | None = None,
        notices: Sequence[str] = (),
        skipped: Sequence[str] = (),
    ) -> Manifest:
        """Complete the arrays, write the manifest beside them and return it; the fields are `Manifest`'s.

        Until the folder has its final name, a later writer can still go on from the counts of an earlier `flush`.
        """
        if not any(self._counts.values()):
            raise ValueError("a packed data set needs at least one image.")
        for file_name in list(self._files):
            self._close(file_name)
        sha256 = {}
        for path in sorted(self._folder.iterdir()):
            with open(path, "rb") as written:
                sha256[path.name] = hashlib.file_digest(written, "sha256").hexdigest()
        manifest = Manifest(
            name=name,
            source=source,
            licence=licence,
            task=task,
            foreground=foreground,
            image_size=self._image_size,
            counts=self.counts,
            images_per_shard=self.images_per_shard,
            extras=tuple(name for name in self._columns if name not in ("image", "mask")),
            split_rule=split_rule,
            partial=partial,
            leak=leak,
            sha256=sha256,
            options=dict(options or {}),
            notices=(*notices, *self._duplicates()),
            skipped=tuple(skipped),
        )
        # A file name that is not UTF-8 becomes an escape that JSON knows.
        (self._folder / MANIFEST).write_bytes(manifest.to_json().encode("utf-8", "backslashreplace"))
        return manifest

    def _checked_extras(self, extras: Mapping[str, NDArray[Any]], count: int) -> dict[str, NDArray[Any]]:
        expected = {name: column for name, column in self._columns.items() if name not in ("image", "mask")}
        if extras.keys() != expected.keys():
            raise ValueError(f"extras {sorted(expected)} expected, {sorted(extras)} found.")
        checked = {}
        for name, column in expected.items():
            values = np.asarray(extras[name])
            if values.shape != (count, *column.shape):
                raise ValueError(f"extra '{name}': shape {(count, *column.shape)} expected, {values.shape} found.")
            checked[name] = values.astype(column.dtype, casting="same_kind")
        return checked

    def _write(self, split: str, columns: Mapping[str, NDArray[Any]]) -> None:
        done, count = 0, len(columns["image"])
        while done < count:
            shard, inside = divmod(self._counts.get(split, 0) + done, self.images_per_shard)
            piece = slice(done, done + min(count - done, self.images_per_shard - inside))
            for name, values in columns.items():
                file_name = shard_file(split, name, shard)
                if inside == 0:
                    if shard > 0:
                        self._close(shard_file(split, name, shard - 1))
                    self._files[file_name] = open(self._folder / file_name, "wb+")  # noqa: SIM115
                    _write_header(self._files[file_name], self._columns[name], 0)
                self._files[file_name].write(np.ascontiguousarray(values[piece]).data)
            done = piece.stop

    def _write_names(self, split: str, names: Sequence[str]) -> None:
        if not names:
            return
        file_name = names_file(split)
        if file_name not in self._files:
            self._files[file_name] = open(self._folder / file_name, "wb+")  # noqa: SIM115
        lines = "".join(name.replace("\\", "\\\\").replace("\n", "\\n") + "\n" for name in names)
        self._files[file_name].write(lines.encode("utf-8", "surrogateescape"))

    def _duplicates(self) -> list[str]:
        """One sentence for every pair of splits that share images: a leak that results should admit."""
        if len(self._counts) < 2:
            return []
        unique = {split: np.unique(np.frombuffer(self._hashes(split), "<u8")) for split in self.counts}
        sentences = []
        for first, second in combinations(unique, 2):
            shared = len(np.intersect1d(unique[first], unique[second], assume_unique=True))
            if shared:
                sentences.append(f"{shared} images occur both in {first} and in {second}")
        return sentences

    def _hashes(self, split: str) -> bytes:
        """Eight bytes for each image. They are of the finished files, so that there is nothing to keep until then."""
        column = self._columns["image"]
        hashes = bytearray()
        for shard in range(-(-self._counts[split] // self.images_per_shard)):
            with open(self._folder / shard_file(split, "image", shard), "rb") as file:
                file.seek(_header_bytes(column))
                while image := file.read(_entry_bytes(column)):
                    hashes += hashlib.blake2b(image, digest_size=8).digest()
        return bytes(hashes)

    def _close(self, file_name: str) -> None:
        """Give an array file its final header, and close it."""
        file = self._files.pop(file_name)
        if file_name.endswith(".npy"):
            column = self._columns[file_name.split(".")[1]]
            file.seek(0, os.SEEK_END)
            _write_header(file, column, (file.tell() - _header_bytes(column)) // _entry_bytes(column))
        file.flush()
        os.fsync(file.fileno())
        file.close()

    def _reopen(self) -> None:
        """Open the last shard of every split where `counts` ends, and remove what lies behind."""
        expected: dict[str, int] = {}
        for split, count in self._counts.items():
            shard = max(0, count - 1) // self.images_per_shard
            inside = count - shard * self.images_per_shard
            for name, column in self._columns.items():
                if name != "mask" or (self._folder / shard_file(split, name, 0)).exists():
                    for earlier in range(shard):
                        expected[shard_file(split, name, earlier)] = -1
                    expected[shard_file(split, name, shard)] = _header_bytes(column) + inside * _entry_bytes(column)
            if (self._folder / names_file(split)).exists():
                expected[names_file(split)] = _bytes_of_lines(self._folder / names_file(split), count)
        for path in self._folder.iterdir():
            if path.name not in expected:
                path.unlink()
        for file_name, size in expected.items():
            path = self._folder / file_name
            if not path.exists() or size > path.stat().st_size:
                raise InputError(
                    f"{path} is shorter than its journal says; delete {self._folder.parent} and start again."
                )
            if size >= 0:
                file = open(path, "rb+")  # noqa: SIM115
                file.truncate(size)
                file.seek(0, os.SEEK_END)
                self._files[file_name] = file


def class_extra(highest: int) -> Extra:
    """The extra `CLASSES` of a set with labels up to `highest`: an entry for each, the background's too."""
    return Extra("<i4", (highest + 1,))


def write_packed(
    target: str | Path,
    splits: Mapping[str, tuple[UInt8[np.ndarray, "n 3 h w"], Int[np.ndarray, "n h w"] | None]],
    *,
    name: str,
    source: str,
    licence: str,
    task: Task,
    split_rule: str,
    foreground: str = "labels 1 and above",
    partial: bool = False,
    options: Mapping[str, Option] | None = None,
    notices: Sequence[str] = (),
) -> Manifest:
    """Pack arrays that are in memory: `splits` maps a split's name to its images and masks (or None).

    Images are uint8 (N, 3, H, W), masks integer (N, H, W), -1 or 255 = ignore. A packed folder at
    `target` is replaced, at once and as a whole. The other arguments are fields of `Manifest`.

    Raises:
        InputError: if `target` cannot be written.
        ValueError: if the arrays have wrong shapes or types.
    """
    if not splits:
        raise ValueError("a packed data set needs at least one split.")
    height, width = next(iter(splits.values()))[0].shape[-2:]
    with atomic_folder(target) as folder, PackedWriter(folder, (height, width)) as writer:
        for split, (images, masks) in splits.items():
            writer.append(split, images, masks)
        return writer.finish(
            name=name,
            source=source,
            licence=licence,
            task=task,
            split_rule=split_rule,
            foreground=foreground,
            partial=partial,
            options=options,
            notices=notices,
        )


def names_file(split: str) -> str:
    """The name of the list of a split's image names."""
    return f"{split}.names.txt"


def _stored_labels(masks: Int[np.ndarray, "n h w"], dtype: str) -> NDArray[Any]:
    if dtype == "|u1":
        highest_allowed, stored = IGNORE, masks.astype(np.uint8, copy=False)  # -1 becomes 255
    else:
        highest_allowed, stored = np.iinfo(np.int16).max, masks.astype(dtype, copy=False)
    if masks.dtype != np.uint8 and masks.size:
        lowest, highest = int(masks.min()), int(masks.max())
        if lowest < -1 or highest > highest_allowed:
            most = IGNORE - 1 if dtype == "|u1" else highest_allowed
            raise InputError(f"mask labels from {lowest} to {highest} found; -1 (ignore) to {most} expected.")
    return stored


def _entry_bytes(column: Extra) -> int:
    return np.dtype(column.dtype).itemsize * int(np.prod(column.shape))


def _header_bytes(column: Extra) -> int:
    return len(_header(column, 0))


def _header(column: Extra, count: int) -> bytes:
    # numpy leaves room for a first axis of 21 digits, so the header's length does not depend on the count.
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": column.dtype, "fortran_order": False, "shape": (count, *column.shape)})
    return header.getvalue()


def _write_header(file: BinaryIO, column: Extra, count: int) -> None:
    file.seek(0)
    file.write(_header(column, count))
    file.seek(0, os.SEEK_END)


def _bytes_of_lines(path: Path, count: int) -> int:
    with open(path, "rb") as file:
        for _ in range(count):
            file.readline()
        return file.tell()
