"""Images that are arrays already: in an `.npz` or an HDF5 file, with masks and splits perhaps, or an `.npy` of images.

    image (or images)   uint8 (N, H, W, 3) or (N, 3, H, W)
    mask (or masks)     integers or booleans (N, H, W), perhaps with an axis of one more: 0 background, 1..254
                        objects, -1 or 255 ignore
    split               N strings, for example train, val, test, in HDF5 of fixed length; without it 80/10/10 in file
                        order

Such a source has no published size, so it is partial only with a `limit`.

Notable choices:
 - No array is ever loaded whole: a few megabytes of rows are read at a time, in order, which is the only way through a
   compressed file. So every file is read twice, first to verify it and to survey the labels.
 - What is stored decides, not the file's suffix.
 - Arrays in Fortran order are refused: their images lie scattered over the whole file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from boqsa.data.manifest import valid_split_name
from boqsa.data.packing import IGNORE
from boqsa.data.readers.array_files import StoredArray, open_arrays
from boqsa.data.readers.source import ORDER_RULE, Item, Progress, Sample, Source, choose, split_by_order
from boqsa.data.resample import centre_square, resize_image, resize_mask
from boqsa.errors import InputError

FOREGROUND = "mask values 0 and 255 alone: 255 was read as foreground, not as ignore"
_BLOCK_BYTES = 4 << 20
_MOST_BLOCK_BYTES = 24 << 20
_MOST_ROW_BYTES = 256 << 20
_MOST_SPLITS = 100


@dataclass(frozen=True)
class _Arrays:
    """The arrays of a file that belong together."""

    path: Path
    image: StoredArray
    mask: StoredArray | None
    split: StoredArray | None

    @property
    def total(self) -> int:
        return self.image.shape[0]

    def rows(self) -> int:
        """How many images are read at a time: a few megabytes, or more where they are packed together."""
        arrays = [array for array in (self.image, self.mask, self.split) if array is not None]
        each = sum(array.row_bytes for array in arrays)
        together = max(array.chunk_rows for array in arrays)
        rows = min(max(_BLOCK_BYTES // each, together), _MOST_BLOCK_BYTES // each)
        return max(1, rows // together * together or rows)

    def blocks(self) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None, list[str]]]:
        """Images, masks, and splits by name, a few rows at a time."""
        rows, done = self.rows(), 0
        of_masks = None if self.mask is None else self.mask.blocks(rows)
        of_splits = None if self.split is None else self.split.blocks(rows)
        for images in self.image.blocks(rows):
            masks = None if of_masks is None else next(of_masks)
            if of_splits is None:
                names = [split_by_order(index, self.total) for index in range(done, done + len(images))]
            else:
                names = [_split_name(value, self.path) for value in next(of_splits)]
            yield images, masks, names
            done += len(images)
        for others in (of_masks, of_splits):  # a damaged last byte is found at the end of an array
            if others is not None:
                next(others, None)


@dataclass
class _Survey:
    """What a pass over everything found."""

    counts: dict[str, int]
    """Images in each split."""
    lowest: int = 0
    highest: int = 0
    middle: bool = False
    """Whether any value but 0 and 255 occurs."""
    most: int = 0
    """The highest label that is not `IGNORE`."""

    @property
    def foreground(self) -> bool:
        """Whether 255 means foreground."""
        return self.highest == IGNORE and not self.middle


def read(
    source: Path,
    *,
    image_size: tuple[int, int] | None = None,
    crop: Literal["centre", "none"] = "centre",
    limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Open an `.npz`, `.npy` or HDF5 file.

    Args:
        source: The file; an `.npy` holds images alone.
        image_size: Height and width; what the crop leaves if not given.
        crop: The largest central square, or none.
        limit: At most this many images of each split, the first ones.
        progress: Called with ("verifying", bytes read, of all).

    Raises:
        InputError: if the file cannot be read, is truncated, holds pickled objects, or arrays of wrong names or types;
            or if it is HDF5 and h5py is not installed.
    """
    choose("crop", crop, ("centre", "none"))
    arrays = _find(source)
    survey = _survey(arrays, progress)
    notices = []
    if survey.foreground:
        notices.append(FOREGROUND)
    height, width = _height_and_width(arrays.image)
    if crop == "centre" and height != width:
        notices.append(f"images of {height}x{width} were cropped to their central square")
    side = min(height, width)
    size = image_size or ((side, side) if crop == "centre" else (height, width))
    wanted = {split: found if limit is None else min(found, limit) for split, found in survey.counts.items()}
    objects = 1 if survey.foreground else survey.most
    return Source(
        items=lambda: _items(arrays, wanted, foreground=survey.foreground),
        load=partial(
            _load,
            stored=(height, width),
            channels_first=_channels_first(arrays.image),
            size=size,
            square=crop == "centre",
        ),
        total=sum(wanted.values()),
        in_one_process=True,
        image_size=size,
        split_rule=ORDER_RULE if arrays.split is None else "as the array 'split' says",
        partial=limit is not None,
        task="foreground" if objects == 1 else "multi-object",
        options={"crop": crop},
        notices=notices,
    )


