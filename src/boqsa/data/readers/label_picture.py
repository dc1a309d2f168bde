"""Label maps kept as image files, in the encodings people use (spec/datasets.md 1.7 and 15).

A palette index or a grey value is the label, 255 = ignore. Two cases cannot be told from one file and are
decided over all of them: values 0 and 255 alone are background and foreground, and colours number objects by
frequency with black as background. A palette is never converted to colours: that would destroy the labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32, UInt8
from numpy.typing import NDArray

from boqsa.data.packing import IGNORE
from boqsa.data.readers.picture import SIXTEEN_BITS, Notice, decoding, open_picture
from boqsa.errors import InputError

MaskKind = Literal["labels", "foreground", "colours"]


@dataclass(frozen=True)
class MaskSurvey:
    """What a set of mask files turned out to be."""

    kind: MaskKind
    highest: int
    """The highest label, 0 if there are no masks or no objects."""
    broken: dict[Path, str]
    """Files that cannot be read as masks, and why."""


def survey_masks(
    paths: Sequence[Path], threshold: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> MaskSurvey:
    """Look at every mask, one at a time, to decide how all of them are read.

    Args:
        paths: The masks.
        threshold: As in `read_labels`.
        progress: Called with how many masks were looked at, of how many.
    """
    seen = np.zeros(IGNORE + 1, dtype=bool)
    most_colours = 0
    broken: dict[Path, str] = {}
    for done, path in enumerate(paths, 1):
        try:
            values = _read_values(path, threshold)
            if values.ndim == 3:
                most_colours = max(most_colours, int(_labels_of_colours(values, path).max()))
            else:
                seen[np.unique(values)] = True
        except InputError as error:
            broken[path] = str(error)
        progress(done, len(paths))
    if most_colours:
        return MaskSurvey("colours", most_colours, broken)
    labels = np.flatnonzero(seen)
    if labels.max(initial=0) == IGNORE and np.isin(labels, (0, IGNORE)).all():
        return MaskSurvey("foreground", 1, broken)
    return MaskSurvey("labels", int(labels[labels != IGNORE].max(initial=0)), broken)


def read_labels(path: Path, kind: MaskKind, threshold: int | None = None) -> UInt8[np.ndarray, "h w"]:
    """Read one mask as labels: 0 = background, 1..254 = objects, 255 = ignore.

    Args:
        path: The mask.
        kind: What `survey_masks` found.
        threshold: Take grey values above it as label 1, the others as 0.

    Raises:
        InputError: if the file is broken, or is not a label map.
    """
    values = _read_values(path, threshold)
    if kind == "colours":
        colours = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
        return _labels_of_colours(colours, path)
    if kind == "foreground":
        return (values > 0).astype(np.uint8)
    return values


def classes_of_labels(
    labels: UInt8[np.ndarray, "h w"], classes: UInt8[np.ndarray, "h w"], notice: Notice
) -> Int32[np.ndarray, "256"]:
    """The class of the object of each label: that of most of its pixels that have one; -1 where none has.

    Args:
        labels: 0 = background, 1..254 = objects, 255 = ignore.
        classes: The class of each pixel; 0 and 255 are none.
        notice: Called with a phrase for what a user should hear of.
    """
    pairs = labels.astype(np.int64) * 256 + classes
    shared = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
    shared[[0, IGNORE]] = 0  # no objects
    is_object = shared.any(axis=1)
    shared[:, [0, IGNORE]] = 0
    several = (shared > 0).sum(axis=1)
    if (several[is_object] == 0).any():
        notice("objects without a class, left out of scores of classes")
    if (several > 1).any():
        notice("objects of several classes, given that of most of their pixels")
    return np.where(several > 0, shared.argmax(axis=1), -1).astype(np.int32)


def read_foreground(path: Path, *, dithered: bool = False) -> UInt8[np.ndarray, "h w"]:
    """Read a black and white mask, as it is stored: 1 where its first channel is above 127.

    Args:
        path: The mask.
        dithered: Spread grey values into black and white dots instead, as the published code did with the birds,
            dogs and cars (spec/datasets.md 9).

    Raises:
        InputError: if the file is broken.
    """
    picture = open_picture(path, upright=False)
    with decoding(path):
        if dithered:
            return np.asarray(picture.convert("1")).astype(np.uint8)  # Pillow dithers by Floyd and Steinberg
        if picture.mode in SIXTEEN_BITS:
            return (np.asarray(picture) > 127 * 257).astype(np.uint8)
        first = np.asarray(picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB"))
        return ((first if first.ndim == 2 else first[..., 0]) > 127).astype(np.uint8)


def _read_values(path: Path, threshold: int | None) -> NDArray[np.uint8]:
    """The stored labels (H, W), or the colours (H, W, 3) where they are not grey."""
    picture = open_picture(path)
    with decoding(path):
        if threshold is not None:
            return (np.asarray(picture.convert("L")) > threshold).astype(np.uint8)
        if picture.format in ("JPEG", "MPO") or path.suffix.lower() in (".jpg", ".jpeg"):
            raise InputError(f"{path} is a JPEG, which blurs labels; save masks as PNG or give --mask-threshold.")
        if picture.mode in ("1", "P", "L"):
            return np.asarray(picture).astype(np.uint8)
        if picture.mode in SIXTEEN_BITS:
            wide = np.asarray(picture)
            if wide.min() < 0 or wide.max() > IGNORE:
                raise InputError(f"{path} has labels from {wide.min()} to {wide.max()}; 0 to 254 expected.")
            return wide.astype(np.uint8)
        if picture.mode not in ("LA", "RGB", "RGBA"):
            raise InputError(f"{path} has {picture.mode} pixels; a grey, palette or RGB label map expected.")
        colours = np.asarray(picture.convert("RGB"))
        return colours if (colours != colours[..., :1]).any() else colours[..., 0]


def _labels_of_colours(colours: UInt8[np.ndarray, "h w 3"], path: Path) -> UInt8[np.ndarray, "h w"]:
    """Number the colours by falling frequency; black is 0 whether it occurs or not."""
    codes = colours.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    unique, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if len(unique) >= IGNORE:
        raise InputError(f"{path} has {len(unique)} colours; a label map has one for each object.")
    order = np.lexsort((unique, -counts))
    order = order[unique[order] != 0]
    labels = np.zeros(len(unique), np.uint8)
    labels[order] = np.arange(1, len(order) + 1)
    return labels[inverse.reshape(codes.shape)]
