"""Stanford Dogs and Stanford Cars as the authors of DRC preprocessed them (spec/datasets.md 10).

    SOURCE/data_mrcnn/{train,test}/resized/<token>_resized.png        image
    SOURCE/data_mrcnn/{train,test}/resized/<token>_maskresized.png    mask, bright = foreground
    data_tr_sel.npy, data_te_sel.npy                                  dogs: the tokens of train and of test
    data_mrcnn_train_select.npy, data_mrcnn_test_select.npy           cars: the same

`data_mrcnn` is looked for in SOURCE and below, the lists in it, beside it and in SOURCE: where they were is not known.

Notable choices:
 - The masks are what a Mask R-CNN found: pseudo ground truth.
 - `split="clean"` holds 5 % of the training tokens out as val; `published` uses the training images again as val, by
   whose masks the published checkpoints were selected, and says so.
 - `channel_order="bgr"` swaps red and blue, as the published code did by mistake, for comparisons with its weights.
 - A mask is foreground where its first channel is above 127; `mask_resample="published"` has dither dots, as in birds.
"""

import sys
from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from boqsa.data.readers.label_picture import read_foreground
from boqsa.data.readers.picture import check_pair, read_rgb
from boqsa.data.readers.source import (
    Item,
    Sample,
    Source,
    choose,
    find_root,
    held_out_by_hash,
    listed,
    some_of,
    take,
)
from boqsa.data.resample import resize_image, resize_mask
from boqsa.errors import InputError

_DOGS = {"train": "data_tr_sel.npy", "test": "data_te_sel.npy"}
_CARS = {"train": "data_mrcnn_train_select.npy", "test": "data_mrcnn_test_select.npy"}

ChannelOrder = Literal["rgb", "bgr"]
Resample = Literal["pil-nearest", "published"]
Split = Literal["clean", "published"]


def read_dogs(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    channel_order: ChannelOrder = "rgb",
    mask_resample: Resample = "pil-nearest",
    split: Split = "clean",
    limit: int | None = None,
) -> Source:
    """Open Stanford Dogs.

    Args:
        source: The folder that holds `data_mrcnn`, or the archive as DRC gives it.
        image_size: Height and width.
        channel_order: `bgr` swaps red and blue.
        mask_resample: `published` dithers grey masks into dots first, as the published code did.
        split: `clean`, or `published`, where val is train.
        limit: At most this many images of each split, the first ones.

    Raises:
        InputError: if folders or lists are missing, or a list is damaged.
    """
    return _read(source, _DOGS, image_size, channel_order, mask_resample, split, limit)


def read_cars(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    channel_order: ChannelOrder = "rgb",
    mask_resample: Resample = "pil-nearest",
    split: Split = "clean",
    limit: int | None = None,
) -> Source:
    """Open Stanford Cars; as `read_dogs`."""
    return _read(source, _CARS, image_size, channel_order, mask_resample, split, limit)


def _read(
    source: Path,
    lists: dict[str, str],
    image_size: tuple[int, int],
    channel_order: str,
    mask_resample: str,
    split: str,
    limit: int | None,
) -> Source:
    choose("channel_order", channel_order, ("rgb", "bgr"))
    choose("mask_resample", mask_resample, ("pil-nearest", "published"))
    choose("split", split, ("clean", "published"))
    root = find_root(source, "train/resized", "test/resized")
    tokens = {part: read_tokens(_find_list(source, root, name)) for part, name in lists.items()}
    notices = [
        f"the list of {part} names {len(twice)} tokens more than once: {some_of(twice)}"
        for part, names in tokens.items()
        if (twice := [token for token, count in Counter(names).items() if count > 1])
    ]
    held_out = [token for token in tokens["train"] if split == "published" or held_out_by_hash(token)]
    kept = [token for token in tokens["train"] if split == "published" or not held_out_by_hash(token)]
    items = [
        Item(
            name=f"{part}/{token}",
            split=name,
            files=(
                root / part / "resized" / f"{token}_resized.png",
                root / part / "resized" / f"{token}_maskresized.png",
            ),
        )
        for name, part, names in (
            ("train", "train", kept),
            ("val", "train", held_out),
            ("test", "test", tokens["test"]),
        )
        for token in names
    ]
    items = take(items, limit)
    return Source(
        items=listed(items),
        load=partial(_load, size=image_size, swapped=channel_order == "bgr", dithered=mask_resample == "published"),
        total=len(items),
        image_size=image_size,
        split_rule="the published lists of train and test; val is train again"
        if split == "published"
        else "the published lists of train and test; 5 % of train, by a hash of the token, are val",
        partial=limit is not None,
        leak="selected on training masks" if split == "published" else "",
        options={"channel_order": channel_order, "mask_resample": mask_resample, "split": split},
        notices=["masks are what a Mask R-CNN found: pseudo ground truth", *notices],
    )


def _load(item: Item, *, size: tuple[int, int], swapped: bool, dithered: bool) -> Sample:
    phrases: list[str] = []
    image_file, mask_file = item.files
    image = read_rgb(image_file, phrases.append, upright=False)
    mask = read_foreground(mask_file, dithered=dithered)
    check_pair(image_file, image.shape, mask_file, mask.shape)
    if swapped:
        image = image[..., ::-1]
    return Sample(resize_image(image, size), resize_mask(mask, size), tuple(phrases))


def _find_list(source: Path, root: Path, name: str) -> Path:
    for folder in (root, root.parent, source):
        if (folder / name).is_file():
            return folder / name
    missing = f"{source} has no {name}, the list of tokens that DRC's archive holds; put it beside {root.name}."
    return find_root(root, name, missing=missing) / name


def read_tokens(path: Path) -> list[str]:
    """The tokens of a list: a one-dimensional `.npy` of integers or strings.

    Raises:
        InputError: if it is anything else, or a token would lead out of its folder.
    """
    expected = "a one-dimensional .npy of integers or strings, saved without pickle, expected"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a header can promise gigabytes
    except Exception as error:  # NumPy's own reader of headers lets many kinds through
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read {path}: {reason.rstrip('.')}; {expected}.") from None
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iuUS":
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{path} holds {found}; {expected}.")
    if array.dtype.kind == "U" and array.dtype.itemsize:
        codes = array.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if codes.max(initial=0) > sys.maxunicode:  # of which NumPy would make strings that end in SystemError
            raise InputError(f"{path} holds a token that is no text; {expected}.")
    try:
        tokens = [value.decode() if isinstance(value, bytes) else str(value) for value in array.tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} holds a token that is no text: {error}.") from None
    for token in tokens:
        path_of_token = PurePosixPath(token)
        if not token or not token.isprintable() or path_of_token.is_absolute() or ".." in path_of_token.parts:
            raise InputError(f"{path} holds the token {token[:80]!r}, which names no file.")
    if not tokens:
        raise InputError(f"{path} names no tokens.")
    return tokens
