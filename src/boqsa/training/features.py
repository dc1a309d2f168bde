"""What a features model is given: a packed set whose features are of its encoder."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from boqsa.data import PackedDataset
from boqsa.errors import RecipeError, as_typed
from boqsa.inference.features import FEATURES, seen_size
from boqsa.models import FeaturesModel
from boqsa.recipes import FeaturesRecipe, Recipe
from boqsa.training.data import require_image_size


def model_input(model: nn.Module, sample: Mapping[str, Tensor]) -> Tensor:
    """What a model takes of a batch: its images, or of a features model their features."""
    return sample[input_column(model)]


def input_column(model: nn.Module) -> str:
    """The column of a packed set that a model takes."""
    return FEATURES if isinstance(model, FeaturesModel) else "image"


def with_encoder(recipe: Recipe, data: PackedDataset) -> Recipe:
    """A recipe of a features model with the encoder that its data is of; all other recipes as they are."""
    if not isinstance(recipe.model, FeaturesRecipe) or recipe.model.encoder_sha256 is not None:
        return recipe
    known = data.manifest.options
    model = replace(
        recipe.model, encoder=_text(known.get("encoder")), encoder_sha256=_text(known.get("encoder_sha256"))
    )
    return replace(recipe, model=model)


def mask_options(model: nn.Module, sample: Mapping[str, Tensor]) -> dict[str, Any]:
    """How to ask a model for masks of the size of the true ones, which is that of the set's images: a features model
    enlarges its own to any size, in one step; all others look at these images."""
    return {"mask_size": tuple(sample["image"].shape[-2:])} if isinstance(model, FeaturesModel) else {}


def require_input(data: PackedDataset, recipe: Recipe) -> None:
    """Go on if a packed set has what the model of a recipe takes: images of its size, or the features of such.

    Raises:
        RecipeError: as `require_image_size`; or if it has no features, or those of other sizes or of another encoder.
    """
    if isinstance(recipe.model, FeaturesRecipe):
        _require_features(data, recipe.model, recipe.data.image_size)
    else:
        require_image_size(data, recipe.data.image_size)


def _require_features(data: PackedDataset, model: FeaturesRecipe, image_size: int) -> None:
    known = data.manifest.options
    if FEATURES not in data.manifest.extras:
        raise RecipeError(
            f"{data.path} holds no features; compute them by `boqsa data features {as_typed(data.path)} ENCODER OUT`, "
            "then pass --data.root OUT."
        )
    height, width = seen_size(data.manifest)
    if (height, width) != (image_size, image_size):
        other = f", or pass --data.image-size {height}" if height == width else ""
        raise RecipeError(
            f"{data.path} holds features of {height}x{width} images, the recipe wants {image_size}x{image_size}; "
            f"compute them with --size {image_size}{other}."
        )
    sizes = known.get("encoder_patch_size"), known.get("encoder_feature_size")
    if sizes != (model.patch_size, model.feature_size):
        raise RecipeError(
            f"{data.path} holds {sizes[1]} features of patches of {sizes[0]} pixels, the recipe wants "
            f"{model.feature_size} of {model.patch_size}; pass --model.feature-size {sizes[1]} "
            f"--model.patch-size {sizes[0]}."
        )
    if model.encoder_sha256 not in (None, known.get("encoder_sha256")):
        raise RecipeError(
            f"{data.path} holds features of {known.get('encoder')} ({str(known.get('encoder_sha256'))[:12]}...), the "
            f"model learned on those of {model.encoder} ({str(model.encoder_sha256)[:12]}...); compute them with that "
            "encoder."
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
