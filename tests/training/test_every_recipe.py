"""Every recipe of the catalog prints, builds and takes two steps on the CPU; those on views: `radiance/`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from boqsa.inference.load import build_model
from boqsa.recipes import RECIPES, FeaturesRecipe, Recipe, get_recipe
from boqsa.training.step import TrainStep


class _Noise:
    """Two random images, or the random features of two."""

    def __init__(self, recipe: Recipe) -> None:
        generator, size = torch.Generator().manual_seed(0), recipe.data.image_size
        self.taken = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=generator)
        if isinstance(recipe.model, FeaturesRecipe):
            patches = (size // recipe.model.patch_size) ** 2
            self.taken = torch.randn(2, patches, recipe.model.feature_size, generator=generator).half()

    def __len__(self) -> int:
        return len(self.taken)

    def batch(self, indices: object) -> Tensor:
        return self.taken[np.asarray(indices)]


@pytest.mark.parametrize("name", [name for name, make in RECIPES.items() if make().model.kind != "radiance"])
def test_a_recipe_prints_builds_and_takes_two_steps(name: str) -> None:
    recipe = get_recipe(name)
    assert Recipe.from_json(recipe.to_json()) == recipe
    train = replace(recipe.train, batch_size=1, accumulate=1, warmup_steps=0, device="cpu", threads=1)
    torch.manual_seed(0)
    step = TrainStep(replace(recipe, train=train), build_model(recipe))
    images = _Noise(recipe)
    before = [weights.detach().clone() for weights in step.plain_model.parameters()]
    results = [step(images, number) for number in range(2)]
    assert all(bool(result.is_finite) for result in results)
    moved = [not torch.equal(old, new) for old, new in zip(before, step.plain_model.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)
