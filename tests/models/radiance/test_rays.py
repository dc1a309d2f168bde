"""Rays against hand-made numbers: the lens, the pose, depths along the axis, units (uorf 4, 11)."""

import math

import pytest
import torch
from torch import Tensor

from boqsa.data.raycast import SPHERE
from boqsa.data.scenes import SceneSettings, render_scenes, sample_scenes
from boqsa.models.radiance import Frustum, all_pixels, azimuth_of, cast_rays


def pose(position: tuple[float, float, float] = (0, 0, 0), angle: float = 0.0) -> Tensor:
    """A camera that looks along z, turned about the world's z axis."""
    camera = torch.eye(4, dtype=torch.float64)
    camera[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    camera[:3, 3] = torch.tensor(position)
    return camera[None, None]  # (1, 1, 4, 4)


def test_a_pixel_and_a_depth_by_hand() -> None:
    # 64 pixels: fx = 70, fy = 93.33, middle 31.5. Pixel (row 40, column 10) is 21.5 left and 8.5 below.
    pixels = torch.tensor([[[0, 40, 10]]])
    rays = cast_rays(pose((1, 2, 3)), pixels, size=64, frustum=Frustum())
    x, y = (10 - 31.5) / 70, (40 - 31.5) / (350 / 240 * 64)
    point = rays.points(torch.tensor([6.0], dtype=torch.float64))[0, 0, 0]
    torch.testing.assert_close(point, torch.tensor([1 + 6 * x, 2 + 6 * y, 3 + 6], dtype=torch.float64) / 7)
    assert rays.length.item() == pytest.approx(math.sqrt(x * x + y * y + 1))


def test_depth_is_along_the_axis_and_not_along_the_ray() -> None:
    rays = cast_rays(pose(), all_pixels(1, 8), size=8, frustum=Frustum(scene_scale=1.0))
    points = rays.points(torch.tensor([6.0, 20.0], dtype=torch.float64))
    assert (points[0, :, 0, 2] == 6).all()
    assert (points[0, :, 1, 2] == 20).all()


def test_the_first_sample_is_at_near_and_the_last_at_far() -> None:
    depths = Frustum(near=2.0, far=5.0).depths(4, like=torch.zeros(()))
    assert depths.tolist() == [2, 3, 4, 5]
    intervals = Frustum(near=2.0, far=5.0).intervals(4, like=torch.zeros(()))
    torch.testing.assert_close(intervals, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.01]))


def test_a_turned_camera_turns_its_rays() -> None:
    pixels = torch.tensor([[[0, 3, 7]]])
    straight = cast_rays(pose(), pixels, size=8, frustum=Frustum()).direction[0, 0]
    turned = cast_rays(pose(angle=math.pi / 2), pixels, size=8, frustum=Frustum()).direction[0, 0]
    torch.testing.assert_close(turned, torch.stack([-straight[1], straight[0], straight[2]]))


def test_each_ray_has_the_pose_of_its_view() -> None:
    cameras = torch.cat([pose((1, 0, 0)), pose((2, 0, 0))], dim=1)
    rays = cast_rays(cameras, torch.tensor([[[1, 0, 0], [0, 0, 0]]]), size=8, frustum=Frustum(scene_scale=1.0))
    assert rays.origin[0, :, 0].tolist() == [2, 1]


def test_all_pixels_come_view_by_view_and_row_by_row() -> None:
    pixels = all_pixels(3, 3, scenes=2)
    assert pixels.shape == (2, 27, 3)
    assert pixels[1, 22].tolist() == [2, 1, 1]


def test_the_azimuth_turns_with_the_camera_and_leaves_height_alone() -> None:
    looking = torch.eye(4, dtype=torch.float64)
    looking[:3, 2] = torch.tensor([0.0, 3.0, -4.0]) / 5  # along y, and down
    azimuth = azimuth_of(looking)
    torch.testing.assert_close(
        azimuth @ torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.tensor([0, 1.0, 0]).double()
    )
    torch.testing.assert_close(azimuth[2], torch.tensor([0, 0, 1.0]).double())
    torch.testing.assert_close(azimuth @ azimuth.mT, torch.eye(3).double())


def test_depths_of_the_built_in_renderer_end_on_its_surfaces() -> None:
    """The same lens, poses and depths: floor pixels lie at height 0, and spheres are as far away as their radius."""
    settings = SceneSettings(image_size=32, orbit=50.0)
    scenes = render_scenes(6, seed=0, settings=settings, views=2)
    what = sample_scenes(6, seed=0, settings=settings, views=2)
    frustum = Frustum(focal=(1 / (2 * 0.46),) * 2, near=1.0, far=20.0, scene_scale=1.0)
    rays = cast_rays(torch.from_numpy(scenes.camera).double(), all_pixels(2, 32, scenes=6), size=32, frustum=frustum)
    depth = torch.from_numpy(scenes.depth).double().flatten(1)
    label = torch.from_numpy(scenes.mask).long().flatten(1)
    points = rays.origin + depth[..., None] * rays.direction  # (6, R, 3)
    room = (label == 0) & depth.isfinite()
    assert points[..., 2][room].min().item() == pytest.approx(0, abs=1e-4)
    assert (points[..., 2][room].abs() < 1e-4).double().mean() > 0.3
    spheres = 0
    for scene, slot in zip(*(what.kind == SPHERE).nonzero(), strict=True):
        centre, radius = torch.from_numpy(what.position[scene, slot]), what.half_size[scene, slot, 0]
        away = (points[scene][label[scene] == slot + 1] - centre).norm(dim=-1)
        torch.testing.assert_close(away, torch.full_like(away, float(radius)), rtol=0, atol=1e-4)
        spheres += 1
    assert spheres >= 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"near": 5.0, "far": 5.0}, "near is 5.0 and far is 5.0"),
        ({"near": 0.0}, "0 < near < far"),
        ({"focal": (0.0, 1.0)}, "focal is"),
        ({"scene_scale": 0.0}, "scene_scale is 0.0"),
    ],
)
def test_a_lens_that_cannot_be_is_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Frustum(**changes)  # type: ignore[arg-type]
