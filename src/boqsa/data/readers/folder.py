"""Any folder of images, with or without label masks (spec/datasets.md 15).

    SOURCE/[images/][train|val|test/]**/*.{png,jpg,webp,tif,...}      `SUFFIXES`
    SOURCE/masks/...          or a folder named by `masks`; a mask pairs by relative path without suffix
    SOURCE/CLASSES/...        where `classes` names it: class pictures, which pair as masks do

Notable choices:
 - Splits are the folders `train`, `val`, `test`; without them an image falls into train, val or test
   (80/10/10) by a hash of its relative path, which is stable when images are added.
 - A folder has no published size, so it is partial only where `limit` cut it.
 - Order is bytewise by relative path, so it is equal on all systems. Linked folders are followed, each once.
 - Nothing is dropped in silence: an image that is broken, or has no mask where others have one, is refused, unless
   `prepare` was allowed to leave some out. Pictures of formats that are not read are counted in a notice; other files,
   such as texts, are nobody's pictures.
 - The class of an object is what the class picture has on most of its pixels, as in PASCAL VOC.
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

from boqsa.data.packing import CLASSES, class_extra
from boqsa.data.readers.label_picture import MaskKind, classes_of_labels, read_labels, survey_masks
from boqsa.data.readers.picture import SUFFIXES, TURNED, UNREAD_SUFFIXES, check_pair, read_rgb
from boqsa.data.readers.source import (
    HASH_RULE,
    Item,
    Progress,
    Sample,
    Source,
    choose,
    files_below,
    listed,
    refuse_unreadable,
    require_folder,
    some_of,
    split_by_hash,
    take,
)
from boqsa.data.resample import centre_square, resize_image, resize_mask
from boqsa.errors import InputError

SPLITS = ("train", "val", "test")
_IMAGE_FOLDERS = ("images", "image")
_MASK_FOLDERS = ("masks", "mask", "segmentations")


class _Tree(NamedTuple):
    split: str | None
    images: Path
    masks: Path | None
    classes: Path | None


class _Facts(NamedTuple):
    """Of an item, whose files are its image, its mask if it has one, and then its class picture if it has one."""

    needs_mask: bool
    needs_classes: bool
    broken_mask: str = ""
    """What is wrong with the mask, if something is."""


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    crop: Literal["centre", "none"] = "centre",
    masks: str | Path | None = None,
    mask_threshold: int | None = None,
    classes: str | Path | None = None,
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
        classes: The folder of class pictures, or its name where it lies beside the images of every split; a
            palette index or grey value is the class of the object there, 0 and 255 are none. Scores of classes need it.
        limit: At most this many images of each split, the first ones.
        progress: Called with ("surveying", masks looked at, of how many).

    Raises:
        InputError: if there are no images, or no mask pairs with one, or none of the masks can be read.
    """
    require_folder(source, "give a folder of images")
    choose("crop", crop, ("centre", "none"))
    root = _where_it_starts(source)
    trees = _find_trees(root, masks, classes)
    notices: list[str] = []
    unread: list[Path] = []
    items = take((item for tree in trees for item in _pair(root, tree, notices, unread)), limit)
    if unread:
        notices.append(
            f"{len(unread)} pictures left out, in formats that are not read: {_kinds(unread)}; convert to JPEG"
        )
    mask_files = [item.files[1] for item in items if len(item.files) > 1]
    survey = survey_masks(mask_files, mask_threshold, lambda done, total: progress("surveying", done, total))
    if survey.broken and len(survey.broken) == len(mask_files):
        raise InputError(f"none of the masks can be read: {_listing(survey.broken)}.")
    if classes is not None and survey.highest == 1:
        notices.append("classes are scored where masks number several objects; these have one label, foreground")
    if survey.kind == "foreground":
        notices.append("mask values 0 and 255 alone: 255 was read as foreground, not as ignore")
    found = [_shown(tree, tree.masks, root) for tree in trees if tree.masks is not None]
    return Source(
        items=listed(_with_broken_masks(items, survey.broken)),
        load=partial(
            _load,
            size=image_size,
            cropped=crop == "centre",
            kind=survey.kind,
            threshold=mask_threshold,
            highest=None if classes is None else survey.highest,
        ),
        total=len(items),
        image_size=image_size,
        split_rule="the folders train, val and test" if trees[0].split else HASH_RULE,
        partial=limit is not None,
        task="foreground" if survey.highest == 1 else "multi-object",
        extras={} if classes is None else {CLASSES: class_extra(survey.highest)},
        options={
            "crop": crop,
            "masks": str(masks) if masks is not None else ", ".join(dict.fromkeys(found)) or None,
            "mask_threshold": mask_threshold,
            **({} if classes is None else {"classes": str(classes)}),
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
        replace(item, facts=item.facts._replace(broken_mask=reasons[item.files[1]]))
        if len(item.files) > 1 and item.files[1] in reasons
        else item
        for item in items
    ]


def _listing(broken: dict[Path, str]) -> str:
    return some_of([reason.rstrip(".") for reason in broken.values()])


def _load(
    item: Item,
    *,
    size: tuple[int, int],
    cropped: bool,
    kind: MaskKind,
    threshold: int | None,
    highest: int | None,
) -> Sample:
    """A sample; with the class of each label up to `highest`, if that is given."""
    facts: _Facts = item.facts
    phrases: list[str] = []
    image = read_rgb(item.files[0], phrases.append)
    mask = None
    if facts.needs_mask:
        mask = _read_mask(item, image.shape[:2], kind, threshold, turned=TURNED in phrases)
        if TURNED in phrases:
            phrases.append("turned by its EXIF orientation, so look whether its mask fits")
    packed = resize_image(centre_square(image) if cropped else image, size)
    labels = None if mask is None else resize_mask(centre_square(mask) if cropped else mask, size)
    if highest is None:
        return Sample(packed, labels, tuple(phrases))
    classes = np.full(highest + 1, -1, np.int32)
    if labels is not None and facts.needs_classes:
        drawn = _read_classes(item, image.shape[:2], turned=TURNED in phrases)
        drawn = resize_mask(centre_square(drawn) if cropped else drawn, size)
        classes = classes_of_labels(labels, drawn, phrases.append)[: highest + 1]
    return Sample(packed, labels, tuple(phrases), {CLASSES: classes})


def _read_mask(
    item: Item, shape: tuple[int, ...], kind: MaskKind, threshold: int | None, *, turned: bool
) -> UInt8[np.ndarray, "h w"]:
    if len(item.files) == 1:
        raise InputError(f"{item.files[0]} has no mask, though others have one.")
    image_file, mask_file = item.files[:2]
    if item.facts.broken_mask:
        raise InputError(item.facts.broken_mask)
    mask = read_labels(mask_file, kind, threshold)
    check_pair(image_file, shape, mask_file, mask.shape, turned=turned)
    return mask


def _read_classes(item: Item, shape: tuple[int, ...], *, turned: bool) -> UInt8[np.ndarray, "h w"]:
    if len(item.files) == 2:
        raise InputError(f"{item.files[0]} has no class picture, though others have one.")
    image_file, _, class_file = item.files
    classes = read_labels(class_file, "labels")
    if classes.ndim != 2:
        raise InputError(f"{class_file} has colours; a palette index or a grey value for each class expected.")
    check_pair(image_file, shape, class_file, classes.shape, turned=turned, what="class picture")
    return classes


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


def _find_trees(root: Path, masks: str | Path | None, classes: str | Path | None) -> list[_Tree]:
    """The folders of images, masks and classes: one for each split folder, or one in all."""
    images = _first_folder([root], _IMAGE_FOLDERS) or root
    splits = [split for split in SPLITS if (images / split).is_dir()]
    trees = [
        _Tree(split, _first_folder([images / split], _IMAGE_FOLDERS) or images / split, None, None) for split in splits
    ] or [_Tree(None, images, None, None)]
    masks_of_all, of_masks = _drawn_folders(root, images, splits, "mask", masks, _MASK_FOLDERS)
    classes_of_all, of_classes = _drawn_folders(root, images, splits, "class picture", classes, ())
    if classes is not None and not any(of_masks):
        raise InputError(f"{root} has no masks, whose objects --classes {classes} could tell; leave it out.")
    trees = [
        tree._replace(masks=mask, classes=own) for tree, mask, own in zip(trees, of_masks, of_classes, strict=True)
    ]
    if bare := [str(tree.split) for tree in trees if classes is not None and tree.masks and not tree.classes]:
        raise InputError(f"{' and '.join(bare)} has masks and no class pictures, which other splits have; add them.")
    excluded = [masks_of_all, classes_of_all, *(images / split for split in splits)]
    if splits and (stray := _list_images(images, excluded)):
        raise InputError(
            f"{images} has images outside of {', '.join(splits)}: {some_of(list(map(str, stray.values())))}; "
            "move them into a split."
        )
    return trees


def _drawn_folders(
    root: Path, images: Path, splits: list[str], what: str, given: str | Path | None, usual: tuple[str, ...]
) -> tuple[Path | None, list[Path | None]]:
    """Where masks, or class pictures, of all images are, if it is one folder; and where those of each split are.

    Args:
        root, images, splits: Where the images are.
        what: What is looked for, in a word.
        given: The folder or its name, if the user gave it.
        usual: The names to look for otherwise.
    """
    names = usual if given is None else (str(given),)  # an absolute path stays what it is when it is joined
    beside = [root.parent, root] if images == root and root.name in _IMAGE_FOLDERS else [root]
    of_all = _first_folder(beside, names)
    found = [_first_folder([images / split], names) for split in splits] or [None]
    if of_all is None and given is not None and not any(found):
        of_all = _named_folder(Path(given), what)
    if of_all is not None:
        by_split = _first_folder([of_all], SPLITS) is not None and bool(splits)
        found = [_first_folder([of_all], (split,)) if by_split else of_all for split in splits or [""]]
    return of_all, found


def _first_folder(where: list[Path], names: tuple[str, ...]) -> Path | None:
    return next((folder / name for folder in where for name in names if (folder / name).is_dir()), None)


def _named_folder(folder: Path, what: str) -> Path:
    if not folder.is_dir():
        raise InputError(f"the {what} folder {folder} {'is not a folder' if folder.exists() else 'does not exist'}.")
    return folder


def _pair(root: Path, tree: _Tree, notices: list[str], unread: list[Path]) -> list[Item]:
    """The images of a tree, with their masks and class pictures; `unread` gets those of formats that are not read."""
    images = _list_images(tree.images, [tree.masks, tree.classes], unread)
    if not images:
        more = f"; convert what it has in other formats to JPEG: {_kinds(unread)}" if unread else ""
        raise InputError(f"{tree.images} has no images ({', '.join(SUFFIXES)}){more}.")
    masks = _by_stem(tree.masks, "mask", excluded=tree.classes)
    classes = _by_stem(tree.classes, "class picture", excluded=tree.masks)
    stems = Counter(map(_stem, images))
    if masks and not masks.keys() & stems.keys():
        raise InputError(
            f"no mask of {tree.masks} pairs with an image of {tree.images}: the first mask is "
            f"'{next(iter(masks))}', the first image '{next(iter(stems))}'; "
            "they pair by relative path without suffix."
        )
    if masks and (shared := sorted(stem for stem, count in stems.items() if count > 1)):
        raise InputError(f"{tree.images} has several images for one mask: {some_of(shared)}.")
    if masks and classes and not masks.keys() & classes.keys():
        raise InputError(
            f"no class picture of {tree.classes} pairs with a mask of {tree.masks}: the first one is "
            f"'{next(iter(classes))}', the first mask '{next(iter(masks))}'; they pair by relative path without suffix."
        )
    if unused := sorted(masks.keys() - stems.keys()):
        notices.append(f"{len(unused)} masks have no image: {some_of(unused)}")
    if unused := sorted(classes.keys() - (masks.keys() & stems.keys())):
        notices.append(f"{len(unused)} class pictures have no image with a mask: {some_of(unused)}")
    items = []
    for relative, path in images.items():
        stem = _stem(relative)
        drawn = (masks[stem], *([classes[stem]] if stem in classes else [])) if stem in masks else ()
        name = path.relative_to(root).as_posix()
        facts = _Facts(needs_mask=bool(masks), needs_classes=bool(classes))
        items.append(Item(name, tree.split or split_by_hash(stem), (path, *drawn), facts))
    return items


def _by_stem(folder: Path | None, what: str, *, excluded: Path | None) -> dict[str, Path]:
    """The masks, or class pictures, of a folder by what they pair by."""
    found: dict[str, Path] = {}
    if folder is None:
        return found
    for relative, path in _list_images(folder, excluded=[excluded]).items():
        if other := found.get(_stem(relative)):
            raise InputError(f"{other} and {path} are {what}s of the same image; keep one.")
        found[_stem(relative)] = path
    if not found:
        raise InputError(f"the {what} folder {folder} has no images ({', '.join(SUFFIXES)}).")
    return found


def _list_images(folder: Path, excluded: list[Path | None], unread: list[Path] | None = None) -> dict[str, Path]:
    """Relative path -> path of every image below a folder, in bytewise order; hidden ones are skipped.

    `unread` gets the pictures of formats that are not read.
    """
    own = os.path.realpath(folder)
    left_out = [path for path in excluded if path is not None and os.path.realpath(path) != own]
    found: dict[str, Path] = {}
    for path in files_below(folder, left_out):
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            found[path.relative_to(folder).as_posix()] = path
        elif suffix in UNREAD_SUFFIXES and unread is not None:
            unread.append(path)
    return dict(sorted(found.items(), key=lambda item: os.fsencode(item[0])))


def _kinds(unread: list[Path]) -> str:
    """How many there are of each suffix, the most frequent first: `4 .heic, 2 .avif`."""
    counts = Counter(path.suffix.lower() for path in sorted(unread)).most_common()
    return ", ".join(f"{count} {suffix}" for suffix, count in counts)


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
