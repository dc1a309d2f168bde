"""From pixels of posed views to points in space (uorf 4).

Every view of a data set has the same pinhole camera. Camera axes are x right, y down, z forward; a pose maps them to
the world. Depth is along the optical axis, not along the ray, so all samples of one index lie on a plane.

Notable choice: points are in *scene units*, the world's divided by `scene_scale` (the "normalised scene space" of
the published code), and near and far are in world units, as published.

Shapes: B scenes, N views, R rays, S samples a ray.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LAST_INTERVAL = 0.01
"""Length of the last sample of a ray, in normalised depth (uorf 4.4)."""


@dataclass(frozen=True, kw_only=True)
class Frustum:
    """What is seen from a pose: the lens, and the depths that are looked at.

    Raises:
        ValueError: if a length is not positive, or `near` is not in front of `far`.
    """

    focal: tuple[float, float] = (350 / 320, 350 / 240)
    """Focal lengths as shares of the image's width and height; the principal point is the middle of the image. The
    default is the published one: renders of 4:3, squeezed to a square."""
    near: float = 6.0
    """Depth of the first sample, in world units."""
    far: float = 20.0
    """Depth of the last one."""
    scene_scale: float = 7.0
    """World units in a scene unit."""

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far:
            raise ValueError(f"near is {self.near} and far is {self.far}; give 0 < near < far, in world units.")
        if len(self.focal) != 2 or min(self.focal) <= 0:
            raise ValueError(f"focal is {self.focal}; give two positive shares, of the width and of the height.")
        if self.scene_scale <= 0:
            raise ValueError(f"scene_scale is {self.scene_scale}; give how many world units a scene unit has, above 0.")

    def depths(self, samples: int, *, like: Tensor) -> Float[Tensor, "S"]:
        """Depths of the samples, evenly from `near` to `far`, in world units; the same on every ray (uorf 4.2)."""
        return torch.linspace(self.near, self.far, samples, dtype=like.dtype, device=like.device)

    def intervals(self, samples: int, *, like: Tensor) -> Float[Tensor, "S"]:
        """How long each sample counts, in normalised depth: 1 from `near` to `far` (uorf 4.4)."""
        step = torch.full((samples,), 1 / (samples - 1), dtype=like.dtype, device=like.device)
        step[-1] = _LAST_INTERVAL
        return step


class Rays(NamedTuple):
    """Rays in scene units: the point at depth d is `origin + d direction`."""

    origin: Float[Tensor, "B R 3"]
    direction: Float[Tensor, "B R 3"]
    """Its component along the optical axis is one world unit long."""
    length: Float[Tensor, "B R"]
    """Of the direction, in world units: 1 in the middle of the picture, more towards its border."""

    def points(self, depths: Float[Tensor, "S"]) -> Float[Tensor, "B R S 3"]:
        """The points at these depths."""
        return self.origin[:, :, None] + depths[:, None] * self.direction[:, :, None]


def cast_rays(
    camera: Float[Tensor, "B N 4 4"],
    pixels: Int[Tensor, "B R 3"],
    *,
    size: int,
    frustum: Frustum,
) -> Rays:
    """A ray through the middle of each pixel.

    Args:
        camera: Camera to world, of every view.
        pixels: View, row and column of each ray.
        size: Height and width of the picture whose pixels these are.
        frustum: Of the data set.
    """
    view, row, column = pixels.unbind(-1)  # (B, R) each
    middle = (size - 1) / 2
    in_camera = torch.stack(
        [
            (column - middle) / (frustum.focal[0] * size),
            (row - middle) / (frustum.focal[1] * size),
            torch.ones_like(row),
        ],
        dim=-1,
    ).to(camera)  # (B, R, 3)
    scene = torch.arange(len(camera), device=camera.device)[:, None]
    pose = camera[scene, view]  # (B, R, 4, 4)
    direction = (pose[..., :3, :3] @ in_camera[..., None]).squeeze(-1)
    scale = frustum.scene_scale
    return Rays(pose[..., :3, 3] / scale, direction / scale, in_camera.norm(dim=-1))


def azimuth_of(camera: Float[Tensor, "*views 4 4"]) -> Float[Tensor, "*views 3 3"]:
    """The rotation about the world's z axis by the direction in which a camera looks (uorf 11).

    For data without azimuth files. The published files may differ by a constant angle, which is the same for all views.
    """
    x, y = camera[..., 0, 2], camera[..., 1, 2]
    angle = torch.atan2(y, x)
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = [[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
