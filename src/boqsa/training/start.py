"""What the first step of a process starts from: data that fit the recipe, and the model."""

from pathlib import Path

import torch

from boqsa.data import PackedDataset
from boqsa.errors import RecipeError, RunError
from boqsa.inference.load import build_model
from boqsa.inference.run import checkpoint_folder, load_weights, read_recipe
from boqsa.models.published import Model
from boqsa.recipes import Recipe
from boqsa.training.data import require_image_size


def check_data(recipe: Recipe, train: PackedDataset, validation: PackedDataset | None) -> None:
    """Go on if a recipe can be trained on these splits.

    Raises:
        RecipeError: if the images have another size, or something counts evaluations and there are none.
    """
    for data in filter(None, (train, validation)):
        require_image_size(data, recipe.data.image_size)
    if recipe.train.patience and validation is None:
        raise RecipeError(
            "train.patience counts evaluations, but there is no validation split; "
            "pass --train.patience 0, or prepare data with one."
        )


def starting_model(recipe: Recipe, checkpoint: Path | None) -> Model:
    """The recipe's model: as a checkpoint of its run has it, or new from its seed or from another run's weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_model(recipe)
    if checkpoint is not None:
        _take(model, checkpoint, of=checkpoint)
    elif recipe.train.init_from is not None:
        read_recipe(recipe.train.init_from)  # a clear error where there is no run at all
        _take(model, checkpoint_folder(recipe.train.init_from), of=recipe.train.init_from)
    return model


def _take(model: Model, folder: Path, *, of: str | Path) -> None:
    weights = load_weights(folder)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"the weights of {of} do not fit this recipe: {reason}") from None
