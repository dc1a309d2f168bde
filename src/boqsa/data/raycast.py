"""An analytic ray-caster for small rooms: what each ray meets, how it is lit, and the picture of it.

Notable choices:
- Everything is closed-form and elementwise in float32: a scene's pixels do not depend on its batch.
- All objects are convex and no ray starts inside one: a ray's entry point is all there is to find.
- Masks are what the ray through the middle of a pixel meets; images average `supersample`² rays a pixel.
- Axes: the world is right-handed with z up and the floor at z = 0. Two walls, x = wall_distance[0] and
  y = wall_distance[1], meet in a corner; the camera and the light are on their open side. Camera axes are
  those of OpenCV: x right, y down, z forward.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
"""float32 throughout; numpy's stubs lose track of the width."""
Xyz: TypeAlias = tuple[Floats, ...]
"""The three components of a vector."""

SPHERE, BOX, CYLINDER, ABSENT = 0, 1, 2, -1
FIELD_OF_VIEW_TANGENT = 0.46
"""Tangent of half the field of view: 49 degrees across."""
AMBIENT = 0.35
"""Share of a colour that is left in shadow; the light adds the rest times the cosine of its incidence."""
_LIFT = 1e-3
"""How far above its surface a shadow ray starts, so that it does not meet the surface itself."""


class SceneParameters(NamedTuple):
    """All that defines N scenes of up to K objects and V views: lengths in world units."""

    kind: NDArray[np.int8]
    """(N, K): SPHERE, BOX, CYLINDER, or ABSENT behind the last object."""
    position: Floats
    """(N, K, 3): centres; every object stands on the floor."""
    half_size: Floats
    """(N, K, 3): half the extent along the object's own axes; a radius for round ones."""
    heading: Floats
    """(N, K, 2): direction of the object's own x axis on the floor, a unit vector; only seen on boxes."""
    colour: Floats
    """(N, K, 3): RGB in 0..1."""
    room_colour: Floats
    """(N, 4, 3): RGB in 0..1 of the floor, the wall across x, the wall across y, the sky."""
    wall_distance: Floats
    """(N, 2): where the walls stand, along x and y."""
    wall_height: Floats
    """(N,): the sky begins above it."""
    light: Floats
    """(N, 3): unit vector towards the light, which is infinitely far away."""
    camera: Floats
    """(N, V, 4, 4): camera to world."""


class _Hits(NamedTuple):
    distance: Floats  # (B, R): along the ray; infinite for the sky
    label: NDArray[np.int64]  # (B, R): -1 background, else the object's index
    surface: NDArray[np.int64]  # (B, R): what is behind all objects, an index into `room_colour`


def focal_length(image_size: int) -> float:
    """Focal length in pixels of a square image; the principal point is its middle."""
    return image_size / 2 / FIELD_OF_VIEW_TANGENT


def draw_masks(scenes: SceneParameters, *, image_size: int) -> NDArray[np.uint8]:
    """Instance masks, (N, V, H, W): the object that the middle of a pixel shows, 1..K, or 0 for none."""
    return draw_surfaces(scenes, image_size=image_size)[0]


def draw_surfaces(scenes: SceneParameters, *, image_size: int) -> tuple[NDArray[np.uint8], Floats]:
    """What `draw_masks` gives, and how deep in the scene it lies, (N, V, H, W): along the camera's axis, in world
    units, and infinite for the sky."""
    count, views = scenes.camera.shape[:2]
    rows, cameras = _one_view_a_row(scenes)
    direction = _directions(cameras, image_size, 1)
    hits = _trace(rows, _origins(cameras), direction)
    cosine = sum(cameras[:, axis, 2, None] * direction[axis] for axis in range(3))  # to the camera's axis
    shape = (count, views, image_size, image_size)
    return (hits.label + 1).astype(np.uint8).reshape(shape), (hits.distance * cosine).reshape(shape)


def draw_images(scenes: SceneParameters, *, image_size: int, supersample: int) -> NDArray[np.uint8]:
    """RGB images, (N, V, 3, H, W): Lambert shading, ambient light, hard shadows."""
    count, views = scenes.camera.shape[:2]
    rows, cameras = _one_view_a_row(scenes)
    origin, direction = _origins(cameras), _directions(cameras, image_size, supersample)
    hits = _trace(rows, origin, direction)
    colour = _shade(rows, origin, direction, hits)

    fine = image_size * supersample
    image = np.zeros((count * views, 3, image_size, image_size), dtype=np.float32)
    for channel in range(3):
        values = colour[channel].reshape(count * views, fine, fine)
        for top in range(supersample):
            for left in range(supersample):
                image[:, channel] += values[:, top::supersample, left::supersample]
    image *= 255 / supersample**2
    image += 0.5
    return image.astype(np.uint8).reshape(count, views, 3, image_size, image_size)


