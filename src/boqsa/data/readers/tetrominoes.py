"""Tetrominoes of the Multi-Object Datasets (spec/datasets.md 8): three shapes of four squares, 35x35.

    SOURCE/tetrominoes_train.tfrecords       or that file itself

A record has `image` (35, 35, 3), `mask` (4, 35, 35, 1) with the background first, and factors that are not packed.

Notable choices:
 - The usual 32x32 are the central crop. 35 - 32 is odd: it starts at pixel 1 and leaves two at the far sides.
 - `visibility` is not trusted; readers elsewhere override it.
"""

from pathlib import Path
from typing import Literal

from boqsa.data.readers.records import Layout, central, find_files, open_set
from boqsa.data.readers.source import Progress, Source, choose

PUBLISHED_RECORDS = 1_000_000
USED_BY_GENESIS = 60_000
FILE = "tetrominoes_train.tfrecords"
LAYOUT = Layout(image=(35, 35, 3), entities=4)
CROP = 32


def read(
    source: Path,
    *,
    image_size: tuple[int, int] | None = None,
    crop: Literal["32", "none"] = "32",
    split: Literal["clean", "published"] = "clean",
    limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Open Tetrominoes.

    Args:
        source: The file, or the folder that holds it.
        image_size: Height and width; that of the crop if not given.
        crop: The usual central 32 pixels, or all 35.
        split: `clean` takes all records, `published` the first 60,000.
        limit: At most this many records of each split.
        progress: Called with ("verifying", compressed bytes read, of all).

    Raises:
        InputError: if the file is missing, truncated, damaged or of another data set.
    """
    choose("crop", crop, ("32", "none"))
    path = source if source.is_file() else find_files(source, "tetrominoes", [FILE])[FILE]
    box = central(LAYOUT, CROP) if crop == "32" else None
    return open_set(
        path,
        LAYOUT,
        "Tetrominoes",
        size=image_size or (LAYOUT.image[:2] if box is None else box[2:]),
        published=PUBLISHED_RECORDS,
        split=split,
        used_by_published=USED_BY_GENESIS,
        box=box,
        limit=limit,
        progress=progress,
        options={"crop": crop},
    )
