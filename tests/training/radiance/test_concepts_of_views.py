"""A radiance model has concepts as any other: each view is an image, and its background slot is found to be that."""

from pathlib import Path

import torch

from boqsa.atomic import write_text
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, write_checkpoint
from boqsa.recipes import Recipe
from boqsa.training.concepts import find_concepts


def test_views_are_images(radiance_recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(radiance_recipe)
    config = model_config(radiance_recipe)
    write_checkpoint(run / CHECKPOINTS / "last", model, config=config, step=1, recipe_hash=radiance_recipe.hash)
    write_text(run / RECIPE, radiance_recipe.to_json())
    found = find_concepts(run, examples=2)
    assert found["images"] == 6, "two scenes of three views"
    assert found["objects"] > 0
    assert list(found["attributes"]) == ["colour", "size", "position", "label"]
    assert sum(one["images"] for one in found["slots"]) >= 6
    assert (run / "concepts.html").is_file()
