"""The picture of docs/adaptive.md: all slots and needed slots of scenes with few and with many objects.

    python docs/site/adaptive.py RUN docs/pictures/adaptive.png

Which scenes are shown is fixed: the first three of the test split for each number of objects.

Shapes: B scenes, K slots, H W pixels.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from boqsa.inference import load
from boqsa.inference.run import read_recipe
from boqsa.models.adaptive import needed_slots
from boqsa.recipes import Recipe
from boqsa.reports.grid import Column, draw_columns, enlarge, match_to_slots, on_checks, pixels_of, whole_factor
from boqsa.reports.overlay import paint
from boqsa.reports.palette import slot_colours
from boqsa.training.data import open_split

_OBJECTS = ((1, 2), (2, 4), (5, 6))
_SHOWN = 3


def main(run: Path, picture: Path) -> None:
    """Draw the picture of a mixture's run on the built-in scenes, and print the counts that it shows."""
    image, true = first_scenes(read_recipe(run))
    model = load(run)
    with torch.inference_mode():
        output = model(image)
    needed = needed_slots(output, image, model)
    print("objects:", [len(one.unique()) - 1 for one in true], "counted:", needed.objects().tolist())
    assert output.slot_reconstructions is not None
    scale = whole_factor(image.shape[-2:])
    found = output.segmentation().numpy()
    matched = np.stack([match_to_slots(*pair) for pair in zip(true.numpy(), found, strict=True)])
    columns = [
        Column("image", enlarge(pixels_of(image), scale)),
        Column("truth", enlarge(paint(matched), scale)),
        Column("all slots", enlarge(paint(found), scale)),
        Column("needed", enlarge(paint(needed.segmentation().numpy()), scale)),
    ]
    shares = needed.masks[:, :, 0].numpy()  # (B, K, H, W)
    for slot, colour in enumerate(slot_colours(shares.shape[1])):
        own = enlarge(pixels_of(output.slot_reconstructions[:, slot]), scale)
        tiles = on_checks(own, enlarge(shares[:, slot], scale))
        columns.append(Column(f"slot {slot + 1}", tiles, tuple(colour.tolist())))
    draw_columns(columns).save(picture)


def first_scenes(recipe: Recipe) -> tuple[UInt8[Tensor, "B 3 H W"], Int[Tensor, "B H W"]]:
    """Images and true labels, with few objects first."""
    splits = [
        open_split(replace(recipe.data, scene_objects=objects, scene_count=1), recipe.data.test_split)
        for objects in _OBJECTS
    ]
    batches = [split.batch(range(_SHOWN)) for split in splits]
    return torch.cat([batch["image"] for batch in batches]), torch.cat([batch["mask"] for batch in batches])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
