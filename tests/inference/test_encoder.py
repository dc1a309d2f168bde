"""The frozen encoder by name, attached to a model that was loaded; and pictures through both."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from boqsa import Segmenter
from boqsa.atomic import write_text
from boqsa.data.resample import resize_image
from boqsa.errors import InputError
from boqsa.inference import attach_encoder, load, load_encoder, segment_files
from boqsa.inference import encoder as encoder_module
from boqsa.inference.export import ExportedModel
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, write_checkpoint
from boqsa.models import FeaturesModel
from boqsa.models.adaptive import needed_slots
from boqsa.recipes import DataRecipe, FeaturesRecipe, Recipe

SIZES = FeaturesRecipe(
    patch_size=4, feature_size=16, num_slots=3, slot_size=8, mlp_size=12, decoder_size=20, decoder_layers=1
)


@pytest.fixture
def place(encoder_folder: Path, tmp_path: Path) -> Path:
    """A copy of the encoder, which a test may move."""
    return Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))


@pytest.fixture
def features_run(place: Path, tmp_path: Path) -> Path:
    """A run whose features were of that encoder."""
    model = replace(SIZES, encoder=str(place), encoder_sha256=load_encoder(place).sha256)
    recipe = Recipe(name="tiny", data=DataRecipe(name="folder", image_size=16), model=model)
    torch.manual_seed(0)
    run = tmp_path / "run"
    built = build_model(recipe)
    write_checkpoint(run / CHECKPOINTS / "last", built, config=model_config(recipe), step=1, recipe_hash=recipe.hash)
    write_text(run / RECIPE, recipe.to_json())
    return run


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)


def test_a_picture_is_segmented_by_the_encoder_where_it_was(features_run: Path, picture: np.ndarray) -> None:
    segmenter = Segmenter.from_pretrained(features_run)
    found = segmenter.predict(picture)
    assert found.labels.shape == (40, 24)
    assert found.reconstruction is None
    assert found.masks.shape == (3, 16, 16)
    np.testing.assert_allclose(found.masks.sum(axis=0), 1, rtol=1e-5)
    assert found.overlay().shape == picture.shape
    # The same masks as from the features of the picture at the model's size.
    small = torch.from_numpy(resize_image(picture, (16, 16)).transpose(2, 0, 1).copy())[None]
    model = load(features_run)
    features = load_encoder(load(features_run).encoder_name)(small)
    np.testing.assert_array_equal(found.masks, model(features).masks[0, :, 0].detach().numpy())


@pytest.mark.parametrize("decoder", ["mlp", "autoregressive"])
def test_adaptive_masks_are_those_of_the_needed_slots(
    place: Path, picture: np.ndarray, decoder: Literal["mlp", "autoregressive"]
) -> None:
    torch.manual_seed(0)
    sizes = replace(SIZES, decoder=decoder, blocks=2, heads=2)
    model = build_model(Recipe(name="tiny", data=DataRecipe(name="folder", image_size=16), model=sizes))
    assert isinstance(model, FeaturesModel)
    attach_encoder(model, place)
    found = Segmenter(model, adaptive=True).predict(picture)
    small = torch.from_numpy(resize_image(picture, (16, 16)).transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        needed = needed_slots(model(small), small.float() / 255, model)  # of images as of their features
    assert not needed.is_needed.all()  # or it would prove nothing
    np.testing.assert_allclose(found.masks, needed.masks[0, :, 0].numpy(), atol=1e-6)  # uint8 is scaled by the encoder


def test_the_encoder_may_have_moved(features_run: Path, place: Path, tmp_path: Path, picture: np.ndarray) -> None:
    before = Segmenter.from_pretrained(features_run).predict(picture)
    moved = place.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"is not at .*encoder any more; name its folder with --encoder DIR"):
        Segmenter.from_pretrained(features_run)
    after = Segmenter.from_pretrained(features_run, encoder=moved).predict(picture)
    np.testing.assert_array_equal(before.masks, after.masks)


def test_another_encoder_is_refused(features_run: Path, make_encoder: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="has weights of sha256"):
        Segmenter.from_pretrained(features_run, encoder=make_encoder(seed=1))


def test_a_model_without_its_encoder_says_how_to_get_one(features_run: Path, place: Path) -> None:
    model = load(features_run)
    assert isinstance(model, FeaturesModel)
    with pytest.raises(InputError, match=r"give it one by boqsa.inference.attach_encoder\(model, DIR\)"):
        Segmenter(model)
    attach_encoder(model, place)
    Segmenter(model)
    model.encoder_name = None
    with pytest.raises(InputError, match="does not know where its encoder is; name its folder"):
        attach_encoder(model)


def test_only_features_models_have_an_encoder(run: Path, encoder_folder: Path) -> None:
    with pytest.raises(InputError, match="is no features model and has no encoder; leave --encoder out"):
        Segmenter.from_pretrained(run, encoder=encoder_folder)


def test_a_name_on_the_hub(
    features_run: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def download(name: str, *, expected: str) -> Path:
        asked.append(name)
        return encoder_folder

    monkeypatch.setattr(encoder_module, "download", download)
    monkeypatch.chdir(tmp_path)
    found = load_encoder("owner/name@abc")
    assert asked == [found.name] == ["owner/name@abc"]
    assert found.sha256 == load(features_run).encoder_sha256


def test_files_are_segmented_and_not_again(features_run: Path, tmp_path: Path, zoo: dict[str, Path]) -> None:
    segmenter = Segmenter.from_pretrained(features_run)
    done, skipped = segment_files(segmenter, [zoo["colours.jpg"], zoo["ribbon.png"]], tmp_path / "out")
    assert [entry.is_new for entry in done] == [True, True]
    assert not skipped
    done, _ = segment_files(segmenter, [zoo["colours.jpg"]], tmp_path / "out")
    assert not done[0].is_new


def test_a_saved_model_knows_its_encoder(features_run: Path, place: Path, tmp_path: Path) -> None:
    load(features_run).save_pretrained(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert isinstance(loaded, FeaturesModel)
    assert (loaded.encoder_name, loaded.encoder_sha256) == (str(place), load_encoder(place).sha256)
    Segmenter.from_pretrained(tmp_path / "saved")


def test_no_graph_is_exported(features_run: Path) -> None:
    with pytest.raises(InputError, match="needs its frozen encoder, which is not exported"):
        ExportedModel(Segmenter.from_pretrained(features_run))
