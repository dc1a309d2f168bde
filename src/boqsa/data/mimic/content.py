"""What a mimicked data set shows: the built-in scenes, at the size of the original."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8

from boqsa.data.resample import centre_crop
from boqsa.data.scenes import ORBIT_OF_VIEWS, Scenes, SceneSettings, render_scenes


@dataclass(frozen=True)
class Content:
    """A numbered sequence of pictures with exact masks; the same for the same seed."""

    count: int = 24
    """How many samples a writer should make in all; a scene with several views counts once."""
    seed: int = 0

    def scene(self, index: int, size: tuple[int, int]) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """Scene `index` at (height, width): the image, and its mask with 0 = background and 1..4 = objects.

        A size that is not square shows the middle of a square picture, so objects at the border can be cut.
        """
        scenes = _render(self.seed, index, max(size), 1)
        return _cropped(scenes.image[0, 0], size), centre_crop(scenes.mask[0, 0], size)

    def views(
        self, index: int, count: int, side: int
    ) -> tuple[
        UInt8[np.ndarray, "v side side 3"], UInt8[np.ndarray, "v side side"], Float32[np.ndarray, "v 4 4"], float
    ]:
        """Several views of scene `index`: images, masks, cameras (camera to world, OpenCV axes), focal length.

        An object has the same label in all views. The focal length is in pixels.
        """
        scenes = _render(self.seed, index, side, count)
        return np.moveaxis(scenes.image[0], 1, 3), scenes.mask[0], scenes.camera[0], scenes.focal_px

    def depths(self, index: int, count: int, side: int) -> Float32[np.ndarray, "v side side"]:
        """Depth of the same views along the camera's axis, in world units; infinite for the sky."""
        depth: Float32[np.ndarray, "v side side"] = _render(self.seed, index, side, count).depth[0]
        return depth


@lru_cache(maxsize=4)
def _render(seed: int, index: int, side: int, views: int) -> Scenes:
    orbit = ORBIT_OF_VIEWS if views > 1 else SceneSettings().orbit
    settings = SceneSettings(image_size=side, supersample=1, orbit=orbit)
    return render_scenes(1, seed=seed, start=index, views=views, settings=settings)


def _cropped(image: UInt8[np.ndarray, "3 side side"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    return np.ascontiguousarray(centre_crop(np.moveaxis(image, 0, 2), size))  # (3, S, S) -> (h, w, 3)
