"""ShapeStacks in its original folders (spec/datasets.md 3).

    SOURCE/recordings/<scenario>/rgb-...-cam_<k>-mono-0.png                       image
    SOURCE/recordings/<scenario>/iseg-w=0-f=0-l=0-c=original-cam_<k>-mono-0.map   mask, or under SOURCE/iseg
    SOURCE/splits/<split>/{train,eval,test}.txt         one scenario a line

A `.map` is a PNG whose red, green and blue are 32 times the label; label k is the k-th shape from the bottom.
One mask serves all textures of a scenario and camera. Images and masks are cropped to their central 196
pixels.

Notable choices:
 - `mask_resample="pil-nearest"` samples masks on the images' grid; `"published"` is the original half-pixel
   shift.
 - An image without a map gets a mask that is ignored everywhere, and the manifest counts it; a split in which
   no image has a map has no masks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from boqsa.data.packed import IGNORE
from boqsa.data.readers.picture import open_picture, read_rgb
from boqsa.data.readers.source import Sample, Source, some_of
from boqsa.data.resample import MaskResample, centre_crop, resize_image, resize_mask
from boqsa.errors import InputError

PUBLISHED_SCENARIOS = 19_450
STORED = (224, 224)
CROP = (196, 196)
SPLIT_FILES = {"train": "train.txt", "val": "eval.txt", "test": "test.txt"}
_GRIDS: dict[str, MaskResample] = {"pil-nearest": "pil-nearest", "published": "torch-nearest"}


@dataclass(frozen=True)
class _View:
    image: Path
    map: Path | None
    split: str
    needs_mask: bool


def read(
    source: str | Path,
    *,
    image_size: int | None = None,
    mask_resample: Literal["pil-nearest", "published"] = "pil-nearest",
    split: str = "default",
    limit: int | None = None,
) -> Source:
    """Open ShapeStacks: `source` is the folder that holds `recordings` and `splits`.

    Args:
        source: the folder.
        image_size: side in pixels, 128 if not given.
        mask_resample: the grid masks are sampled on.
        split: which of the published split folders: `default`, `blocks_all`, `ccs_all`.
        limit: at most this many images of each split, the first ones.

    Raises:
        InputError: if folders, split files or all recordings are missing, or a file is not what it should be.
    """
    root = Path(source)
    if mask_resample not in _GRIDS:
        raise InputError(f"mask_resample '{mask_resample}' is unknown; choose one of {', '.join(_GRIDS)}.")
    side = image_size or 128
    scenarios = _read_splits(root, split)
    notices: list[str] = []
    views, absent = _find_views(root, scenarios, limit)
    if absent:
        notices.append(f"{len(absent)} scenarios of the split files have no recordings: {some_of(absent)}")
    if unmapped := [f"{view.image.parent.name}/{view.image.name}" for view in views if view.map is None]:
        notices.append(f"{len(unmapped)} images have no iseg map; scores ignore them: {some_of(unmapped)}")
    found = sum(len(names) for names in scenarios.values()) - len(absent)
    return Source(
        samples=_samples(views, (side, side), _GRIDS[mask_resample], notices),
        total=len(views),
        image_size=(side, side),
        split_rule=f"published split files, splits/{split}; eval is val",
        partial=found < PUBLISHED_SCENARIOS or limit is not None,
        options={"crop": CROP[0], "mask_resample": mask_resample, "split": split},
        notices=notices,
    )


def _read_splits(root: Path, split: str) -> dict[str, list[str]]:
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the one that holds 'recordings' and 'splits'.")
    for part in ("recordings", "splits"):
        if not (root / part).is_dir():
            raise InputError(f"{root} has no folder '{part}'; ShapeStacks has 'recordings' and 'splits'.")
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
    return scenarios


def _find_views(root: Path, scenarios: dict[str, list[str]], limit: int | None) -> tuple[list[_View], list[str]]:
    views: list[_View] = []
    absent: list[str] = []
    for split, names in scenarios.items():
        of_split: list[tuple[Path, Path | None]] = []
        for name in names:
            folder = root / "recordings" / name
            images = sorted(folder.glob("rgb-*-mono-0.png"), key=lambda path: path.name)
            if not images:
                absent.append(name)
            of_split += [(image, _find_map(root, image)) for image in images]
            if limit is not None and len(of_split) >= limit:
                break
        of_split = of_split[:limit]
        mapped = any(map_path for _, map_path in of_split)
        views += [_View(image, map_path, split, needs_mask=mapped) for image, map_path in of_split]
    if not views:
        raise InputError(f"{root / 'recordings'} has none of the scenarios that the split files name.")
    return views, absent


def _find_map(root: Path, image: Path) -> Path | None:
    camera = re.search(r"-(cam_\d+)-mono-0\.png$", image.name)
    if camera is None:
        raise InputError(f"{image} has no camera in its name; rgb-...-cam_<k>-mono-0.png expected.")
    name = f"iseg-w=0-f=0-l=0-c=original-{camera[1]}-mono-0.map"
    for folder in (image.parent, root / "iseg" / image.parent.name):
        if (folder / name).is_file():
            return folder / name
    return None


def _samples(views: list[_View], size: tuple[int, int], grid: MaskResample, notices: list[str]) -> Iterator[Sample]:
    too_high: list[str] = []
    for view in views:
        name = f"{view.image.parent.name}/{view.image.name}"
        image = read_rgb(view.image, notice=lambda _: None)
        if image.shape[:2] != STORED:
            found = f"{image.shape[0]}x{image.shape[1]}"
            raise InputError(f"{view.image} is {found}; ShapeStacks images are 224x224.")
        mask = np.full(size, IGNORE, np.uint8) if view.needs_mask else None
        if view.map is not None:
            labels = decode_map(view.map)
            height = re.search(r"-h=(\d+)", view.image.parent.name)
            if height and labels.max() > int(height[1]):
                too_high.append(name)
            mask = resize_mask(centre_crop(labels, CROP), size, grid)
        yield Sample(resize_image(centre_crop(image, CROP), size), mask, view.split, name)
    if too_high:
        notices.append(f"{len(too_high)} masks have more labels than the stack has shapes: {some_of(too_high)}")


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
