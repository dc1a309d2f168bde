"""The view sets of uORF: images, cameras, azimuths, colour masks and depth in one folder for each split."""

from math import atan2, cos, sin
from pathlib import Path

import numpy as np
from PIL import Image

from boqsa.data.mimic.content import Content

_SIDE = 128
_VIEWS = 5
# From dark to light, the background first. What is darkest in a mask counts as an object, as published, so the first
# object in sight is painted black.
_COLOURS = np.array([[50, 50, 50], [40, 90, 0], [0, 140, 0], [255, 80, 20], [120, 200, 255]], np.uint8)


def write_clevr567(target: Path, content: Content) -> Path:
    """Two thirds of the scenes train, one third test, five views each."""
    return _write(target, content, "clevr_567")


def write_room_chair(target: Path, content: Content) -> Path:
    """Two thirds of the scenes train, one third test, five views each."""
    return _write(target, content, "room_chair")


def write_room_diverse(target: Path, content: Content) -> Path:
    """Two thirds of the scenes train, one third test, five views each."""
    return _write(target, content, "room_diverse")


def _write(target: Path, content: Content, stem: str) -> Path:
    count = max(6, content.count)
    of_train = 2 * count // 3
    for index in range(count):
        split, scene = ("train", index) if index < of_train else ("test", index - of_train)
        folder = target / f"{stem}_{split}"
        folder.mkdir(parents=True, exist_ok=True)
        images, masks, cameras, _ = content.views(index, _VIEWS, _SIDE)
        depths = content.depths(index, _VIEWS, _SIDE)
        for view, (image, mask, camera, depth) in enumerate(zip(images, masks, cameras, depths, strict=True)):
            name = f"{scene * _VIEWS + view:05d}_sc{scene:04d}_az{view:02d}_el00"
            Image.fromarray(image).save(folder / f"{name}.png")
            colours = _COLOURS.copy()
            if mask.any():
                colours[mask[mask > 0].min()] = 0
            Image.fromarray(colours[mask]).save(folder / f"{name}_mask.png")
            np.save(folder / f"{name}_depth.npy", depth[..., None])
            np.savetxt(folder / f"{name}_RT.txt", camera)
            turn = atan2(camera[1, 3], camera[0, 3])
            azimuth = np.array([[cos(turn), -sin(turn), 0], [sin(turn), cos(turn), 0], [0, 0, 1]])
            np.savetxt(folder / f"{name}_azi_rot.txt", azimuth)
    return target
