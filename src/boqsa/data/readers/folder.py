"""Any folder of images, with or without label masks (spec/datasets.md 15).

    SOURCE/[images/][train|val|test/]**/*.{png,jpg,jpeg,webp,bmp}
    SOURCE/masks/...          or a folder named by `masks`; a mask pairs by relative path without suffix

Notable choices:
 - Splits are the folders `train`, `val`, `test`; without them an image falls into train, val or test
   (80/10/10) by a hash of its relative path, which is stable when images are added.
 - A folder has no published size, so it is partial only where `limit` cut it.
 - Order is bytewise by relative path, so it is equal on all systems. Linked folders are followed, each once.
 - Nothing is dropped in silence: an image that is broken, or has no mask where others have one, is refused, unless
   `prepare` was allowed to leave some out.
 - What masks mean is decided over all of them, so they are all looked at first; none is kept in memory.
"""

import os
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from boqsa.data.readers.label_picture import MaskKind, read_labels, survey_masks
from boqsa.data.readers.picture import TURNED, check_pair, read_rgb
from boqsa.data.readers.source import (
    HASH_RULE,
    Item,
    Progress,
    Sample,
    Source,
    choose,
    listed,
    refuse_unreadable,
    require_folder,
    some_of,
    split_by_hash,
    take,
)
from boqsa.data.resample import centre_square, resize_image, resize_mask
from boqsa.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLITS = ("train", "val", "test")
_IMAGE_FOLDERS = ("images", "image")
_MASK_FOLDERS = ("masks", "mask", "segmentations")


class _Tree(NamedTuple):
    split: str | None
    images: Path
    masks: Path | None


class _Facts(NamedTuple):
    """Of an item, whose files are its image and, if there is one, its mask."""

    needs_mask: bool
    broken_mask: str = ""
    """What is wrong with the mask, if something is."""


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    crop: Literal["centre", "none"] = "centre",
    masks: str | Path | None = None,
    mask_threshold: int | None = None,
    limit: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Source:
    """Open a folder of images.

    Args:
        source: The folder.
        image_size: Height and width.
        crop: `centre` takes the largest central square, `none` the whole image; either is then resized to
            `image_size`, whatever its shape.
        masks: The folder of masks, or its name where it lies beside the images of every split; by default the folder
            `masks`, `mask` or `segmentations` beside the images is taken if there is one.
        mask_threshold: Read masks as grey and take values above it as foreground, as JPEG masks need.
        limit: At most this many images of each split, the first ones.
        progress: Called with ("surveying", masks looked at, of how many).

    Raises:
        InputError: if there are no images, or no mask pairs with one, or none of the masks can be read.
    """
    require_folder(source, "give a folder of images")
    choose("crop", crop, ("centre", "none"))
    root = _where_it_starts(source)
    trees = _find_trees(root, None if masks is None else str(masks))
    notices: list[str] = []
    items = take((item for tree in trees for item in _pair(root, tree, notices)), limit)
    mask_files = [item.files[1] for item in items if len(item.files) == 2]
    survey = survey_masks(mask_files, mask_threshold, lambda done, total: progress("surveying", done, total))
    if survey.broken and len(survey.broken) == len(mask_files):
        raise InputError(f"none of the masks can be read: {_listing(survey.broken)}.")
    if survey.kind == "foreground":
        notices.append("mask values 0 and 255 alone: 255 was read as foreground, not as ignore")
    found = [_shown(tree, tree.masks, root) for tree in trees if tree.masks is not None]
    return Source(
        items=listed(_with_broken_masks(items, survey.broken)),
        load=partial(_load, size=image_size, cropped=crop == "centre", kind=survey.kind, threshold=mask_threshold),
        total=len(items),
        image_size=image_size,
        split_rule="the folders train, val and test" if trees[0].split else HASH_RULE,
        partial=limit is not None,
        task="foreground" if survey.highest == 1 else "multi-object",
        options={
            "crop": crop,
            "masks": str(masks) if masks is not None else ", ".join(dict.fromkeys(found)) or None,
            "mask_threshold": mask_threshold,
        },
        notices=notices,
    )


def _with_broken_masks(items: list[Item], broken: dict[Path, str]) -> list[Item]:
    """The items, and on those with a broken mask what is wrong; on the first one the others are named too."""
    if not broken:
        return items
    reasons = dict(broken)
    first = next(iter(reasons))
    if len(reasons) > 1:
        reasons[first] = f"{len(reasons)} masks cannot be read: {_listing(broken)}"
    return [
        replace(item, facts=_Facts(True, reasons[item.files[1]])) if item.files[-1] in reasons else item
        for item in items
    ]


def _listing(broken: dict[Path, str]) -> str:
    return some_of([reason.rstrip(".") for reason in broken.values()])


def _load(item: Item, *, size: tuple[int, int], cropped: bool, kind: MaskKind, threshold: int | None) -> Sample:
    facts: _Facts = item.facts
    phrases: list[str] = []
    image = read_rgb(item.files[0], phrases.append)
    mask = None
    if facts.needs_mask:
        mask = _read_mask(item, image.shape[:2], kind, threshold, turned=TURNED in phrases)
        if TURNED in phrases:
            phrases.append("turned by its EXIF orientation, so look whether its mask fits")
    if cropped:
        image = centre_square(image)
        mask = None if mask is None else centre_square(mask)
    return Sample(
        image=resize_image(image, size), mask=None if mask is None else resize_mask(mask, size), notices=tuple(phrases)
    )


