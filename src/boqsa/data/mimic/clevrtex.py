"""CLEVRTEX: images and palette masks in folders of 1,000."""

from pathlib import Path

import numpy as np
from PIL import Image

from boqsa.data.mimic.content import Content

_SIZE = (240, 320)
_PALETTE = bytes([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0])
_FEWEST = 20
"""Of which a tenth is two."""


def write_clevrtex_full(target: Path, content: Content) -> Path:
    """At least 20 images, of which a tenth is test and a tenth val."""
    return _write(target, content, "full")


def write_clevrtex_camo(target: Path, content: Content) -> Path:
    """At least 20 images, of which a tenth is test and a tenth val."""
    return _write(target, content, "camo")


def write_clevrtex_outd(target: Path, content: Content) -> Path:
    """At least 20 images, all of them test."""
    return _write(target, content, "outd")


def _write(target: Path, content: Content, which: str) -> Path:
    root = target / f"clevrtex_{which}"
    for index in range(max(_FEWEST, content.count)):
        folder = root / str(index // 1000)
        folder.mkdir(parents=True, exist_ok=True)
        image, mask = content.scene(index, _SIZE)
        rgba = np.concatenate([image, np.full((*_SIZE, 1), 255, np.uint8)], axis=2)
        stem = f"CLEVRTEX_{which}_{index:06d}"
        Image.fromarray(rgba).save(folder / f"{stem}.png")
        labels = Image.fromarray(mask).convert("P")
        labels.putdata(mask.ravel().tolist())
        labels.putpalette(_PALETTE)
        labels.save(folder / f"{stem}_flat.png")
    return root
