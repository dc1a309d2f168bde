"""A folder of images with masks and splits, as `folder` reads it."""

from pathlib import Path

from PIL import Image

from boqsa.data.mimic.content import Content

_SIZE = (112, 144)


def write_folder(target: Path, content: Content) -> Path:
    """Write images and masks of the same names, `<split>/<number>.png`; every sixth is val, every sixth test."""
    for index in range(content.count):
        split = {4: "val", 5: "test"}.get(index % 6, "train")
        image, mask = content.scene(index, _SIZE)
        for kind, pixels in (("images", image), ("masks", mask)):
            folder = target / kind / split
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{index:05d}.png")
    return target
