"""Baselines on pictures where the answer is known."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from boqsa.inference.load import build_model
from boqsa.metrics import best_slot_overlap
from boqsa.recipes import EvaluateRecipe, Recipe
from boqsa.training.baseline import baselines, centre_disc, halves, k_means_segmentation
from boqsa.training.evaluation import evaluate, headline

FOREGROUND = EvaluateRecipe(task="foreground", select_by="iou")
INSTANCES = EvaluateRecipe(task="instances", select_by="ap")


class Images:
    """Masks (N, 16, 16) with their objects in white on black; `has_masks` is always true."""

    has_masks = True

    def __init__(self, masks: torch.Tensor) -> None:
        self.masks = masks.long()

    def __len__(self) -> int:
        return len(self.masks)

    def batch(self, indices) -> dict[str, torch.Tensor]:
        mask = self.masks[torch.as_tensor(indices)]
        return {"image": (mask[:, None] * 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous(), "mask": mask}


def test_two_colours_are_two_clusters() -> None:
    image = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    image[:, 0, :, 6:] = 255
    labels = k_means_segmentation(image, clusters=2, position_weight=0.5)
    assert labels.shape == (1, 12, 12)
    assert labels.dtype == torch.int64
    assert adjusted_rand_score(image[0, 0].flatten().numpy(), labels[0].flatten().numpy()) == 1.0


def test_an_image_of_one_colour_is_cut_by_position(recwarn) -> None:
    labels = k_means_segmentation(torch.full((1, 3, 12, 12), 7, dtype=torch.uint8), clusters=4, position_weight=1.0)
    assert len(labels.unique()) == 4
    assert not recwarn.list


def test_the_same_seed_gives_the_same_labels_whatever_stands_beside(squares: Callable) -> None:
    images = torch.from_numpy(squares(3, seed=0)[0])
    both = k_means_segmentation(images, clusters=4, position_weight=1.0, seed=5)
    alone = k_means_segmentation(images[:1], clusters=4, position_weight=1.0, seed=5)
    assert torch.equal(both[:1], alone)


def test_fewer_colours_than_clusters_is_no_fault(recwarn) -> None:
    image = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    image[:, 0, :, 6:] = 255
    labels = k_means_segmentation(image, clusters=4, position_weight=0.0)[0]
    assert len(labels[:, :6].unique()) == len(labels[:, 6:].unique()) == 1
    assert labels[0, 0] != labels[0, 6]
    assert not recwarn.list


def test_heavy_position_ignores_colour() -> None:
    generator = np.random.default_rng(0)
    noise = torch.from_numpy(generator.integers(0, 256, (1, 3, 16, 16), dtype=np.uint8))
    labels = k_means_segmentation(noise, clusters=2, position_weight=1000.0)[0]
    # Two clusters of positions alone are two connected halves: few neighbours differ.
    borders = (labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum()
    assert borders <= 32


def test_halves_and_discs_by_hand() -> None:
    cut = halves(4, 6)
    assert cut["left and right"].tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    assert cut["top and bottom"].tolist() == [[0] * 6] * 2 + [[1] * 6] * 2
    disc = centre_disc(5, 5, 0.5)  # 1.25 pixels around the middle one
    assert disc.tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_each_baseline_is_perfect_where_the_pictures_are_made_for_it(recipe: Recipe, changed: Callable) -> None:
    two = changed(recipe, model={"num_slots": 2})
    lower = halves(16, 16)["top and bottom"].expand(3, 16, 16)
    found = baselines(Images(lower), two, FOREGROUND)
    assert list(found) == ["half_splits", "centre_prior", "k_means", "untrained"]
    assert found["half_splits"]["iou"] == found["half_splits"]["dice"] == 1.0
    assert found["half_splits"]["cut"] == "top and bottom"
    assert found["k_means"]["iou"] == 1.0
    assert found["centre_prior"]["iou"] < 0.9
    disc = baselines(Images(centre_disc(16, 16, 0.7).expand(3, 16, 16)), two, FOREGROUND)
    assert (disc["centre_prior"]["iou"], disc["centre_prior"]["radius"]) == (1.0, 0.7)
    assert disc["half_splits"]["iou"] < 0.5
    for baseline in found.values():
        assert "oracle slot" in baseline["what"]


def test_the_slot_of_a_baseline_is_chosen_in_each_image(recipe: Recipe) -> None:
    upper = 1 - halves(16, 16)["top and bottom"]
    both = Images(torch.stack([upper, 1 - upper]))
    assert baselines(both, recipe, FOREGROUND)["half_splits"]["iou"] == 1.0


def test_a_set_is_scored_whole_and_not_by_its_first_pieces(recipe: Recipe) -> None:
    """More images than are looked at together: the mean is over all of them."""
    left = 1 - halves(16, 16)["left and right"]
    quarter = left * (1 - halves(16, 16)["top and bottom"])
    split = Images(torch.cat([left.expand(200, 16, 16), quarter.expand(50, 16, 16)]))
    direct = best_slot_overlap(left.expand(250, 16, 16), split.masks).iou.mean()
    assert baselines(split, recipe, FOREGROUND)["half_splits"]["iou"] == float(direct)


def test_the_untrained_model_is_the_one_that_training_begins_with(recipe: Recipe, squares: Callable) -> None:
    split = Images(torch.from_numpy(squares(6, seed=1)[1]).clamp(max=1))
    torch.manual_seed(recipe.seed)
    fresh = build_model(recipe)
    before = torch.get_rng_state()
    for protocol in (FOREGROUND, INSTANCES):
        untrained = dict(baselines(split, recipe, protocol)["untrained"])
        assert "fresh weights" in untrained.pop("what")
        expected = headline(evaluate(fresh, split, protocol))
        np.testing.assert_equal(untrained, expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(baselines(split, recipe, INSTANCES)) == ["untrained"]


def test_many_objects_have_k_means_alone(recipe: Recipe, squares: Callable) -> None:
    found = baselines(Images(torch.from_numpy(squares(4, seed=2)[1])), recipe, recipe.evaluate)
    assert list(found) == ["k_means"]
    assert found["k_means"]["position_weight"] in (0.5, 1.0, 2.0)
