"""What each data set is: a dictionary that a reader can see (facts from spec/datasets.md).

An entry says how a data set is got and read, what its masks mean, which labels can occur, and what the paper did.
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
    what: str
    """What the pictures show, in a sentence."""
    task: Task
    image_size: tuple[int, int]
    """Height and width that the paper uses; what `prepare` makes if nothing else is asked."""
    slots: str
    """Slots of the paper, in words; or what is usual."""
    foreground: str
    """What counts as an object."""
    licence: str
    owners: str
    """Who publishes it, and under which name to look for it, in words that outlive a link."""
    obtain: str
    """Which of their files are needed, and what `prepare` is to be given."""
    published: str
    """How large the published data set is, in words."""
    paper: str
    """What the paper, or the code published with it, did with the set."""
    status: Literal["ready", "built in"] = "ready"
    splits: dict[str, str] = field(default_factory=dict)
    """What `--split` can be, and what each makes, as a sentence; the first one is the default."""
    expected: dict[str, int] = field(default_factory=dict)
    """Images in each split of the whole set, by the default `--split`, where they are known."""
    highest_label: dict[str, int] = field(default_factory=dict)
    """The highest label that may occur in a split; `*` stands for the splits that are not named."""
    black_background: bool = False
    """Whether the published pictures are black wherever there is no object."""
    archives: tuple[str, ...] = ()
    """Names of the archives as downloaded, with `*`: those that are found in SOURCE are unpacked."""


CATALOG: dict[str, DatasetEntry] = {
    "scenes": DatasetEntry(
        name="scenes",
        what="rooms with two to four solid objects, rendered with shading and cast shadows",
        task="multi-object",
        image_size=(64, 64),
        slots="5",
        foreground="every rendered object",
        licence="Apache-2.0, rendered by this package",
        owners="this package",
        obtain="nothing: rendered at first use and kept in a cache",
        published="any number; 1,000 test scenes and 512 val scenes are fixed",
        paper="not in the paper",
        status="built in",
    ),
    "shapestacks": DatasetEntry(
        name="shapestacks",
        what="stacks of two to six blocks, cylinders and spheres in a textured room, rendered",
        task="multi-object",
        image_size=(128, 128),
        slots="8 with the mixture decoder, 12 with the transformer",
        foreground="each block of the stack, numbered from the bottom",
        licence="not stated for the images; ShapeStacks publishes its code under GPL-3.0",
        owners="Groth et al. 2018 (Oxford Robotics Institute), ShapeStacks",
        obtain="shapestacks-rgb, -iseg and -meta, as .tar.gz or unpacked, in one folder: SOURCE",
        published="311,200 images of 19,450 scenarios, by split files",
        paper="ARI-FG, MSC-FG and MSE at 128x128 after a central crop of 196 pixels, split files `default`",
        highest_label={"*": 6},
        archives=("shapestacks-rgb*", "shapestacks-iseg*", "shapestacks-meta*"),
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