def _one_view_a_row(scenes: SceneParameters) -> tuple[SceneParameters, Floats]:
    """Each scene repeated for each of its views, and the views' cameras (N * V, 4, 4)."""
    views = scenes.camera.shape[1]
    repeated = SceneParameters._make(np.repeat(field, views, axis=0) for field in scenes)
    return repeated, scenes.camera.reshape(-1, 4, 4)


def _origins(camera: Floats) -> Xyz:
    return camera[:, 0, 3, None], camera[:, 1, 3, None], camera[:, 2, 3, None]  # (B, 1) each


def _directions(camera: Floats, image_size: int, supersample: int) -> Xyz:
    """Unit vectors in the world, (B, R) each: `supersample`² rays a pixel, in the order of a finer image."""
    fine = image_size * supersample
    along = ((np.arange(fine) + 0.5) / fine * 2 - 1) * FIELD_OF_VIEW_TANGENT
    y, x = (axis.ravel().astype(np.float32) for axis in np.meshgrid(along, along, indexing="ij"))
    inverse_norm = 1 / np.sqrt(x * x + y * y + 1)
    x, y, z = x * inverse_norm, y * inverse_norm, inverse_norm
    dx, dy, dz = (
        camera[:, row, 0, None] * x + camera[:, row, 1, None] * y + camera[:, row, 2, None] * z for row in range(3)
    )
    return dx, dy, dz


def _trace(scenes: SceneParameters, origin: Xyz, direction: Xyz) -> _Hits:
    """The nearest thing that each ray meets. `origin` and `direction` broadcast to (B, R)."""
    entry = _object_entries(scenes, origin, direction)  # (B, K, R)
    distance, surface = _room_entry(scenes, origin, direction)
    label = np.full(distance.shape, -1, dtype=np.int64)
    for index in range(entry.shape[1]):
        nearer = entry[:, index] < distance
        label[nearer] = index
        distance = np.minimum(distance, entry[:, index])
    return _Hits(distance, label, surface)


def _room_entry(scenes: SceneParameters, origin: Xyz, direction: Xyz) -> tuple[Floats, NDArray[np.int64]]:
    """Distance to the floor, a wall or the sky (infinite), and which of them. Past the walls all is sky."""
    with np.errstate(divide="ignore"):
        floor = -origin[2] / np.minimum(direction[2], -1e-9)
        walls = [
            (scenes.wall_distance[:, axis, None] - origin[axis]) / np.maximum(direction[axis], 1e-9) for axis in (0, 1)
        ]
    wall = np.minimum(walls[0], walls[1])
    sky = (wall < floor) & (origin[2] + wall * direction[2] > scenes.wall_height[:, None])
    distance = np.minimum(floor, wall)
    distance[sky] = np.inf
    surface = np.where(sky, 3, np.where(floor <= wall, 0, np.where(walls[0] <= walls[1], 1, 2)))
    return distance, surface


def _object_entries(scenes: SceneParameters, origin: Xyz, direction: Xyz) -> Floats:
    """Distance at which each ray enters each object, (B, K, R); infinite where it does not."""
    batch, slots = scenes.kind.shape
    rays = np.broadcast_shapes(origin[0].shape, direction[0].shape)[1]
    entry = np.full((batch, slots, rays), np.inf, dtype=np.float32)
    for kind, interval in ((SPHERE, _sphere), (BOX, _box), (CYLINDER, _cylinder)):
        row, slot = np.nonzero(scenes.kind == kind)
        if len(row) == 0:
            continue
        position, half_size = scenes.position[row, slot], scenes.half_size[row, slot]
        local: Xyz = tuple(origin[axis][row] - position[:, axis, None] for axis in range(3))
        towards: Xyz = tuple(direction[axis][row] for axis in range(3))
        if kind == BOX:
            cosine, sine = scenes.heading[row, slot, 0, None], scenes.heading[row, slot, 1, None]
            local, towards = _turn(local, cosine, -sine), _turn(towards, cosine, -sine)
        size = (half_size[:, 0, None], half_size[:, 1, None], half_size[:, 2, None])
        with np.errstate(invalid="ignore", divide="ignore"):
            near, far = interval(local, towards, size)
            entry[row, slot] = np.where((near < far) & (near > 0), near, np.float32(np.inf))
    return entry


def _turn(vector: Xyz, cosine: Floats, sine: Floats) -> Xyz:
    """`vector` rotated about the vertical by the angle of this cosine and sine."""
    x, y, z = vector
    return cosine * x - sine * y, sine * x + cosine * y, z