def _read_mask(
    item: Item, shape: tuple[int, ...], kind: MaskKind, threshold: int | None, *, turned: bool
) -> UInt8[np.ndarray, "h w"]:
    if len(item.files) == 1:
        raise InputError(f"{item.files[0]} has no mask, though others have one.")
    image_file, mask_file = item.files
    if item.facts.broken_mask:
        raise InputError(item.facts.broken_mask)
    mask = read_labels(mask_file, kind, threshold)
    check_pair(image_file, shape, mask_file, mask.shape, turned=turned)
    return mask


# Which folders hold what.


def _where_it_starts(source: Path) -> Path:
    """`source`, or the folder that an archive wrapped around its images and masks."""
    folder = source
    for _ in range(3):
        if any((folder / name).is_dir() for name in (*_IMAGE_FOLDERS, *SPLITS)):
            return folder
        inside = [path for path in _entries(folder) if not path.name.startswith((".", "__MACOSX"))]
        if len(inside) != 1 or not inside[0].is_dir():
            break
        folder = inside[0]
    return source


def _find_trees(root: Path, masks: str | None) -> list[_Tree]:
    """The folders of images and masks: one for each split folder, or one in all."""
    images = _first_folder([root], _IMAGE_FOLDERS) or root
    splits = [split for split in SPLITS if (images / split).is_dir()]
    names = _MASK_FOLDERS if masks is None else (masks,)  # an absolute path stays what it is when it is joined
    beside = [root.parent, root] if images == root and root.name in _IMAGE_FOLDERS else [root]
    of_all = _first_folder(beside, names)
    trees = [_Tree(split, *_tree_of(images / split, names)) for split in splits] or [_Tree(None, images, None)]
    if of_all is None and masks is not None and not any(tree.masks for tree in trees):
        of_all = _named_folder(Path(masks))
    if of_all is not None:
        by_split = _first_folder([of_all], SPLITS) is not None and bool(splits)
        trees = [
            tree._replace(masks=_first_folder([of_all], (tree.split or "",)) if by_split else of_all) for tree in trees
        ]
    excluded = [of_all, *(images / split for split in splits)]
    if splits and (stray := _list_images(images, excluded)):
        raise InputError(
            f"{images} has images outside of {', '.join(splits)}: {some_of(list(map(str, stray.values())))}; "
            "move them into a split."
        )
    return trees


def _tree_of(folder: Path, mask_names: tuple[str, ...]) -> tuple[Path, Path | None]:
    return _first_folder([folder], _IMAGE_FOLDERS) or folder, _first_folder([folder], mask_names)


def _first_folder(where: list[Path], names: tuple[str, ...]) -> Path | None:
    return next((folder / name for folder in where for name in names if (folder / name).is_dir()), None)


def _named_folder(masks: Path) -> Path:
    if not masks.is_dir():
        raise InputError(f"the mask folder {masks} {'is not a folder' if masks.exists() else 'does not exist'}.")
    return masks


def _pair(root: Path, tree: _Tree, notices: list[str]) -> list[Item]:
    images = _list_images(tree.images, excluded=[tree.masks])
    if not images:
        raise InputError(f"{tree.images} has no images ({', '.join(SUFFIXES)}).")
    masks: dict[str, Path] = {}
    if tree.masks is not None:
        for relative, path in _list_images(tree.masks, excluded=[]).items():
            if other := masks.get(_stem(relative)):
                raise InputError(f"{other} and {path} are masks of the same image; keep one.")
            masks[_stem(relative)] = path
        if not masks:
            raise InputError(f"the mask folder {tree.masks} has no images ({', '.join(SUFFIXES)}).")
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
    items = []
    for relative, path in images.items():
        stem = _stem(relative)
        files = (path, masks[stem]) if stem in masks else (path,)
        name = path.relative_to(root).as_posix()
        items.append(Item(name, tree.split or split_by_hash(stem), files, _Facts(needs_mask=bool(masks))))
    return items


def _list_images(folder: Path, excluded: list[Path | None]) -> dict[str, Path]:
    """Relative path -> path of every image below a folder, in bytewise order; hidden ones are skipped."""
    left_out = {os.path.realpath(path) for path in excluded if path is not None} - {os.path.realpath(folder)}
    found: dict[str, Path] = {}
    for where, folders, files in os.walk(folder, onerror=refuse_unreadable, followlinks=True):
        here = Path(where)
        left_out.add(os.path.realpath(here))  # a link back to it must not lead round and round
        entered = []
        for name in sorted(folders, key=os.fsencode):
            real = os.path.realpath(here / name)
            if not name.startswith((".", "__MACOSX")) and real not in left_out:
                left_out.add(real)
                entered.append(name)
        folders[:] = entered
        for name in files:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                found[(here / name).relative_to(folder).as_posix()] = here / name
    return dict(sorted(found.items(), key=lambda item: os.fsencode(item[0])))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        refuse_unreadable(error)


def _stem(relative: str) -> str:
    return Path(relative).with_suffix("").as_posix()


def _shown(tree: _Tree, masks: Path, root: Path) -> str:
    """How the manifest names masks that were found: the same wherever the source stands."""
    folder = masks.parent if masks.name == tree.split else masks
    return Path(os.path.relpath(folder, root)).as_posix()
