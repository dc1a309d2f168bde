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
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from boqsa.data.readers.mat import read_lists
from boqsa.data.readers.picture import check_pair, read_rgb
from boqsa.data.readers.source import Item, Sample, Source, choose, find_root, listed, some_of, take
from boqsa.data.resample import resize_image, resize_mask
from boqsa.errors import InputError

PUBLISHED_IMAGES = 8_189
_VARIABLES = ("trnid", "valid", "tstid")


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
    check_pair(image_file, image.shape, mask_file, painted.shape)
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
    numbers = {}
    for name, values in read_lists(path, _VARIABLES).items():
        whole = np.isfinite(values) & (values == np.trunc(values))
        if not (whole & (values >= 1) & (values <= PUBLISHED_IMAGES)).all():
            raise InputError(f"{name} of {path} has numbers outside of 1 to {PUBLISHED_IMAGES:,}; download it again.")
        numbers[name] = [int(value) for value in values]
    occurrences = Counter(number for name in _VARIABLES for number in numbers[name])
    if twice := sorted(number for number, count in occurrences.items() if count > 1):
        raise InputError(f"{path} names {some_of(list(map(str, twice)))} more than once; download it again.")
    return numbers
