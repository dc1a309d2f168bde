"""Scores of views: which views count for what, the published NV-ARI beside the mean, what is not computed."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.inference.load import build_model
from boqsa.metrics import adjusted_rand_index, psnr, ssim
from boqsa.models.radiance import Found, RadianceModel, Seen, photographs
from boqsa.recipes import Recipe
from boqsa.training import evaluate
from boqsa.training.view_evaluation import evaluate_views, labels_at
from boqsa.training.views import SceneViews


@pytest.fixture
def model(radiance_recipe: Recipe) -> RadianceModel:
    torch.manual_seed(0)
    found = build_model(radiance_recipe)
    assert isinstance(found, RadianceModel)
    return found


class Perfect(RadianceModel):
    """Renders the photographs, and masks that are right in the first two views and one slot in the third."""

    truth: Tensor

    def look(self, views: Any, **_: Any) -> tuple[Found, Seen]:
        image = photographs(views.image, 16)
        one_hot = torch.nn.functional.one_hot(self.truth.clamp(min=0), 3).permute(0, 1, 4, 2, 3).float()
        one_hot[:, 2] = torch.tensor([1.0, 0, 0])[:, None, None]
        slots = torch.randn(1, 3, 8)
        seen = Seen(image, image[:, :, 0], one_hot, image[:, :, None].expand(-1, -1, 3, -1, -1, -1))
        return Found(slots, slots, torch.zeros(1, 3, 4)), seen


def perfect(split: PackedDataset) -> Perfect:
    model = Perfect(input_size=16, num_slots=3, slot_size=8)
    model.truth = SceneViews(split).masks([0], np.arange(3)[None])
    return model


def test_input_and_novel_views_are_scored_apart(validation_views: PackedDataset, radiance_recipe: Recipe) -> None:
    scores = evaluate_views(perfect(validation_views), validation_views, radiance_recipe.evaluate, limit=1)
    masks = scores["decoder_masks"]
    assert masks["ari"] == masks["ari_fg"] == 1
    assert masks["nv_ari_last"] == pytest.approx(0, abs=1e-9)
    assert masks["nv_ari"] == pytest.approx(0.5)
    assert masks["nv_ari_fg"] == pytest.approx(0.5)
    assert scores["images"] == 1
    assert scores["loss"] == 0
    assert scores["novel_views"]["psnr"] == pytest.approx(80)
    assert scores["novel_views"]["ssim"] == pytest.approx(1)
    assert scores["novel_views"]["mse"] == 0


def test_the_mean_image_of_the_split_is_a_baseline(
    model: RadianceModel, validation_views: PackedDataset, radiance_recipe: Recipe
) -> None:
    scores = evaluate_views(model, validation_views, radiance_recipe.evaluate)
    scenes = SceneViews(validation_views)
    image = photographs(scenes.views([0, 1], np.arange(3)[None].repeat(2, axis=0)).image, 16)
    novel = image[:, 1:].flatten(0, 1)
    mean = image.flatten(0, 1).mean(dim=0).expand_as(novel)
    assert scores["novel_views"]["psnr_of_mean_image"] == pytest.approx(float(psnr(mean, novel).mean()), rel=1e-5)


def test_lpips_without_weights_is_none_and_with_them_a_number(
    validation_views: PackedDataset, radiance_recipe: Recipe
) -> None:
    class Half(torch.nn.Module):
        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return torch.full((len(one),), 0.5)

    model = perfect(validation_views)
    without = evaluate_views(model, validation_views, radiance_recipe.evaluate, limit=1)
    assert without["novel_views"]["lpips"] is None
    with_it = evaluate_views(model, validation_views, radiance_recipe.evaluate, limit=1, lpips=Half())
    assert with_it["novel_views"]["lpips"] == 0.5


def test_scores_are_those_of_the_functions(
    model: RadianceModel, validation_views: PackedDataset, radiance_recipe: Recipe
) -> None:
    scores = evaluate(model, validation_views, radiance_recipe.evaluate)
    assert not hasattr(scores, "attention_masks")
    scenes = SceneViews(validation_views)
    chosen = np.arange(3)[None].repeat(2, axis=0)
    views = scenes.views([0, 1], chosen)
    _, seen = model.look(views, size=16, samples=6)
    image, true = photographs(views.image, 16), scenes.masks([0, 1], chosen)
    novel = (seen.image[:, 1:].flatten(0, 1), image[:, 1:].flatten(0, 1))
    assert scores["novel_views"]["psnr"] == pytest.approx(float(psnr(*novel).mean()), rel=1e-5)
    assert scores["novel_views"]["ssim"] == pytest.approx(float(ssim(*novel).mean()), rel=1e-4)
    index = adjusted_rand_index(seen.segmentation()[:, 0], true[:, 0])
    assert scores["decoder_masks"]["ari"] == pytest.approx(float(index.mean()), rel=1e-5)
    assert scores["loss"] == pytest.approx(float(4 * (seen.image - image).square().mean()), rel=1e-5)
    assert scores["diagnostics"]["model"] == "radiance"
    assert model.training


def test_progress_and_limit(model: RadianceModel, validation_views: PackedDataset, radiance_recipe: Recipe) -> None:
    told: list[tuple[int, int]] = []
    protocol = radiance_recipe.evaluate
    evaluate_views(model, validation_views, protocol, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_slots_of_its_own_alone(model: RadianceModel, validation_views: PackedDataset, radiance_recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="its own slots"):
        evaluate(model, validation_views, radiance_recipe.evaluate, num_slots=5)


def test_labels_take_the_nearest_pixel() -> None:
    mask = torch.tensor([[[[1, 2], [3, -1]]]])
    assert labels_at(mask, 4)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, -1, -1], [3, 3, -1, -1]]
    assert labels_at(mask, 2) is mask
