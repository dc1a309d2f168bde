"""Radiance models as a user of the command line meets them: what a run gives, what is missing, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boqsa.commands import main
from boqsa.data import PackedDataset
from boqsa.inference import load
from boqsa.inference.novel_views import SceneViewer, frames, orbit
from boqsa.models.radiance import RadianceModel
from boqsa.models.radiance.pretrained import LPIPS
from boqsa.recipes import Recipe
from boqsa.training.loop import train


@pytest.fixture(scope="module")
def trained(radiance_recipe: Recipe, packed_views: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe's run; its views are scored at 32 pixels, the fewest that LPIPS takes."""
    run = tmp_path_factory.mktemp("trained") / "run"
    protocol = replace(radiance_recipe.evaluate.radiance, size=32)
    recipe = replace(radiance_recipe, evaluate=replace(radiance_recipe.evaluate, radiance=protocol))
    data = {name: PackedDataset(packed_views, split) for name, split in (("train", "train"), ("validation", "val"))}
    assert train(recipe, run, train_data=data["train"], validation_data=data["validation"])
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to write into."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def picture(tmp_path: Path, validation_views: PackedDataset) -> Path:
    """A photograph of a scene that the run did not see, enlarged and wide."""
    path = tmp_path / "scene.png"
    photograph = validation_views[0]["image"].permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(photograph).resize((30, 20)).save(path)
    return path


SMALL = ["scenes_radiance_small", "--train.steps", "1", "--data.scene-count", "1"]
"""So that a test whose refusal does not come fails at once."""

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """`refused(arguments)` is the one line with which a command exits with 2; it leaves every file as it was."""
    monkeypatch.setenv("BOQSA_CACHE", str(tmp_path / "cache"))  # built-in scenes would be rendered into it

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() if path.is_file() else b"" for path in tmp_path.rglob("*")}

    def refuse(arguments: list[str]) -> str:
        before = content()
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert content() == before
        return printed.err.removesuffix("\n")

    return refuse


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--model.near", "12"], "model.near is 12.0 and model.far is 11.5; near must be in front of far."),
        (["--model.far", "3"], "model.near is 3.0 and model.far is 3.0; near must be in front of far."),
        (
            ["--model.box-bottom", "2.3"],
            "the objects' box is from z = 2.3 (model.box_bottom) up to 2.3 (model.box_top); give finite heights in "
            "world units, the top above the bottom.",
        ),
        (
            ["--model.box-top", "-1"],
            "the objects' box is from z = -0.5 (model.box_bottom) up to -1.0 (model.box_top); give finite heights in "
            "world units, the top above the bottom.",
        ),
        (
            ["--model.box-bottom", "nan"],
            "the objects' box is from z = nan (model.box_bottom) up to 2.3 (model.box_top); give finite heights in "
            "world units, the top above the bottom.",
        ),
    ],
    ids=["near", "far", "bottom", "top", "nan"],
)
def test_a_space_that_is_inside_out_is_refused(options: list[str], line: str, refused: Refused, tmp_path: Path) -> None:
    said = refused(["train", *SMALL, *options, "--out", str(tmp_path / "run")])
    assert said == f"boqsa train: {line}"


SMALL_WITH_IT = [*SMALL, "--train.radiance.rays", "0", "--train.radiance.perceptual-weight", "0.006"]
SMALL_WITH_IT += ["--train.radiance.perceptual-from", "0"]


@pytest.mark.parametrize("recipe", [["clevr567_radiance"], SMALL_WITH_IT], ids=["published", "small"])
def test_training_without_the_perceptual_losses_weights_is_refused(
    recipe: list[str], refused: Refused, tmp_path: Path
) -> None:
    """Before anything else: data of the published recipes are not there either."""
    assert refused(["train", *recipe, "--out", str(tmp_path / "run")]) == (
        "boqsa train: the perceptual loss needs VGG16's ImageNet weights, which are not downloaded: pass "
        "--train.radiance.perceptual-file FILE, a state dictionary with torchvision's names; or train without it, by "
        "--train.radiance.perceptual-weight 0."
    )


wrong_files = pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read {}: No such file"),
        (b"no weights", "{} holds more than weights"),
        ({"a": torch.zeros(1)}, "have no features.0"),
    ],
    ids=["absent", "no weights", "other weights"],
)
"""Of weights, and what is said of each."""


