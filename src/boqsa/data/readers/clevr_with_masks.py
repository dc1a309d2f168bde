"""CLEVR with masks, of the Multi-Object Datasets (spec/datasets.md 6): three to ten solids on a grey floor, 240x320.

    SOURCE/clevr_with_masks_train.tfrecords        or that file itself

A record has `image` (240, 320, 3), `mask` (11, 240, 320, 1) with the background first, `visibility` (11), and factors
that are not packed: their codes are not published.

Notable choices:
 - `max_objects=6` makes what is called CLEVR6. `visibility` counts the background too, and a well-known configuration
   forgot it, so that its CLEVR6 has five objects at most; here objects alone are counted.
 - Two crops of 192x192 are in use; they are five rows apart.
"""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from boqsa.data.readers.records import Layout, central, find_files, open_set
from boqsa.data.readers.source import Progress, Source, choose
from boqsa.data.readers.tfrecord import parse_example
from boqsa.errors import InputError

PUBLISHED_RECORDS = 100_000
USED_BY_GENESIS = 70_000
FILE = "clevr_with_masks_train.tfrecords"
LAYOUT = Layout(image=(240, 320, 3), entities=11, visibility=True)
CROPS = {"192": central(LAYOUT, 192), "iodine": (29, 64, 192, 192), "none": None}
MOST_OBJECTS = 10


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    crop: Literal["192", "iodine", "none"] = "192",
    split: Literal["clean", "published"] = "clean",
    max_objects: int | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Open CLEVR with masks.

    Args:
        source: The file, or the folder that holds it.
        image_size: Height and width.
        crop: The central 192 pixels as GENESIS and CLEVRTEX have it, the square five rows below as IODINE and DRC
            have it, or none, which squeezes the whole image.
        split: `clean` takes all records, `published` the first 70,000.
        max_objects: Leave out images with more objects; 6 makes CLEVR6.
        limit: At most this many records of each split.
        progress: Called with ("verifying", compressed bytes read, of all).

    Raises:
        InputError: if the file is missing, truncated, damaged or of another data set.
    """
    choose("crop", crop, list(CROPS))
    if max_objects is not None and (type(max_objects) is not int or not 1 <= max_objects <= MOST_OBJECTS):
        raise InputError(f"max_objects is {max_objects!r}; a whole number from 1 to {MOST_OBJECTS} expected.")
    path = source if source.is_file() else find_files(source, "clevr_with_masks", [FILE])[FILE]
    return open_set(
        path,
        LAYOUT,
        "CLEVR with masks",
        size=image_size,
        published=PUBLISHED_RECORDS,
        split=split,
        used_by_published=USED_BY_GENESIS,
        box=CROPS[crop],
        limit=limit,
        keep=None if max_objects is None else partial(_has_at_most, max_objects, path),
        progress=progress,
        options={"crop": crop, "max_objects": max_objects},
    )


def _has_at_most(most: int, path: Path, payload: bytes) -> bool:
    try:
        visibility = parse_example(payload, ("visibility",)).get("visibility")
    except ValueError:
        return True  # reading it will say what is wrong with it
    shape = getattr(visibility, "shape", None)
    if not isinstance(visibility, np.ndarray) or shape != (LAYOUT.entities,) or not np.isfinite(visibility).all():
        raise InputError(f"{path}: a record has no 'visibility' of {LAYOUT.entities} numbers, which max_objects needs.")
    return float(visibility.sum()) - 1 <= most
