"""A stand-in for people's own arrays: one `.npz` of images and masks."""

from pathlib import Path

import numpy as np

from boqsa.data.mimic.content import Content


def write_arrays(target: Path, content: Content) -> Path:
    """Write `arrays.npz`, with images of 64x64."""
    target.mkdir(parents=True, exist_ok=True)
    scenes = [content.scene(index, (64, 64)) for index in range(content.count)]
    path = target / "arrays.npz"
    np.savez_compressed(
        path, image=np.stack([image for image, _ in scenes]), mask=np.stack([mask for _, mask in scenes])
    )
    return path