@wrong_files
def test_training_with_a_wrong_file_of_these_weights_is_refused(
    content: Any, words: str, refused: Refused, tmp_path: Path
) -> None:
    path = written(tmp_path / "vgg16.pth", content)
    typed = ["train", *SMALL_WITH_IT, "--train.radiance.perceptual-file", str(path), "--out", str(tmp_path / "run")]
    assert words.format(path) in refused(typed)


def written(path: Path, content: Any) -> Path:
    """A file of these bytes or weights; None makes none."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    return path


def lpips_of(run: Path) -> dict[str, Any]:
    scores = json.loads((run / "metrics.json").read_text())["scores"]
    return {checkpoint: values["novel_views"]["lpips"] for checkpoint, values in scores.items()}


def test_lpips_without_its_weights_is_not_computed_and_the_rest_is(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "lpips not computed" in printed
    assert printed.count("not computed") == 1
    assert lpips_of(run) == {"last": None, "best_loss": None, "best_ari_fg": None}
    metrics = json.loads((run / "metrics.json").read_text())
    assert "lpips_sha256" not in metrics
    assert metrics["dataset"]["mask_size"] == [32, 32], "of the views, which are rendered at this size"
    others = {name: value for name, value in metrics["scores"]["last"]["novel_views"].items() if name != "lpips"}
    assert set(others) == {"psnr", "ssim", "mse", "psnr_of_mean_image"}
    assert all(isinstance(value, float) for value in others.values())
    assert main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["last"]["novel_views"]["lpips"] is None


def test_lpips_with_its_weights_is_computed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    weights = LPIPS(None).state_dict()
    files = [
        written(tmp_path / f"{start}.pth", {name: value for name, value in weights.items() if name.startswith(start)})
        for start in ("features", "lin")
    ]
    assert main(["evaluate", str(run), "--lpips", *map(str, files)]) == 0
    printed = capsys.readouterr().out
    assert "not computed" not in printed
    assert all(isinstance(value, float) for value in lpips_of(run).values())
    assert f"lpips {lpips_of(run)['last']:.5g}" in printed


@wrong_files
def test_scoring_with_a_wrong_file_of_lpips_is_refused(
    content: Any, words: str, refused: Refused, run: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "lpips.pth", content)
    assert words.format(path) in refused(["evaluate", str(run), "--lpips", str(path)])


def test_pictures_are_split_as_seen_from_where_training_looked(
    run: Path, picture: Path, train_views: PackedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    assert main(["segment", str(run), str(picture), "--out", str(out)]) == 0
    assert f"{picture}: {out / 'scene_overlay.png'}" in capsys.readouterr().out
    model = load(run)
    assert isinstance(model, RadianceModel)
    camera = torch.from_numpy(np.array(train_views.extra("camera")[0]))
    torch.testing.assert_close(model.typical_camera, camera)
    image = np.asarray(Image.open(picture).resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    expected = model.segment(torch.from_numpy(image.copy())[None])
    with np.load(out / "scene.npz") as arrays:
        np.testing.assert_allclose(arrays["masks"], expected.masks[0, :, 0].numpy(), atol=1e-6)
        np.testing.assert_allclose(arrays["slots"], expected.slots[0].detach().numpy(), atol=1e-6)
        labels = arrays["labels"]
    assert labels.shape == (20, 30)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "scene_labels.png")), labels)


def test_the_scene_of_a_picture_is_shown_from_an_orbit(
    run: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    options = ["--views", "3", "--degrees", "90", "--size", "8", "--samples", "5", "--move", "2=0.5,0,0"]
    assert main(["render", str(run), str(picture), "--out", str(out), *options]) == 0
    assert f"{out}: 3 views; from left to right colour, depth, background, slot 1, slot 2." in capsys.readouterr().out
    viewer = SceneViewer(load(run), size=8, samples=5)
    scene = viewer.find(picture)
    scene = scene._replace(moved=torch.tensor([[0, 0, 0], [0, 0, 0], [0.5, 0, 0]]))
    expected = frames(viewer.views(scene, orbit(scene.camera, 3, degrees=90)))
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (3 * 8, 5 * 8, 3)
    np.testing.assert_array_equal(sheet, np.concatenate(expected))
    assert np.ptp(sheet) > 0
