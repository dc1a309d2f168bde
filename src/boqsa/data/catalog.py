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
    "objectsroom": DatasetEntry(
        name="objectsroom",
        what="rooms of plain colours with up to three solids, rendered; three test sets have none, six, or four to six "
        "of one colour",
        task="multi-object",
        image_size=(64, 64),
        slots="5 with the mixture decoder, 6 with the transformer",
        foreground="entities 4 and above: sky, floor and both halves of the wall are background",
        licence="not stated for the images; Multi-Object Datasets publishes its code under Apache-2.0",
        owners="Kabra et al. 2019 (DeepMind), Multi-Object Datasets, objects_room",
        obtain="objects_room_train.tfrecords (7 GB) and, if wanted, the three objects_room_test_*.tfrecords, in one "
        "folder: SOURCE; or one of the files",
        published="1,000,000 training frames; three test sets of about 1,000 frames, whose exact size is unknown",
        paper="ARI-FG, MSC-FG and MSE at 64x64; the published code cuts test and val from the head of the training "
        "file and leaves the official test sets unused",
        expected={"train": 980_000, "val": 10_000, "test": 10_000},
        splits={"clean": "the published one, which leaks nothing", "published": "the same"},
        highest_label={"*": 3, "empty_room": 0, "six_objects": 6, "identical_color": 6},
    ),
    "clevr_with_masks": DatasetEntry(
        name="clevr_with_masks",
        what="three to ten solids on a grey floor, rendered; with --max-objects 6 known as CLEVR6",
        task="multi-object",
        image_size=(128, 128),
        slots="not in the paper; 11 is usual, 7 for CLEVR6",
        foreground="every entity but the first",
        licence="not stated for the images; Multi-Object Datasets publishes its code under Apache-2.0",
        owners="Kabra et al. 2019 (DeepMind), Multi-Object Datasets, clevr_with_masks",
        obtain="clevr_with_masks_train.tfrecords (10.5 GB), or its folder",
        published="100,000 images of 240x320, without official splits",
        paper="not in the paper; ARI-FG at 128x128 after a central crop of 192 pixels is usual",
        splits={
            "clean": "records 0-9,999 test, 10,000-19,999 val, all others train",
            "published": "as GENESIS has it: the same test and val, train ends at record 70,000",
        },
        expected={"train": 80_000, "val": 10_000, "test": 10_000},
        highest_label={"*": 10},
    ),
    "multi_dsprites": DatasetEntry(
        name="multi_dsprites",
        what="flat hearts, squares and ellipses that overlap; three variants, from black and white to all in colour",
        task="multi-object",
        image_size=(64, 64),
        slots="not in the paper; 5 or 6 is usual",
        foreground="every entity but the first",
        licence="not stated for the images; Multi-Object Datasets publishes its code under Apache-2.0",
        owners="Kabra et al. 2019 (DeepMind), Multi-Object Datasets, multi_dsprites",
        obtain="multi_dsprites_binarized, _colored_on_grayscale or _colored_on_colored.tfrecords (0.5 to 1 GB each), "
        "or their folder and --variant",
        published="1,000,000 images in each variant, without official splits",
        paper="not in the paper; ARI-FG at 64x64 is usual",
        splits={
            "clean": "records 0-9,999 test, 10,000-19,999 val, all others train",
            "published": "as GENESIS has it: the same test and val, train ends at record 60,000",
        },
        expected={"train": 980_000, "val": 10_000, "test": 10_000},
        highest_label={"*": 5},
    ),
    "tetrominoes": DatasetEntry(
        name="tetrominoes",
        what="three flat tetrominoes of six colours on black",
        task="multi-object",
        image_size=(32, 32),
        slots="not in the paper; 4 is usual",
        foreground="every entity but the first",
        licence="not stated for the images; Multi-Object Datasets publishes its code under Apache-2.0",
        owners="Kabra et al. 2019 (DeepMind), Multi-Object Datasets, tetrominoes",
        obtain="tetrominoes_train.tfrecords (300 MB), or its folder",
        published="1,000,000 images of 35x35, without official splits",
        paper="not in the paper; ARI-FG at 32x32 is usual, by a central crop here, by dropping rows in GENESIS",
        splits={
            "clean": "records 0-9,999 test, 10,000-19,999 val, all others train",
            "published": "as GENESIS has it: the same test and val, train ends at record 60,000",
        },
        expected={"train": 980_000, "val": 10_000, "test": 10_000},
        highest_label={"*": 3},
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
        splits={"clean": "the published one, which leaks nothing", "published": "the same"},
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
        obtain="CUB_200_2011.tgz and segmentations.tgz, packed or unpacked, and train_val_test_split.txt of ReDO, all "
        "in one folder: SOURCE; without the split file --split official",
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
        owners="Nilsback & Zisserman 2008 (Visual Geometry Group, Oxford), 102 Category Flower Dataset; the paper's "
        "table calls it Caltech Flowers",
        obtain="102flowers.tgz and 102segmentations.tgz, packed or unpacked, and setid.mat, in one folder: SOURCE",
        published="8,189 images: 1,020 for training, 1,020 for validation, 6,149 for test; the published code "
        "exchanged train and test",
        paper="mIoU and Dice at 128x128, squeezed; trained on the 6,149 images and tested on the 1,020, the reverse of "
        "the official split",
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
    "arrays": DatasetEntry(
        name="arrays",
        what="any images that are arrays already, with or without masks",
        task="multi-object",
        image_size=(64, 64),
        slots="one more than the most objects in an image is usual",
        foreground="labels 1 and above of the masks; 255 where they hold 0 and 255 alone",
        licence="that of the arrays",
        owners="whoever the arrays are from",
        obtain="an .npz or HDF5 file with `image` and perhaps `mask` and `split`, or an .npy of images; HDF5 needs the "
        "extra `hdf5`",
        published="no published size",
        paper="not in the paper",
    ),
    "clevrtex_full": DatasetEntry(
        name="clevrtex_full",
        what="three to ten textured solids on a textured ground, rendered",
        task="multi-object",
        image_size=(128, 128),
        slots="11",
        foreground="every object, in the order of the scene's list",
        licence="not stated for the images; CLEVRTEX publishes its generator under BSD-3-Clause",
        owners="Karazija et al. 2021 (Visual Geometry Group, Oxford), CLEVRTEX",
        obtain="clevrtex_full_part1 to part5, as .tar.gz or unpacked, in one folder: SOURCE",
        published="50,000 images of 240x320 in folders of 1,000",
        paper="ARI-FG and MSE at 128x128 without a crop, whereas the benchmark it is compared with crops 192 pixels",
        expected={"train": 40_000, "val": 5_000, "test": 5_000},
        splits={"clean": "the published one, which leaks nothing", "published": "the same"},
        highest_label={"*": 10},
        archives=("clevrtex_full*",),
    ),
    "clevrtex_camo": DatasetEntry(
        name="clevrtex_camo",
        what="CLEVRTEX with objects of the material of the ground",
        task="multi-object",
        image_size=(128, 128),
        slots="11",
        foreground="every object, in the order of the scene's list",
        licence="not stated for the images; CLEVRTEX publishes its generator under BSD-3-Clause",
        owners="Karazija et al. 2021 (Visual Geometry Group, Oxford), CLEVRTEX",
        obtain="clevrtex_camo.tar.gz, as it is or unpacked",
        published="20,000 images of 240x320 in folders of 1,000; only the 2,000 of test are used in publications",
        paper="test alone, with a model trained on clevrtex_full",
        expected={"train": 16_000, "val": 2_000, "test": 2_000},
        splits={"clean": "the published one, which leaks nothing", "published": "the same"},
        highest_label={"*": 10},
        archives=("clevrtex_camo*",),
    ),
    "clevrtex_outd": DatasetEntry(
        name="clevrtex_outd",
        what="CLEVRTEX with shapes and materials that clevrtex_full does not have: a test set, not to be trained on",
        task="multi-object",
        image_size=(128, 128),
        slots="11",
        foreground="every object, in the order of the scene's list",
        licence="not stated for the images; CLEVRTEX publishes its generator under BSD-3-Clause",
        owners="Karazija et al. 2021 (Visual Geometry Group, Oxford), CLEVRTEX",
        obtain="clevrtex_outd.tar.gz, as it is or unpacked",
        published="10,000 images of 240x320 in folders of 1,000",
        paper="called OOD: all of it is the test set of a model trained on clevrtex_full",
        expected={"test": 10_000},
        splits={"clean": "the published one, which leaks nothing", "published": "the same"},
        highest_label={"*": 10},
        archives=("clevrtex_outd*",),
    ),
    "ptr": DatasetEntry(
        name="ptr",
        what="three to six pieces of PartNet furniture on a floor, rendered",
        task="multi-object",
        image_size=(128, 128),
        slots="not stated; 7 in the published code",
        foreground="every object, in the order of the scene's list",
        licence="not stated for the images; PTR publishes its code under MIT",
        owners="Hong et al. 2021, PTR: part-based conceptual, relational and physical reasoning",
        obtain="images and scene annotations of train and val, unpacked or as archives named like their folders: "
        "SOURCE holds train_images, train_scenes, val_images and val_scenes; test has no masks",
        published="about 70,000 images of 600x800 with the test images; the count of each split is unknown",
        paper="ARI-FG and MSC-FG on val; the published code selects on it too",
        splits={
            "clean": "published val halved by the parity of the image index: even is val, odd is test",
            "published": "all of published val is both val and test",
        },
        highest_label={"*": 6},
        archives=("train_images*", "train_scenes*", "val_images*", "val_scenes*"),
    ),
    "clevr567": DatasetEntry(
        name="clevr567",
        what="CLEVR scenes of five to seven solids, several views each with cameras",
        task="views",
        image_size=(128, 128),
        slots="8",
        foreground="every grey level of the mask but the second darkest, which is the background",
        licence="not stated for the images",
        owners="Yu, Guibas and Wu 2022 (Stanford), uORF",
        obtain="clevr_567_train and clevr_567_test, unpacked or as archives, in one folder: SOURCE",
        published="1,000 scenes to train and 500 to test; the number of views, at least 4, is unknown",
        paper="NV-ARI, ARI, ARI-FG, PSNR, SSIM and LPIPS of a 3D decoder; focal lengths 350/320 of the width, 350/240 "
        "of the height",
        splits={
            "clean": "published folders; 5 % of the training scenes, by a hash of their number, are val",
            "published": "published folders; there is no val",
        },
        archives=("clevr_567_train*", "clevr_567_test*"),
    ),
    "room_chair": DatasetEntry(
        name="room_chair",
        what="rooms with chairs of one shape, several views each with cameras",
        task="views",
        image_size=(128, 128),
        slots="5",
        foreground="every grey level of the mask but the second darkest, which is the background",
        licence="not stated for the images",
        owners="Yu, Guibas and Wu 2022 (Stanford), uORF",
        obtain="room_chair_train and room_chair_test, unpacked or as archives, in one folder: SOURCE",
        published="1,000 scenes to train and 500 to test; the number of views, at least 4, is unknown",
        paper="NV-ARI, ARI, ARI-FG, PSNR, SSIM and LPIPS of a 3D decoder; focal lengths 350/320 of the width, 350/240 "
        "of the height",
        splits={
            "clean": "published folders; 5 % of the training scenes, by a hash of their number, are val",
            "published": "published folders; there is no val",
        },
        archives=("room_chair_train*", "room_chair_test*"),
    ),
    "room_diverse": DatasetEntry(
        name="room_diverse",
        what="rooms with chairs of many shapes, several views each with cameras",
        task="views",
        image_size=(128, 128),
        slots="5",
        foreground="every grey level of the mask but the second darkest, which is the background",
        licence="not stated for the images",
        owners="Yu, Guibas and Wu 2022 (Stanford), uORF",
        obtain="room_diverse_train and room_diverse_test, unpacked or as archives, in one folder: SOURCE",
        published="5,000 scenes to train and 500 to test; the number of views, at least 4, is unknown",
        paper="NV-ARI, ARI, ARI-FG, PSNR, SSIM and LPIPS of a 3D decoder; focal lengths 350/320 of the width, 350/240 "
        "of the height",
        splits={
            "clean": "published folders; 5 % of the training scenes, by a hash of their number, are val",
            "published": "published folders; there is no val",
        },
        archives=("room_diverse_train*", "room_diverse_test*"),
    ),
    "ycb": DatasetEntry(
        name="ycb",
        what="frames of videos of household objects on a table, the background black",
        task="multi-object",
        image_size=(128, 128),
        slots="6",
        foreground="each of the two to six objects that are annotated; the background is removed",
        licence="CC BY-NC-SA 4.0 for the code that makes it; not stated for the images",
        owners="Yang & Yang 2022, YCB subset of their benchmark of unsupervised object segmentation",
        obtain="their folders train and test, each with image and mask, or their TFRecords, in one folder: SOURCE; "
        "or the release YCB-Video, data and image_sets",
        published="two to six objects an image; the number of images is unknown",
        paper="AP, PQ, precision and recall at 128x128 by the transformer; background removed",
        splits={
            "clean": "published train and test; the last 5 % of train are val",
            "published": "published train and test; val is test, so scores are selected on the test set",
        },
        highest_label={"*": 6},
        black_background=True,
    ),
    "scannet": DatasetEntry(
        name="scannet",
        what="frames of scans of rooms, the background black",
        task="multi-object",
        image_size=(128, 128),
        slots="6",
        foreground="two to six annotated instances, each 0.7 % to 20 % of the image; the background is removed",
        licence="CC BY-NC-SA 4.0 for the code that makes it; not stated for the images",
        owners="Yang & Yang 2022, ScanNet subset of their benchmark of unsupervised object segmentation",
        obtain="their folders train and test, each with image and mask, or their TFRecords, in one folder: SOURCE; "
        "or the release ScanNet: scannetv2_train.txt, scannetv2_val.txt, scans with .sens and _2d-instance-filt.zip",
        published="two to six objects an image; the number of images is unknown",
        paper="AP, PQ, precision and recall at 128x128 by the transformer; background removed",
        splits={
            "clean": "published train and test; the last 5 % of train are val",
            "published": "published train and test; val is test, so scores are selected on the test set",
        },
        highest_label={"*": 6},
        black_background=True,
    ),
    "coco": DatasetEntry(
        name="coco",
        what="photographs of everyday scenes, the background black",
        task="multi-object",
        image_size=(128, 128),
        slots="6",
        foreground="two to six annotated instances, each 0.7 % to 20 % of the image; the background is removed",
        licence="CC BY-NC-SA 4.0 for the code that makes it; not stated for the images",
        owners="Yang & Yang 2022, COCO subset of their benchmark of unsupervised object segmentation",
        obtain="their folders train and test, each with image and mask, or their TFRecords, in one folder: SOURCE; "
        "or the release COCO 2017: train2017, val2017 and the instances of annotations, packed or unpacked",
        published="two to six objects an image; the number of images is unknown",
        paper="AP, PQ, precision and recall at 128x128 by the transformer; background removed",
        splits={
            "clean": "published train and test; the last 5 % of train are val",
            "published": "published train and test; val is test, so scores are selected on the test set",
        },
        highest_label={"*": 6},
        black_background=True,
        archives=("train2017*", "val2017*", "annotations_trainval2017*"),
    ),
    "coco_instances": DatasetEntry(
        name="coco_instances",
        what="any images whose objects are outlined in a JSON in COCO's form",
        task="multi-object",
        image_size=(128, 128),
        slots="the most objects of an image, and one more",
        foreground="each annotation that is no crowd",
        licence="that of the images",
        owners="whoever made the images and the JSON",
        obtain="the JSON of the annotations: SOURCE; and the folder of the images: --images DIR",
        published="any number",
        paper="not in the paper",
        splits={
            "hash": "80/10/10 by a hash of the image id, stable when images are added",
            "train": "all images are train",
            "val": "all images are val",
            "test": "all images are test",
        },
    ),
}


def entry(name: str) -> DatasetEntry:
    """The entry of a data set.

    Raises:
        InputError: if there is none of this name; the message names close matches.
    """
    if name not in CATALOG:
        raise InputError(no_such_set(name))
    return CATALOG[name]


def no_such_set(name: str) -> str:
    """Says of a name that the catalog lacks which ones are close to it, and where all are."""
    close = difflib.get_close_matches(name.lower(), CATALOG, n=2)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"there is no data set '{name}'; {hint}`boqsa data list` has them."
