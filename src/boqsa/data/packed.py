"""Packed data sets: a folder of plain `.npy` arrays at target size, and a manifest of their origin.

    TARGET/manifest.json          source, counts, split rule, licence, sha256 of every file
    TARGET/<split>.image.npy      uint8 (N, 3, H, W), RGB
    TARGET/<split>.mask.npy       uint8 (N, H, W), 0 = background, 1.. = objects, 255 = ignore; optional

Notable choices:
 - Plain `.npy`, so that anyone can read a packed set with `numpy.load(..., mmap_mode="r")` and nothing else.
 - Labels keep the source's own numbering (entity, level in the stack), so gaps are allowed.
 - Writing streams: memory does not grow with the number of images, which need not be known beforehand.
 - Opening compares sizes with the manifest, which is cheap; the sha256 are compared by `boqsa data check`.
"""

import hashlib
import os
from array import array
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from boqsa.atomic import atomic_folder
from boqsa.data.manifest import MANIFEST, Manifest, Option, Task, valid_split_name
from boqsa.errors import InputError

IGNORE = 255
"""How a pixel without a label is stored; `PackedDataset` returns it as -1."""


class PackedDataset(Dataset[dict[str, Tensor]]):
    """One split of a packed folder, memory-mapped: opening costs nothing, worker processes share the pages.

    Item i is `{"image": uint8 (3, H, W), "mask": int64 (H, W)}`; the mask is -1 where the pixel is to be
    ignored, and is absent where the split has no masks. Pickling sends the path alone.

    Raises:
        InputError: if `path` is not a packed folder, lacks the split, or disagrees with its manifest.
    """

    def __init__(self, path: str | Path, split: str) -> None:
        self.path = Path(path)
        self.split = split
        self.manifest = Manifest.load(self.path)
        if split not in self.manifest.counts:
            there = ", ".join(self.manifest.counts)
            raise InputError(f"{path} has no split '{split}'; it has {there}.")
        count, size = self.manifest.counts[split], self.manifest.image_size
        self._images = _open_array(self.path / image_file(split), (count, 3, *size))
        self._masks: NDArray[np.uint8] | None = None
        if mask_file(split) in self.manifest.sha256:
            self._masks = _open_array(self.path / mask_file(split), (count, *size))

    def __reduce__(self) -> tuple[type["PackedDataset"], tuple[Path, str]]:
        return PackedDataset, (self.path, self.split)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The sample at `index`; a negative one counts from the end, one out of range raises IndexError."""
        return {name: values[0] for name, values in self.batch([index]).items()}

    def batch(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> dict[str, Tensor]:
        """Many samples at once, in the order asked: `image` uint8 (B, 3, H, W), `mask` int64 (B, H, W)."""
        chosen = np.asarray(indices, dtype=np.int64)
        sample = {"image": torch.from_numpy(self._images[chosen])}
        if self._masks is not None:
            # Adding 1 in uint8 wraps 255 to 0, so that ignore ends as -1 without a comparison.
            sample["mask"] = torch.from_numpy(self._masks[chosen]).add_(1).long().sub_(1)
        return sample

    @property
    def has_masks(self) -> bool:
        """Whether the items of this split have a `mask`."""
        return self._masks is not None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.manifest.image_size


class PackedWriter:
    """Appends images to the splits of a packed folder that is being made; use it inside `atomic_folder`.

    Array headers are written again with the final count in `finish`, so images can come from a stream. A
    64-bit hash of each image, all that stays in memory, tells which of them occur in two splits.
    """

    def __init__(self, folder: Path, image_size: tuple[int, int]) -> None:
        self._folder = folder
        self._image_size = image_size
        self._files: dict[str, BinaryIO] = {}
        self._hashes: dict[str, array[int]] = {}

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
        first = [split for split in ("train", "val", "test") if split in self._hashes]
        return {split: len(self._hashes[split]) for split in dict.fromkeys([*first, *self._hashes])}

    def append(self, split: str, images: UInt8[np.ndarray, "n 3 h w"], masks: Int[np.ndarray, "n h w"] | None) -> None:
        """Append n images, with masks or without; a split has masks for all of its images or for none.

        Mask values: -1 or 255 = ignore, 0 = background, 1..254 = objects.

        Raises:
            InputError: if a label does not fit in eight bits, or the disk is full.
            ValueError: if shapes, element types or the presence of masks are wrong.
        """
        if not valid_split_name(split):
            raise ValueError(f"split name {split!r}: letters, digits and underscores expected.")
        if images.dtype != np.uint8 or images.shape[1:] != (3, *self._image_size):
            raise ValueError(f"images: uint8 (n, 3, {self._image_size}) expected, {images.dtype} {images.shape} found.")
        if masks is not None and masks.shape != (len(images), *self._image_size):
            raise ValueError(f"masks: one an image of shape {self._image_size} expected, {masks.shape} found.")
        if split in self._hashes and (masks is not None) != (mask_file(split) in self._files):
            raise ValueError(f"split '{split}' has images with a mask and images without.")
        if len(images) == 0:
            return
        hashes = self._hashes.setdefault(split, array("Q"))
        for image in images:
            digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "little"))
        self._write(image_file(split), images, (3, *self._image_size))
        if masks is not None:
            self._write(mask_file(split), _labels_as_bytes(masks), self._image_size)

    def duplicates(self) -> list[str]:
        """One sentence for every pair of splits that share images: a leak that results should admit."""
        unique = {split: np.unique(np.asarray(hashes)) for split, hashes in self._hashes.items()}
        sentences = []
        for first, second in combinations(unique, 2):
            shared = len(np.intersect1d(unique[first], unique[second], assume_unique=True))
            if shared:
                sentences.append(f"{shared} images occur both in {first} and in {second}")
        return sentences

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
        options: Mapping[str, Option] | None = None,
        notices: Sequence[str] = (),
        skipped: Sequence[str] = (),
    ) -> Manifest:
        """Complete the arrays, write the manifest beside them and return it; the fields are `Manifest`'s."""
        if not self._hashes:
            raise ValueError("a packed data set needs at least one image.")
        sha256 = {}
        for file_name in sorted(self._files):
            file = self._files[file_name]
            count = self.counts[file_name.split(".")[0]]
            per_image = self._image_size if file_name.endswith(".mask.npy") else (3, *self._image_size)
            _write_header(file, (count, *per_image))
            file.close()
            with open(self._folder / file_name, "rb") as written:
                sha256[file_name] = hashlib.file_digest(written, "sha256").hexdigest()
        manifest = Manifest(
            name=name,
            source=source,
            licence=licence,
            task=task,
            foreground=foreground,
            image_size=self._image_size,
            counts=self.counts,
            split_rule=split_rule,
            partial=partial,
            sha256=sha256,
            options=dict(options or {}),
            notices=(*notices, *self.duplicates()),
            skipped=tuple(skipped),
        )
        (self._folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        return manifest

    def _write(self, file_name: str, values: NDArray[np.uint8], per_image: tuple[int, ...]) -> None:
        try:
            if file_name not in self._files:
                self._files[file_name] = open(self._folder / file_name, "wb")  # noqa: SIM115
                _write_header(self._files[file_name], (0, *per_image))
            self._files[file_name].write(np.ascontiguousarray(values).data)
        except OSError as error:
            raise InputError(f"cannot write the packed data: {error.strerror}; choose another target.") from None


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


def image_file(split: str) -> str:
    """The name of a split's image array inside a packed folder."""
    return f"{split}.image.npy"


def mask_file(split: str) -> str:
    """The name of a split's mask array inside a packed folder."""
    return f"{split}.mask.npy"


def _labels_as_bytes(masks: Int[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w"]:
    if masks.dtype == np.uint8:
        return masks
    lowest, highest = int(masks.min()), int(masks.max())
    if lowest < -1 or highest > IGNORE:
        raise InputError(f"mask labels from {lowest} to {highest} found; -1 (ignore) to 254 expected.")
    return masks.astype(np.uint8)  # -1 becomes 255


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    # numpy leaves room for a first axis of 21 digits, so the header's length does not depend on the count.
    file.seek(0)
    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    file.seek(0, os.SEEK_END)


def _open_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read {path} ({error}); prepare the data set again.") from None
    if mapped.dtype != np.uint8 or mapped.shape != shape:
        raise InputError(
            f"{path} holds {mapped.dtype} {mapped.shape}, its manifest says uint8 {shape}; prepare the data set again."
        )
    # A plain array view: indexing np.memmap itself costs a subclass object on every read.
    return np.asarray(mapped)
