"""The built-in scenes: a room with a few solid objects, drawn at random and rendered by `boqsa.data.raycast`.

Scene i depends on (seed, i, settings) alone: not on how many scenes are asked for, where `start` is, or how
many views are rendered. Its generator is `Philox(SeedSequence([seed, i, attempt]))`; `attempt` counts the
drafts of the scene that were refused because an object found no room or showed too few pixels in view 0.
"""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from boqsa.data.raycast import (
    ABSENT,
    BOX,
    CYLINDER,
    SPHERE,
    SceneParameters,
    draw_images,
    draw_masks,
    draw_surfaces,
    focal_length,
)
from boqsa.errors import RecipeError

_MOST_OBJECTS = 6
_MOST_ATTEMPTS = 500
_RAYS_AT_ONCE = 2**16
_SPREAD = 2.4
"""Radius of the disc on the floor in which objects stand."""
_GAP = 0.08
"""Least distance between two objects' footprints."""
ORBIT_OF_VIEWS = 50.0
"""Degrees to either side that several cameras of a scene are spread over: what one hides, another shows."""


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """What a scene looks like.

    Raises:
        RecipeError: if a field is out of its range.
    """

    image_size: int = 64
    """Height and width in pixels."""
    min_objects: int = 2
    max_objects: int = 4
    """Objects: uniform between the two in a draft; crowded drafts are refused a little more often."""
    min_visible: float = 0.012
    """Least share of the image's pixels that each object covers in the first view: 12 pixels of 32x32."""
    supersample: int = 2
    """Rays along each side of a pixel that are averaged in the image. Masks do not depend on it."""
    orbit: float = 8.0
    """Cameras stand up to so many degrees to either side of the middle of the room's open side."""

    def __post_init__(self) -> None:
        legal = {
            "image_size": (8 <= self.image_size <= 1024, "8 to 1024"),
            "min_objects": (1 <= self.min_objects <= self.max_objects, "1 to max_objects"),
            "max_objects": (self.max_objects <= _MOST_OBJECTS, f"min_objects to {_MOST_OBJECTS}"),
            "min_visible": (0 < self.min_visible <= 0.1, "above 0, up to 0.1"),
            "supersample": (1 <= self.supersample <= 8, "1 to 8"),
            "orbit": (0 <= self.orbit <= 90, "0 to 90"),
        }
        for field, (good, interval) in legal.items():
            if not good:
                raise RecipeError(f"{field} of the scenes is {getattr(self, field)}; give {interval}.")

    @property
    def min_pixels(self) -> int:
        """`min_visible` as a number of pixels, at least 1."""
        return max(1, round(self.min_visible * self.image_size**2))


class Scenes(NamedTuple):
    """N rendered scenes of V views."""

    image: NDArray[np.uint8]
    """(N, V, 3, H, W): RGB, 0..255."""
    mask: NDArray[np.uint8]
    """(N, V, H, W): 0 floor, walls and sky; 1..n the objects, the same object in all views of a scene."""
    camera: NDArray[np.float32]
    """(N, V, 4, 4): camera to world. The camera has x right, y down, z forward (OpenCV); the world has z up
    and the floor at z = 0."""
    depth: NDArray[np.float32]
    """(N, V, H, W): along the camera's axis, in world units; infinite for the sky."""
    focal_px: float
    """Focal length in pixels, of every view; the principal point is the middle of the image."""


