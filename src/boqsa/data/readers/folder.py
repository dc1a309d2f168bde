"""Any folder of images, with or without label masks (spec/datasets.md 15).

    SOURCE/[images/][train|val|test/]**/*.{png,jpg,jpeg,webp,bmp}
    SOURCE/masks/...          or a folder named by `masks`; a mask pairs by relative path without suffix

Notable choices:
 - Splits are the folders `train`, `val`, `test`; without them an image falls into train, val or test
   (80/10/10) by a hash of its relative path, which is stable when images are added.
 - A folder has no published size, so it is never called partial.
 - Order is bytewise by relative path, so it is equal on all systems.
 - Nothing is dropped in silence: unreadable images, and images without a mask where others have one, are all
   listed and refuse the source, unless `skip_broken` lists them in the manifest instead.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from boqsa.data.readers.label_picture import MaskSurvey, read_labels, survey_masks
from boqsa.data.readers.picture import TURNED, read_rgb
from boqsa.data.readers.source import Sample, Source, some_of
from boqsa.data.resample import centre_square, resize_image, resize_mask
from boqsa.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLITS = ("train", "val", "test")
_IMAGE_FOLDERS = ("images", "image")
_MASK_FOLDERS = ("masks", "mask", "segmentations")
_HASH_RULE = "80/10/10 by a hash of the relative path, stable when images are added"


@dataclass(frozen=True)
class _Tree:
    split: str | None
    images: Path
    masks: Path | None


@dataclass(frozen=True)
class _Entry:
    image: Path
    mask: Path | None
    needs_mask: bool
    split: str
    name: str


def read(
    source: str | Path,
    *,
    image_size: int | None = None,
    masks: str | Path | None = None,
    crop: Literal["centre", "none"] = "centre",
    mask_threshold: int | None = None,
    skip_broken: bool = False,
    limit: int | None = None,
) -> Source:
    """Open a folder of images.

    Args:
        source: the folder.
        image_size: side in pixels, 128 if not given.
        masks: the folder of masks; without it the folder `masks`, `mask` or `segmentations` beside the images
            is taken if there is one.
        crop: `centre` takes the central square, `none` squeezes the whole image into one.
        mask_threshold: read masks as grey and take values above it as foreground, as JPEG masks need.
        skip_broken: leave out what cannot be read, and list it in the manifest.
        limit: at most this many images of each split folder, or in all where there are none.

    Raises:
        InputError: if there are no images, or images or masks cannot be read or paired.
    """
    root = Path(source)
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {state}; give a folder of images.")
    if crop not in ("centre", "none"):
        raise InputError(f"crop '{crop}' is unknown; choose 'centre' or 'none'.")
    trees = _find_trees(root, None if masks is None else Path(masks))
    notices: list[str] = []
    entries = [entry for tree in trees for entry in _pair(root, tree, notices)[:limit]]
    survey = survey_masks([entry.mask for entry in entries if entry.mask], mask_threshold)
    if survey.kind == "foreground":
        notices.append("mask values 0 and 255 alone: 255 was read as foreground, not as ignore")
    side = image_size or 128
    skipped: list[str] = []
    reading = _Reading(entries, survey, mask_threshold, crop, (side, side), skip_broken, notices, skipped)
    mask_roots = [str(tree.masks) for tree in trees if tree.masks is not None]
    return Source(
        samples=reading.samples(),
        total=len(entries),
        image_size=(side, side),
        split_rule="the folders train, val and test" if trees[0].split else _HASH_RULE,
        task="foreground" if survey.highest == 1 else "multi-object",
        options={
            "crop": crop,
            "masks": str(masks) if masks is not None else ", ".join(mask_roots) or None,
            "mask_threshold": mask_threshold,
        },
        notices=notices,
        skipped=skipped,
    )


@dataclass(frozen=True)
class _Reading:
    """One pass over the entries, which counts what it converts and lists what it cannot read."""

    entries: list[_Entry]
    survey: MaskSurvey
    mask_threshold: int | None
    crop: str
    size: tuple[int, int]
    skip_broken: bool
    notices: list[str]
    skipped: list[str]

    def samples(self) -> Iterator[Sample]:
        converted: Counter[str] = Counter()
        for entry in self.entries:
            try:
                sample = self._read(entry, converted)
            except InputError as error:
                self.skipped.append(str(error).rstrip("."))
                continue
            yield sample
        self.notices.extend(f"{count} images: {what}" for what, count in sorted(converted.items()))
        if self.skipped and not self.skip_broken:
            raise InputError(
                f"{len(self.skipped)} of {len(self.entries)} images cannot be used: {some_of(self.skipped)}; "
                "mend them, or give --skip-broken to leave them out."
            )

    def _read(self, entry: _Entry, converted: Counter[str]) -> Sample:
        phrases: list[str] = []
        image = read_rgb(entry.image, phrases.append)
        mask = self._read_mask(entry, image.shape[:2], turned=TURNED in phrases)
        converted.update(phrases)
        if self.crop == "centre":
            image = centre_square(image)
            mask = None if mask is None else centre_square(mask)
        return Sample(
            image=resize_image(image, self.size),
            mask=None if mask is None else resize_mask(mask, self.size),
            split=entry.split,
            name=entry.name,
        )

    def _read_mask(self, entry: _Entry, shape: tuple[int, ...], turned: bool) -> UInt8[np.ndarray, "h w"] | None:
        if not entry.needs_mask:
            return None
        if entry.mask is None:
            raise InputError(f"{entry.image} has no mask, though others have one")
        if entry.mask in self.survey.broken:
            raise InputError(self.survey.broken[entry.mask])
        mask = read_labels(entry.mask, self.survey.kind, self.mask_threshold)
        if mask.shape != shape:
            upright = " once its EXIF orientation is applied" if turned else ""
            raise InputError(
                f"{entry.image} is {shape[0]}x{shape[1]}{upright}, its mask {entry.mask} is "
                f"{mask.shape[0]}x{mask.shape[1]}"
            )
        return mask


def _find_trees(root: Path, masks: Path | None) -> list[_Tree]:
    """The folders of images and masks: one for each split folder, or one in all."""
    if masks is not None and not masks.is_dir():
        raise InputError(f"the mask folder {masks} {'is not a folder' if masks.exists() else 'does not exist'}.")
    images = _first_folder(root, _IMAGE_FOLDERS) or root
    if masks is None:
        beside = root.parent if images == root and root.name in _IMAGE_FOLDERS else root
        masks = _first_folder(beside, _MASK_FOLDERS)
    splits = [split for split in SPLITS if (images / split).is_dir()]
    trees = []
    for split in splits:
        inner = _first_folder(images / split, _IMAGE_FOLDERS) or images / split
        inner_masks = _first_folder(images / split, _MASK_FOLDERS)
        if masks is not None:
            inner_masks = masks / split if (masks / split).is_dir() else masks
        trees.append(_Tree(split, inner, inner_masks))
    stray = _list_images(images, excluded=[masks, *(images / split for split in splits)]) if splits else {}
    if stray:
        raise InputError(
            f"{images} has images outside of {', '.join(splits)}: {some_of(list(map(str, stray.values())))}; "
            "move them into a split."
        )
    return trees or [_Tree(None, images, masks)]


def _first_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _pair(root: Path, tree: _Tree, notices: list[str]) -> list[_Entry]:
    images = _list_images(tree.images, excluded=[tree.masks])
    if not images:
        raise InputError(f"{tree.images} has no images ({', '.join(SUFFIXES)}).")
    masks: dict[str, Path] = {}
    if tree.masks is not None:
        for relative, path in _list_images(tree.masks, excluded=[]).items():
            if other := masks.get(_stem(relative)):
                raise InputError(f"{other} and {path} are masks of the same image; keep one.")
            masks[_stem(relative)] = path
    stems = Counter(map(_stem, images))
    if masks and not masks.keys() & stems.keys():
        raise InputError(
            f"no mask of {tree.masks} pairs with an image of {tree.images}: the first mask is "
            f"'{next(iter(masks))}', the first image '{next(iter(stems))}'; "
            "they pair by relative path without suffix."
        )
    if masks and (shared := sorted(stem for stem, count in stems.items() if count > 1)):
        raise InputError(f"{tree.images} has several images for one mask: {some_of(shared)}.")
    if unused := sorted(masks.keys() - stems.keys()):
        notices.append(f"{len(unused)} masks have no image: {some_of(unused)}")
    return [
        _Entry(
            image=path,
            mask=masks.get(_stem(relative)),
            needs_mask=bool(masks),
            split=tree.split or _split_by_hash(_stem(relative)),
            name=path.relative_to(root).as_posix(),
        )
        for relative, path in images.items()
    ]


def _list_images(folder: Path, excluded: list[Path | None]) -> dict[str, Path]:
    """Relative path -> path of every image below a folder, in bytewise order; hidden ones are skipped."""
    left_out = {path.resolve() for path in excluded if path is not None} - {folder.resolve()}
    found: dict[str, Path] = {}
    for where, folders, files in os.walk(folder, onerror=_refuse):
        here = Path(where)
        folders[:] = [name for name in folders if not name.startswith(".") and (here / name).resolve() not in left_out]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                found[(here / name).relative_to(folder).as_posix()] = here / name
    return dict(sorted(found.items(), key=lambda item: os.fsencode(item[0])))


def _refuse(error: OSError) -> None:
    raise InputError(f"cannot read the folder {error.filename}: {error.strerror}.")


def _stem(relative: str) -> str:
    return str(Path(relative).with_suffix("").as_posix())


def _split_by_hash(stem: str) -> str:
    digest = hashlib.sha256(os.fsencode(stem)).digest()
    tenth = int.from_bytes(digest[:8], "big") % 10
    return "train" if tenth < 8 else SPLITS[tenth - 7]
