"""ShapeStacks in its original folders (spec/datasets.md 3).

    SOURCE/recordings/<scenario>/rgb-...-cam_<k>-mono-0.png                       image
    SOURCE/recordings/<scenario>/iseg-w=0-f=0-l=0-c=original-cam_<k>-mono-0.map   mask, or under SOURCE/iseg
    SOURCE/splits/<split>/{train,eval,test}.txt         one scenario a line

A `.map` is a PNG whose red, green and blue are 32 times the label; label k is the k-th shape from the bottom.
One mask serves all textures of a scenario and camera. Images and masks are cropped to their central 196
pixels, as published.

Notable choices:
 - `mask_resample="pil-nearest"` samples masks on the images' grid; `"published"` is the original half-pixel
   shift.
 - An image without a map gets a mask that is ignored everywhere, and the manifest counts it; a split in which
   no image has a map has no masks.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from boqsa.data.packing import IGNORE
from boqsa.data.readers.picture import open_picture, read_rgb
from boqsa.data.readers.source import Item, Sample, Source, choose, find_root, listed, some_of
from boqsa.data.resample import MaskResample, centre_crop, resize_image, resize_mask
from boqsa.errors import InputError

PUBLISHED_SCENARIOS = 19_450
STORED = (224, 224)
CROP = (196, 196)
SPLIT_FILES = {"train": "train.txt", "val": "eval.txt", "test": "test.txt"}
_LONGEST_NAME = 200
_GRIDS: dict[str, MaskResample] = {"pil-nearest": "pil-nearest", "published": "torch-nearest"}


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    crop: Literal["196", "none"] = "196",
    mask_resample: Literal["pil-nearest", "published"] = "pil-nearest",
    variant: str = "default",
    limit: int | None = None,
) -> Source:
    """Open ShapeStacks: `source` is the folder that holds `recordings` and `splits`, or the archives.

    Args:
        source: The folder.
        image_size: Height and width.
        crop: The published central 196 pixels, or none.
        mask_resample: The grid masks are sampled on.
        variant: Which of the published split folders: `default`, `blocks_all`, `ccs_all`.
        limit: At most this many images of each split, the first ones.

    Raises:
        InputError: if folders, split files or all recordings are missing.
    """
    root = find_root(source, "recordings", "splits")
    choose("mask_resample", mask_resample, list(_GRIDS))
    choose("crop", crop, ("196", "none"))
    scenarios = _read_splits(root, variant)
    notices: list[str] = []
    items, absent = _list_items(root, scenarios, limit)
    if absent:
        notices.append(f"{len(absent)} scenarios of the split files have no recordings: {some_of(absent)}")
    if unmapped := [item.name for item in items if len(item.files) == 1]:
        notices.append(f"{len(unmapped)} images have no iseg map; scores ignore them: {some_of(unmapped)}")
    found = sum(len(names) for names in scenarios.values()) - len(absent)
    return Source(
        items=listed(items),
        load=partial(_load, size=image_size, cropped=crop == "196", grid=_GRIDS[mask_resample]),
        total=len(items),
        image_size=image_size,
        split_rule=f"published split files, splits/{variant}; eval is val",
        partial=bool(absent) or limit is not None or (variant == "default" and found < PUBLISHED_SCENARIOS),
        options={"crop": crop, "mask_resample": mask_resample, "variant": variant},
        notices=notices,
    )


def _read_splits(root: Path, split: str) -> dict[str, list[str]]:
    folder = root / "splits" / split
    if not folder.is_dir():
        there = ", ".join(sorted(entry.name for entry in (root / "splits").iterdir() if entry.is_dir()))
        raise InputError(f"{root / 'splits'} has no split '{split}'; it has {there or 'none'}.")
    scenarios = {}
    for name, file_name in SPLIT_FILES.items():
        try:
            lines = (folder / file_name).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the split file {folder / file_name}: {error}.") from None
        scenarios[name] = [line.strip() for line in lines if line.strip()]
        if wrong := [line for line in scenarios[name] if "/" in line or len(line) > _LONGEST_NAME]:
            raise InputError(f"{folder / file_name} has the line '{wrong[0][:60]}'; the name of a scenario expected.")
    return scenarios


def _list_items(root: Path, scenarios: dict[str, list[str]], limit: int | None) -> tuple[list[Item], list[str]]:
    """The images of every split, with `facts` = whether they need a mask, and the scenarios without images."""
    items: list[Item] = []
    absent: list[str] = []
    for split, names in scenarios.items():
        of_split: list[Item] = []
        for name in names:
            folder = root / "recordings" / name
            images = sorted(folder.glob("rgb-*-mono-0.png"), key=lambda path: path.name)
            if not images:
                absent.append(name)
            for image in images:
                map_path = _find_map(root, image)
                files = (image,) if map_path is None else (image, map_path)
                of_split.append(Item(f"{name}/{image.name}", split, files))
            if limit is not None and len(of_split) >= limit:
                break
        of_split = of_split[:limit]
        mapped = any(len(item.files) == 2 for item in of_split)
        items += [replace(item, facts=mapped) for item in of_split]
    if not items:
        raise InputError(f"{root / 'recordings'} has none of the scenarios that the split files name.")
    return items, absent


def _find_map(root: Path, image: Path) -> Path | None:
    camera = re.search(r"-(cam_\d+)-mono-0\.png$", image.name)
    if camera is None:
        raise InputError(f"{image} has no camera in its name; rgb-...-cam_<k>-mono-0.png expected.")
    name = f"iseg-w=0-f=0-l=0-c=original-{camera[1]}-mono-0.map"
    for folder in (image.parent, root / "iseg" / image.parent.name):
        if (folder / name).is_file():
            return folder / name
    return None


def _load(item: Item, *, size: tuple[int, int], cropped: bool, grid: MaskResample) -> Sample:
    def framed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return centre_crop(pixels, CROP) if cropped else pixels

    image_path = item.files[0]
    image = read_rgb(image_path, notice=lambda _: None)
    if image.shape[:2] != STORED:
        found = f"{image.shape[0]}x{image.shape[1]}"
        raise InputError(f"{image_path} is {found}; ShapeStacks images are 224x224.")
    mask = np.full(size, IGNORE, np.uint8) if item.facts else None
    notices: list[str] = []
    if len(item.files) == 2:
        labels = decode_map(item.files[1])
        height = re.search(r"-h=(\d+)", image_path.parent.name)
        if height and labels.max() > int(height[1]):
            notices.append("more labels than the stack has shapes")
        mask = resize_mask(framed(labels), size, grid)
    return Sample(resize_image(framed(image), size), mask, tuple(notices))


def decode_map(path: Path) -> UInt8[np.ndarray, "224 224"]:
    """The labels 0..7 of an `iseg` map; R may be off by one.

    Raises:
        InputError: if the file is not a PNG of 224x224 with R = G = B near multiples of 32.
    """
    codes = np.asarray(open_picture(path).convert("RGB"))
    if codes.shape[:2] != STORED:
        raise InputError(f"{path} is {codes.shape[0]}x{codes.shape[1]}; ShapeStacks maps are 224x224.")
    red = codes[..., 0].astype(np.int16)
    labels = (red + 16) // 32
    if (codes != codes[..., :1]).any() or (np.abs(red - 32 * labels) > 1).any():
        raise InputError(f"{path} is not an iseg map: grey values at multiples of 32 expected.")
    return labels.astype(np.uint8)