def render_scenes(
    count: int, *, seed: int, settings: SceneSettings | None = None, start: int = 0, views: int = 1
) -> Scenes:
    """Scenes `start` to `start + count` of the sequence of `seed`.

    Args:
        count: Scenes to render.
        seed: Of the sequence; not negative.
        settings: What a scene looks like; by default `SceneSettings()`.
        start: Index of the first scene.
        views: Cameras a scene. In the first view each object shows `min_visible`; in others it may be hidden.

    Raises:
        ValueError: if `count` or `views` is not positive, or `seed` or `start` is negative.
        RecipeError: if the settings leave no room for the objects.
    """
    settings = settings or SceneSettings()
    _check(count, seed, start, views)
    size = settings.image_size
    image = np.empty((count, views, 3, size, size), dtype=np.uint8)
    mask = np.empty((count, views, size, size), dtype=np.uint8)
    camera = np.empty((count, views, 4, 4), dtype=np.float32)
    depth = np.empty((count, views, size, size), dtype=np.float32)
    chunk = max(1, _RAYS_AT_ONCE // (views * (size * settings.supersample) ** 2))
    for first in range(0, count, chunk):
        part = slice(first, min(first + chunk, count))
        scenes = sample_scenes(part.stop - first, seed=seed, settings=settings, start=start + first, views=views)
        image[part] = draw_images(scenes, image_size=size, supersample=settings.supersample)
        mask[part], depth[part] = draw_surfaces(scenes, image_size=size)
        camera[part] = scenes.camera
    return Scenes(image, mask, camera, depth, focal_length(size))


def sample_scenes(
    count: int, *, seed: int, settings: SceneSettings | None = None, start: int = 0, views: int = 1
) -> SceneParameters:
    """What `render_scenes` renders, as numbers; same arguments and errors.

    K is `settings.max_objects`. The masks of all are traced at once, so ask for some thousands at a time.
    """
    settings = settings or SceneSettings()
    _check(count, seed, start, views)
    accepted: dict[int, SceneParameters] = {}
    pending: Sequence[int] = range(start, start + count)
    for attempt in range(_MOST_ATTEMPTS):
        drafts = {index: _draft(seed, index, attempt, settings, views) for index in pending}
        placed = {index: draft for index, draft in drafts.items() if draft is not None}
        if placed:
            visible = _all_visible(_stack(list(placed.values())), settings)
            accepted |= {index: placed[index] for index, good in zip(placed, visible, strict=True) if good}
        pending = [index for index in pending if index not in accepted]
        if not pending:
            return _stack([accepted[index] for index in range(start, start + count)])
    raise RecipeError(
        f"scene {pending[0]} found no draft in {_MOST_ATTEMPTS} that shows {settings.min_pixels} pixels of "
        f"each object; lower min_visible ({settings.min_visible}) or max_objects ({settings.max_objects})."
    )


def _check(count: int, seed: int, start: int, views: int) -> None:
    arguments = (("count", count, 1), ("views", views, 1), ("seed", seed, 0), ("start", start, 0))
    for name, value, least in arguments:
        if value < least:
            raise ValueError(f"{name} is {value}; give {least} or more.")


def _stack(scenes: list[SceneParameters]) -> SceneParameters:
    """One batch of scenes that have no leading axis yet."""
    return SceneParameters(*(np.stack(field) for field in zip(*scenes, strict=True)))


def _all_visible(scenes: SceneParameters, settings: SceneSettings) -> NDArray[np.bool_]:
    """(N,): whether each object of a scene shows enough pixels in the first view."""
    first_view = scenes._replace(camera=scenes.camera[:, :1])
    mask = draw_masks(first_view, image_size=settings.image_size)[:, 0]
    visible = np.ones(len(mask), dtype=bool)
    for index in range(settings.max_objects):
        pixels = (mask == index + 1).sum(axis=(1, 2))
        visible &= (pixels >= settings.min_pixels) | (scenes.kind[:, index] == ABSENT)
    return visible


def _draft(seed: int, index: int, attempt: int, settings: SceneSettings, views: int) -> SceneParameters | None:
    """A scene without the leading axis, or None if an object found no room.

    Cameras are drawn last, one by one: the scene and its first view are the same for any number of views.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index, attempt])))
    slots = settings.max_objects
    count = int(random.integers(settings.min_objects, slots + 1))
    kind = np.full(slots, ABSENT, dtype=np.int8)
    kind[:count] = random.choice([SPHERE, BOX, CYLINDER], size=count)
    half_size = np.ones((slots, 3), dtype=np.float32)
    position = np.zeros((slots, 3), dtype=np.float32)
    heading = np.zeros((slots, 2), dtype=np.float32)
    colour = np.zeros((slots, 3), dtype=np.float32)
    footprint = np.zeros(slots)
    for slot in range(count):
        half_size[slot], footprint[slot] = _size(random, int(kind[slot]))
        place = _free_place(random, position[:slot, :2], footprint[:slot] + footprint[slot] + _GAP)
        if place is None:
            return None
        position[slot] = (*place, half_size[slot, 2])
        angle = random.uniform(0, math.pi)
        heading[slot] = math.cos(angle), math.sin(angle)
        colour[slot] = colorsys.hsv_to_rgb(random.random(), random.uniform(0.6, 1.0), random.uniform(0.3, 0.8))

    # One hue for the whole room, another in each scene: what the room looks like must be told by some slot, and one
    # slot can tell it. A grey room every slot can paint, so none owns it; a vivid one takes most of the error, and
    # neighbouring objects are merged.
    tint = random.random()
    wall = colorsys.hsv_to_rgb(tint, random.uniform(0.3, 0.6), random.uniform(0.8, 1.0))
    floor = colorsys.hsv_to_rgb(tint, random.uniform(0.3, 0.6), random.uniform(0.8, 1.0))
    sky = colorsys.hsv_to_rgb(tint, random.uniform(0.1, 0.25), random.uniform(0.85, 1.0))
    # The corner of the room lies towards (1, 1), so its open side is at 225 degrees. The light comes from the
    # left or the right, so that shadows fall beside the objects, and reaches both walls: a wall in the dark is one more
    # dark thing, which slots then take for an object.
    azimuth = 225 + random.choice([-1, 1]) * random.uniform(8, 24)
    light = _unit(math.radians(azimuth), math.radians(random.uniform(35, 60)))
    return SceneParameters(
        kind=kind,
        position=position,
        half_size=half_size,
        heading=heading,
        colour=colour,
        room_colour=np.array([floor, wall, wall, sky], dtype=np.float32),
        wall_distance=random.uniform(3.2, 3.4, size=2).astype(np.float32),
        wall_height=np.array(random.uniform(1.5, 1.7), dtype=np.float32),
        light=np.array(light, dtype=np.float32),
        camera=np.stack([_camera(random, settings.orbit) for _ in range(views)]),
    )


def _size(random: np.random.Generator, kind: int) -> tuple[tuple[float, float, float], float]:
    """Half-sizes of an object and the radius of the circle that it stands in."""
    if kind == SPHERE:
        radius = random.uniform(0.75, 1.0)
        return (radius, radius, radius), radius
    if kind == CYLINDER:
        radius, height = random.uniform(0.6, 0.85), random.uniform(0.7, 1.0)
        return (radius, radius, height), radius
    x, y, z = random.uniform((0.55, 0.55, 0.6), (0.8, 0.8, 1.0))
    return (x, y, z), math.hypot(x, y)


def _free_place(
    random: np.random.Generator, taken: NDArray[np.float32], least: NDArray[np.float64]
) -> tuple[float, float] | None:
    """The first of 48 random places on the disc that is at least `least` away from each of those taken."""
    radius, angle = _SPREAD * np.sqrt(random.random(48)), random.uniform(0, 2 * math.pi, size=48)
    places = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    free = (np.linalg.norm(places[:, None] - taken, axis=2) >= least).all(axis=1)
    if not free.any():
        return None
    x, y = places[free.argmax()]
    return float(x), float(y)


def _unit(azimuth: float, elevation: float) -> tuple[float, float, float]:
    flat = math.cos(elevation)
    return flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)


def _camera(random: np.random.Generator, orbit: float) -> NDArray[np.float32]:
    """A camera on the open side of the room, 30 to 35 degrees above the floor, that looks at the objects."""
    azimuth, elevation = math.radians(225 + random.uniform(-orbit, orbit)), math.radians(random.uniform(30, 35))
    distance = random.uniform(6.0, 6.4)
    target = np.array([0.0, 0.0, 0.8])
    backward = np.array(_unit(azimuth, elevation))
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    down = np.cross(-backward, right)
    camera = np.eye(4, dtype=np.float32)
    camera[:3, :3] = np.stack([right, down, -backward], axis=1)
    camera[:3, 3] = target + distance * backward
    return camera
