"""What each data set is: a dictionary that a reader can see (facts from spec/datasets.md).

An entry says how a data set is got and read, what its masks mean and which labels can occur. A planned entry
has no reader yet; `prepare` says so.
"""

import difflib
from dataclasses import dataclass, field
from typing import Literal

from boqsa.data.manifest import Task
from boqsa.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """One data set."""

    name: str
    task: Task
    image_size: int
    """Side in pixels that the paper uses; what `prepare` makes if nothing else is asked."""
    foreground: str
    """What counts as an object."""
    licence: str
    published: str
    """How large the published data set is, in words."""
    obtain: str
    """Where the files come from and what `prepare` is to be given."""
    status: Literal["ready", "built in", "planned"]
    highest_label: dict[str, int] = field(default_factory=dict)
    """The highest label that may occur in a split; `*` stands for the splits that are not named."""


CATALOG: dict[str, DatasetEntry] = {
    "scenes": DatasetEntry(
        name="scenes",
        task="multi-object",
        image_size=64,
        foreground="every rendered object",
        licence="Apache-2.0, rendered by this package",
        published="any number; 1,000 test scenes and 512 val scenes are fixed",
        obtain="nothing: rendered at first use and kept in a cache",
        status="built in",
    ),
    "objectsroom": DatasetEntry(
        name="objectsroom",
        task="multi-object",
        image_size=64,
        foreground="entities 4 and above (sky, floor and both wall halves are background)",
        licence="not stated for the images; Multi-Object Datasets publish their code under Apache-2.0",
        published="980,000 / 10,000 / 10,000 frames; three official test files of about 1,000",
        obtain="Multi-Object Datasets, objects_room: objects_room_train.tfrecords (7 GB), or its folder",
        status="ready",
        highest_label={"*": 3, "empty_room": 0, "six_objects": 6, "identical_color": 6},
    ),
    "shapestacks": DatasetEntry(
        name="shapestacks",
        task="multi-object",
        image_size=128,
        foreground="each block of the stack, numbered from the bottom",
        licence="not stated for the images; ShapeStacks publishes its code under GPL-3.0",
        published="311,200 images of 19,450 scenarios, by split files",
        obtain="Groth et al. 2018: unpack -rgb, -iseg and -meta into one folder (recordings, splits)",
        status="ready",
        highest_label={"*": 6},
    ),
    "folder": DatasetEntry(
        name="folder",
        task="multi-object",
        image_size=128,
        foreground="labels 1 and above of the masks",
        licence="that of the files",
        published="no published size",
        obtain="any folder of images; masks in a sibling folder 'masks' or named by --masks",
        status="ready",
    ),
    "arrays": DatasetEntry(
        name="arrays",
        task="multi-object",
        image_size=64,
        foreground="labels 1 and above of the masks",
        licence="that of the arrays",
        published="no published size",
        obtain="an .npz with 'image' and perhaps 'mask' and 'split', or an .npy of images",
        status="ready",
    ),
    "clevrtex": DatasetEntry(
        name="clevrtex",
        task="multi-object",
        image_size=128,
        foreground="each textured object",
        licence="not stated for the images; the generator is BSD-3-Clause",
        published="full 40,000 / 5,000 / 5,000; camo test 2,000; outd 10,000",
        obtain="Karazija et al. 2021: clevrtex_full, clevrtex_camo, clevrtex_outd",
        status="planned",
        highest_label={"*": 10},
    ),
    "ptr": DatasetEntry(
        name="ptr",
        task="multi-object",
        image_size=128,
        foreground="each piece of furniture",
        licence="not stated for the images; PTR publishes its code under MIT",
        published="about 70,000 images",
        obtain="Hong et al. 2021: images and scene annotations",
        status="planned",
        highest_label={"*": 6},
    ),
    "birds": DatasetEntry(
        name="birds",
        task="foreground",
        image_size=128,
        foreground="the bird",
        licence="not stated",
        published="10,000 / 788 / 1,000",
        obtain="CUB-200-2011 images and segmentations",
        status="planned",
        highest_label={"*": 1},
    ),
    "dogs": DatasetEntry(
        name="dogs",
        task="foreground",
        image_size=128,
        foreground="the dog, as a supervised network marked it: pseudo ground truth",
        licence="not stated",
        published="counts not stated",
        obtain="Stanford Dogs in the arrangement of DRC (Yu et al. 2021)",
        status="planned",
        highest_label={"*": 1},
    ),
    "cars": DatasetEntry(
        name="cars",
        task="foreground",
        image_size=128,
        foreground="the car, as a supervised network marked it: pseudo ground truth",
        licence="not stated",
        published="counts not stated",
        obtain="Stanford Cars in the arrangement of DRC (Yu et al. 2021)",
        status="planned",
        highest_label={"*": 1},
    ),
    "flowers": DatasetEntry(
        name="flowers",
        task="foreground",
        image_size=128,
        foreground="the flower",
        licence="not stated",
        published="6,149 / 1,020 / 1,020",
        obtain="Oxford Flowers 102: images, segmentations, setid.mat",
        status="planned",
        highest_label={"*": 1},
    ),
}


def entry(name: str) -> DatasetEntry:
    """The entry of a data set.

    Raises:
        InputError: if there is none of this name; the message names the closest, or all.
    """
    if name in CATALOG:
        return CATALOG[name]
    close = difflib.get_close_matches(name.lower(), CATALOG, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(CATALOG)}."
    raise InputError(f"unknown data set '{name}'; {hint}")