def _sphere(origin: Xyz, direction: Xyz, half_size: Xyz) -> tuple[Floats, Floats]:
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    middle = -(ox * dx + oy * dy + oz * dz)
    half = np.sqrt(middle * middle - (ox * ox + oy * oy + oz * oz - half_size[0] * half_size[0]))
    return middle - half, middle + half


def _slab(origin: Floats, direction: Floats, half_size: Floats) -> tuple[Floats, Floats]:
    inverse = 1 / direction
    middle = -origin * inverse
    half = half_size * np.abs(inverse)
    return middle - half, middle + half


def _box(origin: Xyz, direction: Xyz, half_size: Xyz) -> tuple[Floats, Floats]:
    near, far = _slab(origin[0], direction[0], half_size[0])
    for axis in (1, 2):
        slab_near, slab_far = _slab(origin[axis], direction[axis], half_size[axis])
        near, far = np.maximum(near, slab_near), np.minimum(far, slab_far)
    return near, far


def _cylinder(origin: Xyz, direction: Xyz, half_size: Xyz) -> tuple[Floats, Floats]:
    (ox, oy, _), (dx, dy, _) = origin, direction
    inverse = 1 / (dx * dx + dy * dy)
    middle = -(ox * dx + oy * dy) * inverse
    half = np.sqrt(middle * middle - (ox * ox + oy * oy - half_size[0] * half_size[0]) * inverse)
    cap_near, cap_far = _slab(origin[2], direction[2], half_size[2])
    return np.maximum(middle - half, cap_near), np.minimum(middle + half, cap_far)


def _shade(scenes: SceneParameters, origin: Xyz, direction: Xyz, hits: _Hits) -> Xyz:
    """Colour of each ray in 0..1, (B, R) for red, green and blue."""
    sky = np.isinf(hits.distance)
    distance = np.where(sky, np.float32(0), hits.distance)
    point = tuple(origin[axis] + distance * direction[axis] for axis in range(3))
    normal = _normals(scenes, point, hits)
    light = scenes.light[:, 0, None], scenes.light[:, 1, None], scenes.light[:, 2, None]

    above = tuple(point[axis] + _LIFT * normal[axis] for axis in range(3))
    shadow = np.isfinite(_object_entries(scenes, above, light)).any(axis=1)
    cosine = sum(normal[axis] * light[axis] for axis in range(3))
    lit = AMBIENT + (1 - AMBIENT) * np.where(shadow, np.float32(0), np.maximum(cosine, 0))
    lit[sky] = 1

    palette = np.concatenate([scenes.room_colour, scenes.colour], axis=1)  # (B, 4 + K, 3)
    entry = np.where(hits.label < 0, hits.surface, hits.label + scenes.room_colour.shape[1])
    red, green, blue = (np.take_along_axis(palette[:, :, channel], entry, axis=1) * lit for channel in range(3))
    return red, green, blue


def _normals(scenes: SceneParameters, point: Xyz, hits: _Hits) -> Xyz:
    """Unit outward normals at the points that were hit, (B, R) each."""
    table = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, 1]], dtype=np.float32)
    normal = [table[:, axis][hits.surface] for axis in range(3)]

    row, ray = np.nonzero(hits.label >= 0)
    slot = hits.label[row, ray]
    kind, half_size = scenes.kind[row, slot], scenes.half_size[row, slot]
    cosine, sine = scenes.heading[row, slot, 0], scenes.heading[row, slot, 1]
    # In the object's own axes, as a share of its half-size: a face or a cap is where one share reaches 1.
    x, y, z = (point[axis][row, ray] - scenes.position[row, slot, axis] for axis in range(3))
    x, y, z = _turn((x, y, z), cosine, -sine)
    share = [axis / half_size[:, index] for index, axis in enumerate((x, y, z))]
    size = [np.abs(axis) for axis in share]

    box, cylinder = kind == BOX, kind == CYLINDER
    side = np.sqrt(share[0] * share[0] + share[1] * share[1])
    on_top = (box & (size[2] >= size[0]) & (size[2] >= size[1])) | (cylinder & (size[2] >= side))
    across_x = box & ~on_top & (size[0] >= size[1])
    across_y = box & ~on_top & ~across_x
    flat = on_top | across_y
    own = (
        np.where(flat, 0, np.where(across_x, np.sign(share[0]), share[0])),
        np.where(on_top | across_x, 0, np.where(across_y, np.sign(share[1]), share[1])),
        np.where(on_top, np.sign(share[2]), np.where(kind == SPHERE, share[2], 0)),
    )
    for axis, values in enumerate(_turn(own, cosine, sine)):
        normal[axis][row, ray] = values
    return normal[0], normal[1], normal[2]
