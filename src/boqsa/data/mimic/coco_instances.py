"""Any data set in COCO's JSON: images that are not square, and every way to write a mask."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from boqsa.data.mimic.content import Content
from boqsa.data.readers.source import split_by_hash
from boqsa.data.run_lengths import encode_run_lengths

_SIZE = (96, 128)


def write_coco_instances(target: Path, content: Content) -> Path:
    """`annotations.json` and `images/*.png`; the first object of an image has polygons, the others run lengths.

    Every third image has a crowd region, in its upper left corner and below the objects.
    """
    (target / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []

    def annotate(mask: Bool[np.ndarray, "h w"], segmentation: Any, crowd: int = 0) -> None:
        rows, columns = np.nonzero(mask)
        left, top = int(columns.min()), int(rows.min())
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": images[-1]["id"],
                "category_id": 1,
                "iscrowd": crowd,
                "area": int(mask.sum()),
                "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
                "segmentation": segmentation,
            }
        )

    ids = count(1)
    for index in range(content.count):
        wanted = {4: "val", 5: "test"}.get(index % 6, "train")  # the reader deals ids out by their hash
        identity = next(i for i in ids if split_by_hash(str(i)) == wanted)
        image, mask = content.scene(index, _SIZE)
        name = f"{index:012d}.png"
        Image.fromarray(image).save(target / "images" / name)
        images.append({"id": identity, "file_name": name, "height": _SIZE[0], "width": _SIZE[1]})
        if index % 3 == 0:
            crowd = np.zeros(_SIZE, bool)
            crowd[3:12, 20:40] = True
            annotate(crowd, {"size": list(_SIZE), "counts": encode_run_lengths(crowd, compressed=False)}, crowd=1)
        for label in np.unique(mask[mask > 0]):
            own = mask == label
            if label == 1:
                annotate(own, _bars(own))
            else:
                annotate(own, {"size": list(_SIZE), "counts": encode_run_lengths(own)})
    content_of_file = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object", "supercategory": "object"}],
    }
    path = target / "annotations.json"
    path.write_text(json.dumps(content_of_file), encoding="utf-8")
    return path


def _bars(mask: Bool[np.ndarray, "h w"]) -> list[list[int]]:
    """A polygon of four corners around every row of pixels."""
    polygons = []
    for row, pixels in enumerate(mask):
        borders = np.flatnonzero(np.diff(pixels.astype(np.int8), prepend=0, append=0)).tolist()
        for left, right in zip(borders[::2], borders[1::2], strict=True):
            polygons.append([left, row, right, row, right, row + 1, left, row + 1])
    return polygons
