"""The instance subsets of Yang & Yang (2022): pairs of PNG files whose background is black."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from boqsa.data.mimic.content import Content

_SIZE = (128, 128)


def write_ycb(target: Path, content: Content) -> Path:
    """`{train,test}/{image,mask}/00000.png`; a quarter, two at least, are test."""
    of_test = max(2, content.count // 4)
    scenes = _scenes(content)
    for split, count in (("train", max(4, content.count - of_test)), ("test", of_test)):
        for kind in ("image", "mask"):
            (target / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = next(scenes)
            Image.fromarray(image * (mask > 0)[..., None]).save(target / split / "image" / f"{number:05d}.png")
            Image.fromarray(mask).save(target / split / "mask" / f"{number:05d}.png")
    return target


write_scannet = write_coco = write_ycb
"""All three have one layout."""


def _scenes(content: Content) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]]:
    """Those that show two objects at least, as the published ones do."""
    index = 0
    while True:
        image, mask = content.scene(index, _SIZE)
        labels = np.unique(mask)
        if len(labels) > 2:
            yield image, np.searchsorted(labels, mask).astype(np.uint8)  # without gaps
        index += 1
