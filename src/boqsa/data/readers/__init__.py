"""One file a format: `read(source, ...)` turns a layout into a `Source` of samples at target size.

A reader says in its signature which options it takes; it checks all that can be checked before the first
sample. `tfrecord`, `picture` and `label_picture` read single files, and `source` is what every reader
returns.
"""

from collections.abc import Callable

from boqsa.data.readers import (
    arrays,
    birds,
    clevr_with_masks,
    clevrtex,
    coco_instances,
    drc,
    flowers,
    folder,
    instances,
    multi_dsprites,
    objectsroom,
    ptr,
    shapestacks,
    tetrominoes,
    views,
)
from boqsa.data.readers.source import Item, Sample, Source

READERS: dict[str, Callable[..., Source]] = {
    "birds": birds.read,
    "dogs": drc.read_dogs,
    "cars": drc.read_cars,
    "flowers": flowers.read,
    "folder": folder.read,
    "arrays": arrays.read,
    "objectsroom": objectsroom.read,
    "clevr_with_masks": clevr_with_masks.read,
    "multi_dsprites": multi_dsprites.read,
    "tetrominoes": tetrominoes.read,
    "shapestacks": shapestacks.read,
    "clevrtex_full": clevrtex.read_full,
    "clevrtex_camo": clevrtex.read_camo,
    "clevrtex_outd": clevrtex.read_outd,
    "ptr": ptr.read,
    "clevr567": views.read_clevr567,
    "room_chair": views.read_room_chair,
    "room_diverse": views.read_room_diverse,
    "ycb": instances.read_ycb,
    "scannet": instances.read_scannet,
    "coco": instances.read_coco,
    "coco_instances": coco_instances.read,
}
"""Reader by the name that `boqsa data prepare` takes."""

__all__ = ["READERS", "Item", "Sample", "Source"]
