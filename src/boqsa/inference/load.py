"""From a recipe, a run folder, a saved model or a name on the hub to a model in eval mode."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from boqsa.errors import InputError, RecipeError, RunError
from boqsa.inference.run import CONFIG, MODEL, RECIPE, checkpoint_folder, load_weights, read_recipe
from boqsa.models import MixtureModel
from boqsa.recipes import Recipe


def model_config(recipe: Recipe) -> dict[str, Any]:
    """The arguments of the model's constructor that a recipe stands for."""
    return {"image_size": recipe.data.image_size, **asdict(recipe.model)}


def build_model(recipe: Recipe) -> MixtureModel:
    """A new model with fresh weights from torch's random stream.

    Raises:
        RecipeError: if the sizes of the recipe do not fit together.
    """
    try:
        return MixtureModel(**model_config(recipe))
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name}: {error}") from None


def load(path_or_hub_id: str | Path, *, checkpoint: str = "last") -> MixtureModel:
    """A trained model in eval mode.

    Args:
        path_or_hub_id: A run folder, a folder written by `save_pretrained`, or a name on the hub (`owner/name`).
        checkpoint: Of a run folder: "last", "best_loss" or "best_<metric>".

    Raises:
        RunError: if the folder is neither, or a checkpoint is missing or damaged.
        InputError: if there is no such folder and the hub does not have the name.
    """
    path = Path(path_or_hub_id)
    if (path / RECIPE).is_file():
        model = build_model(read_recipe(path))
        _fill(model, load_weights(checkpoint_folder(path, checkpoint)), path)
        return model.eval()
    if path.is_dir():
        return _load_saved(path).eval()
    try:
        model = MixtureModel.from_pretrained(str(path_or_hub_id))
    except (OSError, HfHubHTTPError, HFValidationError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path_or_hub_id} is neither a folder here nor a model that the hub gave ({reason}); "
            "pass a run folder, a folder of save_pretrained, or owner/name."
        ) from None
    return model.eval()


def _load_saved(folder: Path) -> MixtureModel:
    """A folder of `save_pretrained`: config.json and model.safetensors."""
    missing = [name for name in (CONFIG, MODEL) if not (folder / name).is_file()]
    if missing:
        raise RunError(f"{folder} is neither a run nor a saved model: it has no {RECIPE} and no {', '.join(missing)}.")
    try:
        json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return MixtureModel.from_pretrained(folder)
    except Exception as error:
        raise RunError(f"{folder} does not hold a model of this package ({str(error).splitlines()[0]}).") from None


def _fill(model: MixtureModel, weights: dict[str, Any], run: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"the weights in {run} do not fit its recipe: {str(error).splitlines()[-1].strip()}") from None
