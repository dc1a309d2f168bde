"""New views of one picture: orbits, poses beside it, scenes that are changed, films."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from boqsa.commands import main
from boqsa.errors import InputError
from boqsa.inference import Segmenter
from boqsa.inference.novel_views import Scene, SceneViewer, frames, orbit, with_moved, with_slot_of, without
from boqsa.models import MixtureModel
from boqsa.models.radiance import RadianceModel
from boqsa.reports.film import write_film


def pose() -> Tensor:
    """Nine away from the vertical axis, five up, looking at the origin."""
    position = torch.tensor([9.0, 0.0, 5.0])
    forward = -position / position.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]))
    right = right / right.norm()
    camera = torch.eye(4)
    camera[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    camera[:3, 3] = position
    return camera


@pytest.fixture
def radiance() -> RadianceModel:
    torch.manual_seed(0)
    model = RadianceModel(input_size=16, num_slots=3, slot_size=8, near=4.0, far=16.0, scene_scale=4.0, box=3.0)
    model.typical_camera.copy_(pose())
    return model.eval()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def viewer(radiance: RadianceModel) -> SceneViewer:
    return SceneViewer(radiance, size=8, samples=6)


def test_an_orbit_keeps_height_and_distance_and_comes_back() -> None:
    camera = pose()
    cameras = orbit(camera, 8, degrees=60)
    torch.testing.assert_close(cameras[0], camera)
    torch.testing.assert_close(cameras[:, 2, 3], torch.full((8,), 5.0))
    torch.testing.assert_close(cameras[:, :2, 3].norm(dim=1), torch.full((8,), 9.0))
    angles = torch.atan2(cameras[:, 1, 3], cameras[:, 0, 3])
    assert angles.max().item() == pytest.approx(math.radians(30))
    assert angles.min().item() == pytest.approx(-math.radians(30))
    torch.testing.assert_close(cameras[4], camera, rtol=0, atol=1e-5)
    for turned in cameras:  # each still looks at the vertical axis
        centre = torch.linalg.inv(turned) @ torch.tensor([0.0, 0.0, 0.0, 1.0])
        torch.testing.assert_close(centre[:2], torch.zeros(2), rtol=0, atol=1e-4)


def test_a_whole_orbit_goes_round() -> None:
    cameras = orbit(pose(), 4, degrees=360)
    torch.testing.assert_close(cameras[2, :3, 3], torch.tensor([-9.0, 0.0, 5.0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("count", "degrees"), [(0, 60.0), (10_001, 60.0), (3, 0.0), (3, 361.0), (3, float("nan"))])
def test_orbits_that_cannot_be_are_refused(count: int, degrees: float) -> None:
    with pytest.raises(InputError):
        orbit(pose(), count, degrees=degrees)


def test_a_picture_without_a_pose_is_seen_from_where_training_looked(viewer: SceneViewer, picture: Path) -> None:
    scene = viewer.find(picture)
    torch.testing.assert_close(scene.camera, pose())
    seen = viewer.views(scene, scene.camera[None])
    assert seen.image.shape == (1, 1, 3, 8, 8)
    again = viewer.views(viewer.find(picture), scene.camera[None])
    torch.testing.assert_close(again.image, seen.image, rtol=0, atol=0)


def test_a_pose_beside_the_picture_is_used(viewer: SceneViewer, picture: Path) -> None:
    other = orbit(pose(), 4, degrees=360)[1]
    np.savetxt(picture.with_name("scene_RT.txt"), other.numpy())
    torch.testing.assert_close(viewer.find(picture).camera, other, rtol=0, atol=1e-5)
    without_azimuth = viewer.find(picture).frame
    np.savetxt(picture.with_name("scene_azi_rot.txt"), np.eye(3))
    turned = viewer.find(picture).frame
    assert (turned - without_azimuth).abs().max() > 0.1
    np.savetxt(picture.with_name("elsewhere.txt"), pose().numpy())
    named = viewer.find(picture, pose=picture.with_name("elsewhere.txt"))
    torch.testing.assert_close(named.camera, pose(), rtol=0, atol=1e-5)


def test_segmenting_works_as_with_any_model(radiance: RadianceModel, picture: Path) -> None:
    found = Segmenter(radiance).predict(picture)
    assert found.labels.shape == (20, 30)
    assert found.labels.max() < 3
    np.testing.assert_allclose(found.masks.sum(axis=0), 1, atol=1e-5)


def test_changes_of_a_scene(viewer: SceneViewer, picture: Path) -> None:
    scene = viewer.find(picture)
    assert without(scene, [1]).num_slots == 2
    torch.testing.assert_close(without(scene, [1]).slots[:, 1], scene.slots[:, 2])
    moved = with_moved(with_moved(scene, {2: (1, 0, 0)}), {2: (0, 0, 0.5)})
    assert moved.moved.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0.5]]
    assert scene.moved.abs().max() == 0
    other = scene._replace(slots=torch.randn(1, 3, 8))
    swapped = with_slot_of(scene, 1, other, 2)
    torch.testing.assert_close(swapped.slots[:, 1], other.slots[:, 2])
    torch.testing.assert_close(swapped.slots[:, [0, 2]], scene.slots[:, [0, 2]])
    cameras = scene.camera[None]
    plain, after = viewer.views(scene, cameras), viewer.views(moved, cameras)
    assert (plain.slot_masks[:, :, 2] - after.slot_masks[:, :, 2]).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scene: without(scene, [3]), "no slot 3; the scene has 0 to 2"),
        (lambda scene: without(scene, [0]), "slot 0 is the background"),
        (lambda scene: with_moved(scene, {5: (0, 0, 0)}), "no slot 5"),
        (lambda scene: with_moved(scene, {1: (0, 0)}), "give x, y and z"),
        (lambda scene: with_moved(scene, {1: (0, 0, float("inf"))}), "give x, y and z"),
        (lambda scene: with_slot_of(scene, 0, scene, 1), "can only be exchanged for a background"),
    ],
    ids=["no such slot", "background", "moved nothing", "two numbers", "infinite", "background for object"],
)
def test_changes_that_cannot_be_are_refused(change, words: str, viewer: SceneViewer, picture: Path) -> None:
    scene: Scene = viewer.find(picture)
    with pytest.raises(InputError, match=words):
        change(scene)


def test_other_models_have_no_space(radiance: RadianceModel) -> None:
    with pytest.raises(InputError, match="a MixtureModel has no space"):
        SceneViewer(MixtureModel())
    with pytest.raises(InputError, match="size is 4"):
        SceneViewer(radiance, size=4)


def test_frames_have_a_tile_for_colour_depth_and_each_slot(viewer: SceneViewer, picture: Path) -> None:
    scene = viewer.find(picture)
    pictures = frames(viewer.views(scene, orbit(scene.camera, 3)))
    assert len(pictures) == 3
    assert pictures[0].shape == (8, 8 * 5, 3)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_films_are_whole_and_sheets_have_a_row_each(suffix: str, tmp_path: Path) -> None:
    pictures = [np.full((4, 6, 3), 60 * index, np.uint8) for index in range(3)]
    path = tmp_path / f"film{suffix}"
    write_film(path, pictures)
    with Image.open(path) as opened:
        if suffix == ".png":
            assert opened.size == (6, 12)
        else:
            assert opened.n_frames == 3
            assert opened.size == (6, 4)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with pytest.raises(InputError, match=r"give .gif, .webp or .png"):
        write_film(tmp_path / "film.mp4", pictures)


def test_the_command_writes_a_film_and_says_what_is_where(
    radiance: RadianceModel,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, out = tmp_path / "saved", tmp_path / "film.webp"
    radiance.save_pretrained(run)
    options = ["--views", "2", "--size", "8", "--samples", "4", "--move", "1=0.5,0,0", "--take", f"0={picture}"]
    assert main(["render", str(run), str(picture), "--out", str(out), *options, "--remove", "1"]) == 0
    assert "2 views; from left to right colour, depth, background, slot 2." in capsys.readouterr().out
    with Image.open(out) as opened:
        assert opened.size == (4 * 8, 8)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["render", str(run), str(picture), *options[:6]]) == 0
    assert [path.name for path in (tmp_path / "here").iterdir()] == [f"{picture.stem}_views.webp"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "film.mp4"], "--out is film.mp4; give a file that ends in .gif, .webp, .png"),
        (["--out", "film.gif", "--move", "1=a"], "give SLOT=X,Y,Z, as 1=0.5,0,0"),
        (["--out", "film.gif", "--take", "1"], "give SLOT=IMAGE or SLOT=IMAGE:SLOT"),
        (["--out", "film.gif", "--take", "1=none.png"], "none.png does not exist"),
        (["--out", "film.gif", "--camera", "none.txt"], "cannot read none.txt"),
        (["--out", "film.gif", "--views", "0"], "the number of views is 0"),
    ],
    ids=["suffix", "move", "take", "missing picture", "missing pose", "no views"],
)
def test_wrong_input_is_one_line_and_leaves_no_file(
    options: list[str],
    words: str,
    radiance: RadianceModel,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    radiance.save_pretrained(tmp_path / "saved")
    assert main(["render", "saved", str(picture), *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("*film*"))
