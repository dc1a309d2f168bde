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
    "birds": DatasetEntry(
        name="birds",
        what="photographs of 200 kinds of birds, one bird each",
        task="foreground",
        image_size=(128, 128),
        slots="3",
        foreground="the bird, as most annotators saw it",
        licence="not stated for the images",
        owners="Wah et al. 2011 (Caltech), Caltech-UCSD Birds-200-2011, known as CUB; split file from ReDO's code",
        obtain="CUB_200_2011.tgz and segmentations.tgz, packed or unpacked, and train_val_test_split.txt of ReDO, all in "
        "one folder: SOURCE; without the split file --split official",
        published="11,788 images; ReDO's split has 10,000 for training, 788 for validation, 1,000 for test",
        paper="mIoU and Dice at 128x128, cropped to 1.5 times the ground-truth box (in test too), ReDO's split; the "
        "published code dithered grey masks (mask_resample published)",
        splits={
            "clean": "ReDO's split file",
            "published": "the same, since it leaks nothing",
            "official": "Caltech's train and test (5,994 and 5,794), 5 % of train held out as val",
        },
        expected={"train": 10_000, "val": 788, "test": 1_000},
        highest_label={"*": 1},
        archives=("CUB_200_2011*", "segmentations*"),
    ),
    "dogs": DatasetEntry(
        name="dogs",
        what="photographs of dogs, one each, preprocessed by the authors of DRC",
        task="foreground",
        image_size=(128, 128),
        slots="2",
        foreground="the dog as a Mask R-CNN found it: pseudo ground truth, not drawn by people",
        licence="not stated for the images, which are a part of ImageNet",
        owners="Khosla et al. 2011 (Stanford), Stanford Dogs; masks and selection by Yu et al. 2021, DRC",
        obtain="dogs.zip of DRC, packed or unpacked, in a folder: SOURCE; where it cannot be had, any folder of images "
        "and masks by the data set `folder`",
        published="a selection whose size is not known, from 12,000 training and 8,580 test images",
        paper="mIoU and Dice at 128x128, no crop; red and blue swapped (channel_order bgr), validation on the training "
        "images, so the best checkpoint was selected on training masks",
        splits={
            "clean": "DRC's lists, 5 % of train held out as val",
            "published": "DRC's lists, train used again as val: scores are selected on training masks",
        },
        highest_label={"*": 1},
        archives=("dogs*",),
    ),
    "cars": DatasetEntry(
        name="cars",
        what="photographs of cars, one each, preprocessed by the authors of DRC",
        task="foreground",
        image_size=(128, 128),
        slots="2",
        foreground="the car as a Mask R-CNN found it: pseudo ground truth, not drawn by people",
        licence="not stated for the images",
        owners="Krause et al. 2013 (Stanford), Stanford Cars; masks and selection by Yu et al. 2021, DRC",
        obtain="cars.tar of DRC, packed or unpacked, in a folder: SOURCE; where it cannot be had, any folder of images "
        "and masks by the data set `folder`",
        published="a selection whose size is not known",
        paper="mIoU and Dice at 128x128, no crop; red and blue swapped (channel_order bgr), validation on the training "
        "images, so the best checkpoint was selected on training masks",
        splits={
            "clean": "DRC's lists, 5 % of train held out as val",
            "published": "DRC's lists, train used again as val: scores are selected on training masks",
        },
        highest_label={"*": 1},
        archives=("cars*",),
    ),
    "flowers": DatasetEntry(
        name="flowers",
        what="photographs of 102 kinds of flowers",
        task="foreground",
        image_size=(128, 128),
        slots="2",
        foreground="the flower, as its automatic segmentation has it",
        licence="not stated for the images",
        owners="Nilsback & Zisserman 2008 (Visual Geometry Group, Oxford), 102 Category Flower Dataset; the paper's table "
        "calls it Caltech Flowers",
        obtain="102flowers.tgz and 102segmentations.tgz, packed or unpacked, and setid.mat, in one folder: SOURCE",
        published="8,189 images: 1,020 for training, 1,020 for validation, 6,149 for test; the published code exchanged "
        "train and test",
        paper="mIoU and Dice at 128x128, squeezed; trained on the 6,149 images and tested on the 1,020, the reverse of the "
        "official split",
        splits={
            "clean": "setid.mat as Oxford means it",
            "published": "train and test exchanged, and the published rule for masks (mask_rule)",
            "official": "another name of clean",
        },
        expected={"train": 1_020, "val": 1_020, "test": 6_149},
        highest_label={"*": 1},
        archives=("102flowers*", "102segmentations*"),
    ),
    "folder": DatasetEntry(
        name="folder",
        what="any images, with or without masks",
        task="multi-object",
        image_size=(128, 128),
        slots="one more than the most objects in an image is usual",
        foreground="labels 1 and above of the masks; white in black and white masks",
        licence="that of the files",
        owners="whoever the files are from",
        obtain="a folder of images: SOURCE; splits are its folders train, val and test, if it has them; masks are in a "
        "folder `masks` beside the images, or named by --masks",
        published="no published size",
        paper="not in the paper",
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
