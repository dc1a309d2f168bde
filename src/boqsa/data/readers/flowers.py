"""Oxford Flowers 102 with its segmentations (spec/datasets.md 11).

    SOURCE/jpg/image_00001.jpg          102flowers.tgz
    SOURCE/segmim/segmim_00001.jpg      102segmentations.tgz: the image with its background painted blue (0, 0, 254)
    SOURCE/setid.mat                    numbers of train (trnid), val (valid) and test (tstid), from 1

Each of the three is looked for in SOURCE and two levels below.

Notable choices:
 - `split="clean"`, which is the official one, trains on the 1,020 images that were meant for it. The published code
   exchanged train and test: `split="published"`.
 - A JPEG has no exact blue. `mask_rule="robust"` takes what is near it as background and then the nearest pixel;
   `"published"` takes every pixel without red, or without green, or with blue at 254, which makes holes in petals of
   pure colours and specks at borders, and resizes the mask linearly, as the published code did. By default the rule is
   that of the split: a published split has published masks.
 - Images stay as stored, since segmentations were made of them that way; an EXIF orientation is told.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from boqsa.data.readers.picture import read_rgb
from boqsa.data.readers.source import Item, Sample, Source, choose, find_root, listed, some_of, take
from boqsa.data.resample import resize_image, resize_mask
from boqsa.errors import InputError

PUBLISHED_IMAGES = 8_189
_VARIABLES = ("trnid", "valid", "tstid")
_MOST_BYTES = 1 << 20
"""Of `setid.mat`; the published one has some 15 kB."""


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    mask_rule: Literal["robust", "published"] | None = None,
    split: Literal["clean", "official", "published"] = "clean",
    limit: int | None = None,
) -> Source:
    """Open the flowers.

    Args:
        source: The folder that holds `jpg`, `segmim` and `setid.mat`, or the archives and `setid.mat`.
        image_size: Height and width; images are squeezed, as published.
        mask_rule: How background is told in the segmentations; by default `published` with the published split, else
            `robust`.
        split: `clean` or `official`, which are the same, or `published`, where train and test are exchanged.
        limit: At most this many images of each split, the first ones.

    Raises:
        InputError: if a folder or `setid.mat` is missing, or `setid.mat` is damaged.
    """
    choose("split", split, ("clean", "official", "published"))
    rule = choose(
        "mask_rule", mask_rule or ("published" if split == "published" else "robust"), ("robust", "published")
    )
    images, segmentations = find_root(source, "jpg") / "jpg", find_root(source, "segmim") / "segmim"
    numbers = read_set_ids(find_root(source, "setid.mat") / "setid.mat")
    variables = ("tstid", "valid", "trnid") if split == "published" else _VARIABLES
    items = [
        Item(
            name=f"image_{number:05d}.jpg",
            split=name,
            files=(images / f"image_{number:05d}.jpg", segmentations / f"segmim_{number:05d}.jpg"),
        )
        for name, variable in zip(("train", "val", "test"), variables, strict=True)
        for number in numbers[variable]
    ]
    found = len(items)
    items = take(items, limit)
    return Source(
        items=listed(items),
        load=partial(_load, size=image_size, published=rule == "published"),
        total=len(items),
        image_size=image_size,
        split_rule="setid.mat with train and test exchanged, as published"
        if split == "published"
        else "setid.mat, the official split",
        partial=found < PUBLISHED_IMAGES or limit is not None,
        options={"mask_rule": rule, "split": split},
    )


def _load(item: Item, *, size: tuple[int, int], published: bool) -> Sample:
    phrases: list[str] = []
    image_file, mask_file = item.files
    image = read_rgb(image_file, phrases.append, upright=False)
    painted = read_rgb(mask_file, lambda _: None, upright=False)
    if painted.shape != image.shape:
        found = f"{painted.shape[0]}x{painted.shape[1]}"
        raise InputError(f"{image_file} is {image.shape[0]}x{image.shape[1]}, its mask {mask_file} is {found}.")
    mask = published_mask(painted, size) if published else resize_mask(robust_mask(painted), size)
    return Sample(resize_image(image, size), mask, tuple(phrases))


def robust_mask(painted: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """1 where a segmentation is not about as blue as its background."""
    red, green, blue = np.moveaxis(painted, 2, 0)
    flower: NDArray[np.bool_] = ~((red <= 40) & (green <= 40) & (blue >= 200))
    return flower.astype(np.uint8)


def published_mask(painted: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2"]:
    """1 where the published code saw a flower: its rule on each channel alone, its linear resize cut at a half."""
    red, green, blue = np.moveaxis(painted, 2, 0)
    flower: NDArray[np.bool_] = ~((red == 0) | (green == 0) | (blue == 254))
    picture = Image.fromarray(flower.astype(np.uint8) * 255)
    resized = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return (resized > 127).astype(np.uint8)


def read_set_ids(path: Path) -> dict[str, list[int]]:
    """The image numbers of `trnid`, `valid` and `tstid`, in the file's order.

    Raises:
        InputError: if the file is not what Oxford publishes: three lists of numbers from 1 that share none.
    """
    numbers = {name: _image_numbers(array, f"{name} of {path}") for name, array in _load_mat(path).items()}
    occurrences = Counter(number for name in _VARIABLES for number in numbers[name])
    if twice := sorted(number for number, count in occurrences.items() if count > 1):
        raise InputError(f"{path} names {some_of(list(map(str, twice)))} more than once; download it again.")
    return numbers


def _load_mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat, whosmat

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than {_MOST_BYTES >> 20} MB; Oxford's setid.mat has some 15 kB.")
        # A header can promise gigabytes, so shapes are looked at before anything is read.
        shapes = {name: (shape, kind) for name, shape, kind in whosmat(str(path)) if name in _VARIABLES}
        if missing := [name for name in _VARIABLES if name not in shapes]:
            raise InputError(f"{path} has no {', '.join(missing)}; take setid.mat from Oxford's page of the set.")
        for name, (shape, kind) in shapes.items():
            row = len(shape) == 2 and 1 in shape and 1 <= max(shape) <= PUBLISHED_IMAGES
            if not row or not kind.startswith(("int", "uint", "double", "single")):
                found = f"{kind} {'x'.join(map(str, shape))}"
                raise InputError(f"{name} of {path} is {found}; 1xN image numbers expected: download it again.")
        loaded = loadmat(str(path), variable_names=list(_VARIABLES))
        return {name: np.asarray(loaded[name]) for name in _VARIABLES}
    except InputError:
        raise
    except Exception as error:  # SciPy lets through whatever a damaged file makes it run into
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no MAT file that can be read ({reason.rstrip('.')}); download it again.") from None


def _image_numbers(array: Any, what: str) -> list[int]:
    if array.dtype.kind not in "iuf" or array.size == 0 or array.size > PUBLISHED_IMAGES:
        raise InputError(f"{what} is {array.dtype} {array.shape}; 1xN image numbers expected: download it again.")
    values = array.ravel()
    if not (np.isfinite(values) & (values >= 1) & (values <= PUBLISHED_IMAGES) & (values == np.trunc(values))).all():
        raise InputError(f"{what} has numbers outside of 1 to {PUBLISHED_IMAGES:,}; download it again.")
    return [int(value) for value in values]
