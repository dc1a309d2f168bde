"""What the page shows of a picture, and the files that can be downloaded. Nothing here knows of the page.

A browser is shown at most `SHOWN_SIDE` pixels; what is downloaded has the size of the picture.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image

from boqsa.atomic import atomic_file
from boqsa.errors import InputError
from boqsa.inference.decode import decode_slots, with_slot_of, without_slots
from boqsa.inference.picture import read_picture
from boqsa.inference.segment import IGNORE, Segmentation, Segmenter
from boqsa.models.adaptive import has_adaptive_slots
from boqsa.models.published import Model
from boqsa.reports import save_label_png, save_png
from boqsa.reports.grid import enlarge, on_checks

SHOWN_SIDE = 768
"""Longer side of a picture as it is shown, in pixels; larger ones are made smaller."""

_PAINTED_SIDE = 256
"""Least side of what slots paint, as it is shown, in pixels."""


class Choices(NamedTuple):
    """What the sliders and boxes of the page say."""

    iterations: int
    certainty: float
    """Pixels that no slot has a larger share of stay without one; 0 to 1."""
    adaptive: bool
    """Whether slots that the picture does not need are left out; not for radiance models."""


class Looked(NamedTuple):
    """A picture that was looked at."""

    file: Path
    """The picture itself."""
    size: tuple[int, int]
    """Height and width of the picture itself, in pixels."""
    found: Segmentation
    """Of the picture as it is shown."""


def look(model: Model, file: str | Path, choices: Choices) -> Looked:
    """Discover the objects of a picture.

    Raises:
        InputError: if the file is not a whole picture.
    """
    picture = read_picture(file)
    found = _segmenter(model, choices).predict(_at_most(picture, SHOWN_SIDE))
    return Looked(Path(file), picture.shape[:2], found)


def title_of(slot: int, names: Mapping[int, str]) -> str:
    """What a slot is called: its name, if it was given one."""
    return names.get(slot, f"slot {slot}")


def annotations(
    looked: Looked, shown: Collection[int], certainty: float, names: Mapping[int, str]
) -> tuple[UInt8[np.ndarray, "H W 3"], dict[int, tuple[Bool[np.ndarray, "H W"], str]]]:
    """The picture, and by slot the region and the title of each that is shown and owns a pixel."""
    labels = _sure_labels(looked.found, certainty)
    owners = sorted(set(shown) & set(np.unique(labels).tolist()))
    return looked.found.picture, {slot: (labels == slot, title_of(slot, names)) for slot in owners}


def table_rows(looked: Looked, names: Mapping[int, str]) -> list[list[str]]:
    """Slot, share of the picture in percent, confidence, and box in pixels of the picture itself."""
    found = looked.found
    height, width = looked.size
    shown_height, shown_width = found.labels.shape
    boxes = found.xyxy * np.tile([width / shown_width, height / shown_height], 2)  # (K, 4)
    return [
        [
            title_of(slot, names),
            f"{share:.1%}",
            f"{sure:.2f}",
            " ".join(f"{edge:.0f}" for edge in box) if share else "-",
        ]
        for slot, (share, sure, box) in enumerate(zip(found.share, found.confidence, boxes, strict=True))
    ]


def cut_outs(looked: Looked, names: Mapping[int, str]) -> list[tuple[UInt8[np.ndarray, "H W 3"], str]]:
    """The pixels of each slot on pale checks, with its title and share; slots that own none are left out."""
    found = looked.found
    shares = found.share
    return [
        (_laid_on_checks(found.picture, found.labels == slot), f"{title_of(slot, names)} · {shares[slot]:.1%}")
        for slot in range(len(shares))
        if shares[slot]
    ]


def paintings(model: Model, looked: Looked, names: Mapping[int, str]) -> list[tuple[UInt8[np.ndarray, "h w 3"], str]]:
    """What each slot would paint if it were alone, on the whole canvas; first what they paint together."""
    slots = torch.from_numpy(looked.found.slots)  # (K, D)
    together = decode_slots(model, slots[None])
    alone = decode_slots(model, slots[:, None])  # one slot in a picture, K pictures
    titles = ["all slots together", *(f"{title_of(slot, names)} alone" for slot in range(len(slots)))]
    return list(zip(_large(np.concatenate([together, alone])), titles, strict=True))


def edited(
    model: Model, looked: Looked, removed: Collection[int], other: Looked | None, swapped: tuple[int, int] | None
) -> list[tuple[UInt8[np.ndarray, "h w 3"], str]]:
    """What the decoder makes of edited slots.

    Args:
        model: A mixture or transformer model.
        looked: The picture whose slots are edited.
        removed: Slots of it that are taken away.
        other: Another picture, or none.
        swapped: A slot of the first and one of the other, which change places.

    Returns:
        The picture as the slots paint it before and after, and where there is another one, that too; with titles.

    Raises:
        InputError: if a slot does not exist, or none is left.
    """
    slots = torch.from_numpy(looked.found.slots)
    pictures = [(slots, "before"), (slots, "edited")]
    if other is not None:
        theirs = torch.from_numpy(other.found.slots)
        pictures += [(theirs, "the other, before"), (theirs, "the other, edited")]
        if swapped is not None:
            mine, their = swapped
            pictures[1] = (with_slot_of(slots, mine, theirs, their), "edited")
            pictures[3] = (with_slot_of(theirs, their, slots, mine), "the other, edited")
    pictures[1] = (without_slots(pictures[1][0], removed), "edited")
    return [(_large(decode_slots(model, some[None]))[0], title) for some, title in pictures]


def settling(model: Model, looked: Looked, choices: Choices, most: int) -> list[tuple[UInt8[np.ndarray, "H W 3"], str]]:
    """The overlay after 1 to `most` iterations."""
    pictures = []
    for iterations in range(1, most + 1):
        found = _segmenter(model, choices._replace(iterations=iterations)).predict(looked.found.picture)
        pictures.append((found.overlay(), f"{iterations} iteration{'s' * (iterations > 1)}"))
    return pictures


def write_downloads(model: Model, looked: Looked, choices: Choices, folder: Path) -> tuple[Path, Path, Path]:
    """Label map, overlay and arrays of the picture at its full size; pixels below the certainty that was chosen
    belong to no slot in them (label 255).

    Raises:
        InputError: if the picture is gone, or the folder cannot be written to.
    """
    found = _segmenter(model, choices).predict(looked.file)
    found = found._replace(labels=_sure_labels(found, choices.certainty))
    name = looked.file.stem[:80]
    label_map, picture, arrays = (folder / f"{name}{end}" for end in ("_labels.png", "_overlay.png", ".npz"))
    save_label_png(label_map, found.labels)
    save_png(picture, found.overlay(), quickly=True)
    with atomic_file(arrays) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, slots=found.slots, masks=found.masks, labels=found.labels)
    return label_map, picture, arrays


def _segmenter(model: Model, choices: Choices) -> Segmenter:
    adaptive = choices.adaptive and has_adaptive_slots(model)
    return Segmenter(model, iterations=choices.iterations, adaptive=adaptive)


def _sure_labels(found: Segmentation, certainty: float) -> UInt8[np.ndarray, "H W"]:
    """The labels, with 255 where no slot is as sure as that."""
    if not 0 <= certainty <= 1:
        raise InputError(f"the certainty is {certainty}; it must be 0 to 1.")
    if certainty == 0:
        return found.labels
    labels: UInt8[np.ndarray, "H W"] = found.labels.copy()
    labels[found.certainty() < certainty] = IGNORE
    return labels


def _at_most(picture: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """The picture with its longer side at most so long, and no side below a pixel."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def _laid_on_checks(picture: UInt8[np.ndarray, "H W 3"], region: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    laid: UInt8[np.ndarray, "H W 3"] = on_checks(picture[None], region[None].astype(np.float32))[0]
    return laid


def _large(pictures: UInt8[np.ndarray, "B h w 3"]) -> UInt8[np.ndarray, "B _ _ 3"]:
    """Enlarged by a whole number, so that pixels stay what they are."""
    return enlarge(pictures, max(1, -(-_PAINTED_SIDE // pictures.shape[1])))
