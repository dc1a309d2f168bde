"""PTR: images, and a JSON with run lengths for each."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from boqsa.data.mimic.content import Content
from boqsa.data.run_lengths import encode_run_lengths

_SIZE = (600, 800)
_COARSER = 4
"""Scenes are drawn smaller and enlarged, which takes a twentieth of the time."""


def write_ptr(target: Path, content: Content) -> Path:
    """A third of the scenes, at least four, are val, which the reader halves."""
    count = max(6, content.count)
    of_val = max(4, count // 3)
    for index in range(count):
        split = "val" if index < of_val else "train"
        for kind in ("images", "scenes"):
            (target / f"{split}_{kind}").mkdir(parents=True, exist_ok=True)
        image, mask = content.scene(index, (_SIZE[0] // _COARSER, _SIZE[1] // _COARSER))
        image, mask = (np.repeat(np.repeat(part, _COARSER, 0), _COARSER, 1) for part in (image, mask))
        name = f"PTR_{split}_{index:06d}"
        Image.fromarray(image).save(target / f"{split}_images" / f"{name}.png", compress_level=1)
        runs = [encode_run_lengths(mask == label, compressed=False) for label in range(1, int(mask.max()) + 1)]
        scene = {
            "image_filename": f"{name}.png",
            "image_index": index,
            "split": split,
            "objects": [{"category": "chair", "obj_mask": {"size": _SIZE, "counts": counts}} for counts in runs],
        }
        (target / f"{split}_scenes" / f"{name}.json").write_text(json.dumps(scene))
    return target
