"""Scenes of several views: which images make one, what is refused, what is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from boqsa.data import PackedDataset
from boqsa.data.packing import PackedWriter
from boqsa.data.readers.views import VIEW_EXTRAS
from boqsa.errors import InputError, RecipeError
from boqsa.training.draws import draw_corners, draw_rays, draw_views
from boqsa.training.views import SceneViews


def write(folder: Path, scenes: list[int], camera: np.ndarray | None = None) -> PackedDataset:
    folder.mkdir()
    count = len(scenes)
    poses = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1)) if camera is None else camera
    with PackedWriter(folder, (8, 8), extras=VIEW_EXTRAS) as writer:
        images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)
        extras = {
            "scene": np.array(scenes, np.int32),
            "camera": poses,
            "azimuth": np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
        }
        writer.append("train", images, None, extras=extras)
        writer.finish(name="any", source="drawn", licence="none", task="multi-object", split_rule="drawn")
    return PackedDataset(folder, "train")


def test_scenes_are_runs_of_one_number(tmp_path: Path) -> None:
    scenes = SceneViews(write(tmp_path / "a", [7, 7, 7, 2, 2, 2, 2]))
    assert len(scenes) == 2
    assert scenes.counts.tolist() == [3, 4]
    views = scenes.views([1, 0], np.array([[3, 0], [1, 2]]))
    assert views.image[:, :, 0, 0, 0].tolist() == [[6, 3], [1, 2]]
    assert views.camera.shape == (2, 2, 4, 4)
    assert not scenes.has_masks


def test_too_few_views_are_named(tmp_path: Path) -> None:
    data = write(tmp_path / "a", [7, 7, 7, 2, 2])
    with pytest.raises(RecipeError, match=r"scene 2 of .* has 2 views, and 1 of 2 scenes have fewer than 3"):
        SceneViews(data, least=3)


def test_images_without_cameras_are_refused(packed: Path) -> None:
    with pytest.raises(InputError, match=r"has no scene and no camera and no azimuth.*--data.scene-views 4"):
        SceneViews(PackedDataset(packed, "train"))


@pytest.mark.parametrize("wrong", ["singular", "nan"])
def test_a_camera_that_is_no_pose_is_refused(tmp_path: Path, wrong: str) -> None:
    camera = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    camera[1, 0, 0] = 0 if wrong == "singular" else np.nan
    with pytest.raises(InputError, match=r"the camera of image 1 .* is singular or not finite"):
        SceneViews(write(tmp_path / "a", [0, 0, 0], camera))


def test_draws_depend_on_the_place_and_step_alone() -> None:
    alone = draw_views([4], 3, seed=1, step=5, positions=[2])
    among = draw_views([4, 4, 4], 3, seed=1, step=5, positions=[1, 2, 3])
    assert (among[1] == alone[0]).all()
    assert all(len(set(row)) == 3 for row in among.tolist())
    others = [draw_views([100], 3, seed=1, step=step, positions=[2]).tolist() for step in range(5)]
    assert len(set(map(str, others))) == 5


def test_rays_are_pixels_of_any_view_each_once() -> None:
    rays = draw_rays(50, views=2, size=5, seed=0, step=0, positions=[0, 1])
    assert rays.shape == (2, 50, 3)
    for scene in rays.tolist():
        assert len(set(map(tuple, scene))) == 50
    assert rays.max(axis=(0, 1)).tolist() == [1, 4, 4]
    with pytest.raises(ValueError, match="larger"):
        draw_rays(51, views=2, size=5, seed=0, step=0, positions=[0])


def test_corners_reach_every_place_but_the_last() -> None:
    corners = np.concatenate([draw_corners(3, seed=0, step=step, positions=[0]) for step in range(200)])
    assert set(map(tuple, corners.tolist())) == {(row, column) for row in range(3) for column in range(3)}


def test_a_set_of_one_view_each_is_the_plain_one_with_a_camera(packed_views: Path) -> None:
    scenes = SceneViews(PackedDataset(packed_views, "val"), least=3)
    masks = scenes.masks([0, 1], np.array([[0], [2]]))
    assert masks.shape == (2, 1, 16, 16)
    assert masks.dtype == torch.int64
