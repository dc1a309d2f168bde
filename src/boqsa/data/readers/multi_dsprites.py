"""Multi-dSprites of the Multi-Object Datasets (spec/datasets.md 7): hearts, squares and ellipses, 64x64.

    SOURCE/multi_dsprites_<variant>.tfrecords        or that file itself

    variant                   image          mask
    binarized                 (64, 64, 1)    (64, 64, 4, 1)
    colored_on_grayscale      (64, 64, 3)    (64, 64, 6, 1)
    colored_on_colored        (64, 64, 3)    (64, 64, 5, 1)

The entities are the last axis of the mask, unlike in the other sets of the family; entity 0 is the background.

Notable choices:
 - The variant is told by the sizes in the first record, so a file may have any name. Only where a folder holds several
   files `variant` must choose.
 - Grey images of `binarized` become RGB.
"""

from itertools import islice
from pathlib import Path

from boqsa.data.readers.records import Layout, find_files, open_set, parse, record_name
from boqsa.data.readers.source import Progress, Source, choose
from boqsa.data.readers.tfrecord import read_records
from boqsa.errors import InputError

PUBLISHED_RECORDS = 1_000_000
USED_BY_GENESIS = 60_000
LAYOUTS = {
    "binarized": Layout(image=(64, 64, 1), entities=4, entities_last=True, visibility=True),
    "colored_on_grayscale": Layout(image=(64, 64, 3), entities=6, entities_last=True, visibility=True),
    "colored_on_colored": Layout(image=(64, 64, 3), entities=5, entities_last=True, visibility=True),
}


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (64, 64),
    split: str = "clean",
    variant: str | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Open Multi-dSprites.

    Args:
        source: The file, or the folder that holds it.
        image_size: Height and width.
        split: `clean` takes all records, `published` the first 60,000.
        variant: `binarized`, `colored_on_grayscale` or `colored_on_colored`; found out if not given.
        limit: At most this many records of each split.
        progress: Called with ("verifying", compressed bytes read, of all).

    Raises:
        InputError: if the file is missing, truncated, damaged or of another data set or variant.
    """
    if variant is not None:
        choose("variant", variant, list(LAYOUTS))
    path = source if source.is_file() else _find(source, variant)
    found = variant or _recognise(path)
    return open_set(
        path,
        LAYOUTS[found],
        f"Multi-dSprites {found}",
        size=image_size,
        published=PUBLISHED_RECORDS,
        split=split,
        used_by_published=USED_BY_GENESIS,
        box=None,
        limit=limit,
        progress=progress,
        options={"variant": found},
    )


def _find(source: Path, variant: str | None) -> Path:
    names = {name: f"multi_dsprites_{name}.tfrecords" for name in ([variant] if variant else LAYOUTS)}
    found = find_files(source, "multi_dsprites", list(names.values()))
    if len(found) > 1:
        there = ", ".join(name for name, file_name in names.items() if file_name in found)
        raise InputError(f"{source} holds several variants: {there}; give one of them as --variant.")
    return next(iter(found.values()))


def _recognise(path: Path) -> str:
    """The variant whose sizes the first record has."""
    for payload in islice(read_records(path), 1):
        features = parse(payload, str(path.parent / record_name(path, 0)), ("image", "mask"))
        sizes = [len(content) if isinstance(content, bytes) else 0 for content in map(features.get, ("image", "mask"))]
        for variant, layout in LAYOUTS.items():
            height, width, channels = layout.image
            if sizes == [height * width * channels, height * width * layout.entities]:
                return variant
        raise InputError(
            f"{path} is no variant of Multi-dSprites: its first record has {sizes[0]} bytes of 'image' and {sizes[1]} "
            "of 'mask'; 4096 and 16384, 12288 and 24576, or 12288 and 20480 expected."
        )
    raise InputError(f"{path} holds no records; copy or download it again.")