def _find(path: Path) -> _Arrays:
    stored = open_arrays(path)
    image_key, image = _pick(stored, ("image", "images"))
    if image is None:
        raise InputError(f"{path} has no array 'image'; it has {', '.join(sorted(stored)) or 'none'}.")
    _check_images(image, f"{path}: '{image_key}'")
    mask_key, mask = _pick(stored, ("mask", "masks"))
    if mask is not None:
        _check_masks(mask, (image.shape[0], *_height_and_width(image)), f"{path}: '{mask_key}'")
    split = stored.get("split")
    if split is not None and (split.shape != image.shape[:1] or not split.holds_text):
        found = f"{split.dtype} {split.shape}"
        raise InputError(f"{path}: 'split' is {found}; one string for each of the {image.shape[0]} images expected.")
    return _Arrays(path, image, mask, split)


def _pick(stored: dict[str, StoredArray], names: tuple[str, ...]) -> tuple[str, StoredArray | None]:
    for name in names:
        if name in stored:
            return name, stored[name]
    return names[0], None


def _check_images(image: StoredArray, where: str) -> None:
    found = f"{where} is {image.dtype} {image.shape}"
    expected = "uint8 (N, H, W, 3) or (N, 3, H, W) expected"
    if image.dtype != np.uint8:
        hint = "; multiply [0, 1] images by 255 and round" if image.dtype.kind == "f" else ""
        raise InputError(f"{found}; {expected}{hint}.")
    if len(image.shape) != 4 or 3 not in (image.shape[1], image.shape[3]) or 0 in image.shape:
        raise InputError(f"{found}; {expected}.")
    if image.row_bytes > _MOST_ROW_BYTES:
        raise InputError(f"{found}; images of at most {_MOST_ROW_BYTES >> 20} MiB each expected.")


def _check_masks(mask: StoredArray, shape: tuple[int, ...], where: str) -> None:
    if mask.dtype.kind not in "iub":
        raise InputError(f"{where} is {mask.dtype}; integer labels expected.")
    if mask.shape not in (shape, (*shape, 1), (shape[0], 1, *shape[1:])):
        raise InputError(f"{where} has shape {mask.shape}; {shape} expected, one label for each pixel of 'image'.")


def _channels_first(image: StoredArray) -> bool:
    return image.shape[3] != 3


def _height_and_width(image: StoredArray) -> tuple[int, int]:
    if _channels_first(image):
        return image.shape[2], image.shape[3]
    return image.shape[1], image.shape[2]


def _split_name(value: str, path: Path) -> str:
    if not valid_split_name(value):
        raise InputError(f"{path}: 'split' has {value[:40]!r}; letters, digits and underscores expected.")
    return value


def _survey(arrays: _Arrays, progress: Progress | None) -> _Survey:
    survey = _Survey({})
    present = [array for array in (arrays.image, arrays.mask, arrays.split) if array is not None]
    each = sum(array.row_bytes for array in present)
    done = 0
    for images, masks, splits in arrays.blocks():
        for split in splits:
            survey.counts[split] = survey.counts.get(split, 0) + 1
        if len(survey.counts) > _MOST_SPLITS:
            raise InputError(f"{arrays.path}: 'split' has more than {_MOST_SPLITS} names; train, val, test expected.")
        if masks is not None:
            _survey_labels(survey, masks)
        done += len(images)
        if progress is not None:
            progress("verifying", done * each, arrays.total * each)
    if survey.lowest < -1 or survey.highest > IGNORE:
        raise InputError(
            f"{arrays.path}: the masks have labels from {survey.lowest} to {survey.highest}; "
            "-1 (ignore) to 254 expected."
        )
    return survey


def _survey_labels(survey: _Survey, masks: NDArray[Any]) -> None:
    if masks.dtype == np.bool_:
        survey.most = max(survey.most, int(masks.any()))
        survey.middle = True  # True is 1
        return
    survey.lowest = min(survey.lowest, int(masks.min()))
    survey.highest = max(survey.highest, int(masks.max()))
    labels = masks[(masks != 0) & (masks != IGNORE)]
    survey.middle = survey.middle or bool(labels.size)
    survey.most = max(survey.most, int(labels.max(initial=0)))


def _items(arrays: _Arrays, wanted: dict[str, int], *, foreground: bool) -> Iterator[Item]:
    """The wanted images in file order; `facts` is the image's bytes, and those of its labels."""
    left = dict(wanted)
    index = count()
    for images, masks, splits in arrays.blocks():
        labels = None if masks is None else _as_bytes(masks, foreground=foreground)
        for row, split in enumerate(splits):
            name = f"image {next(index)}"
            if left.get(split, 0) == 0:
                continue
            left[split] -= 1
            facts = images[row].tobytes() + (b"" if labels is None else labels[row].tobytes())
            yield Item(name, split, (arrays.path,), facts)
        if not any(left.values()):
            return


def _as_bytes(masks: NDArray[Any], *, foreground: bool) -> NDArray[np.uint8]:
    labels = masks.astype(np.uint8)  # -1 becomes 255
    return (labels > 0).astype(np.uint8) if foreground else labels


def _load(item: Item, *, stored: tuple[int, int], channels_first: bool, size: tuple[int, int], square: bool) -> Sample:
    height, width = stored
    pixels = np.frombuffer(item.facts, np.uint8)
    image: UInt8[np.ndarray, "h w 3"] = pixels[: height * width * 3].reshape(height, width, 3)
    if channels_first:
        image = np.moveaxis(pixels[: height * width * 3].reshape(3, height, width), 0, 2)
    labels = pixels[height * width * 3 :]
    mask = labels.reshape(height, width) if labels.size else None
    if square:
        image, mask = centre_square(image), None if mask is None else centre_square(mask)
    return Sample(resize_image(image, size), None if mask is None else resize_mask(mask, size))
