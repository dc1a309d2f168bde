"""Recipes: everything that defines a run, by name, and nothing that executes.

A recipe is a function that returns a full `Recipe`; a variant is `dataclasses.replace` on it. The dictionary below
is the whole registry: to add one, write the function and its line here.
"""

import difflib
from collections.abc import Callable

from boqsa.errors import RecipeError
from boqsa.recipes.cpu import (
    birds_slate_small,
    birds_transformer_small,
    cars_slate_small,
    cars_transformer_small,
    coco_transformer_small,
    demo,
    dogs_slate_small,
    dogs_transformer_small,
    flowers_slate_small,
    flowers_transformer_small,
    objectsroom_mixture_small,
    objectsroom_slate_small,
    objectsroom_transformer_small,
    photographs_transformer_small,
    scannet_transformer_small,
    shapestacks_mixture_small,
    shapestacks_slate_boqsa_small,
    shapestacks_slate_small,
    shapestacks_transformer_small,
    ycb_transformer_small,
)
from boqsa.recipes.features import birds_features, coco_features, folder_features_small, voc_features
from boqsa.recipes.models import FeaturesRecipe, MixtureRecipe, RadianceRecipe, TransformerRecipe
from boqsa.recipes.paper import (
    birds_mixture,
    cars_mixture,
    clevrtex_mixture,
    dogs_mixture,
    flowers_mixture,
    objectsroom_mixture,
    objectsroom_slot_attention,
    ptr_mixture,
    shapestacks_mixture,
    shapestacks_slot_attention,
)
from boqsa.recipes.radiance import (
    clevr567_radiance,
    clevr567_radiance_half,
    clevr567_radiance_script,
    room_chair_radiance,
    room_chair_radiance_half,
    room_diverse_radiance,
    room_diverse_radiance_half,
    scenes_radiance_ci,
    scenes_radiance_gpu_small,
    scenes_radiance_small,
)
from boqsa.recipes.recipe import DataRecipe, EvaluateRecipe, RadianceEvaluateRecipe, Recipe
from boqsa.recipes.slate import (
    birds_slate,
    cars_slate,
    dogs_slate,
    flowers_slate,
    objectsroom_slate,
    shapestacks_slate,
    shapestacks_slate_boqsa,
)
from boqsa.recipes.training import DVAETrainRecipe, RadianceTrainRecipe, TrainRecipe
from boqsa.recipes.transformer import (
    birds_transformer,
    cars_transformer,
    coco_transformer,
    dogs_transformer,
    flowers_transformer,
    objectsroom_transformer,
    photographs_transformer,
    scannet_transformer,
    shapestacks_transformer,
    ycb_transformer,
)

__all__ = [
    "RECIPES",
    "DVAETrainRecipe",
    "DataRecipe",
    "EvaluateRecipe",
    "FeaturesRecipe",
    "MixtureRecipe",
    "RadianceEvaluateRecipe",
    "RadianceRecipe",
    "RadianceTrainRecipe",
    "Recipe",
    "TrainRecipe",
    "TransformerRecipe",
    "get_recipe",
]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "objectsroom_mixture_small": objectsroom_mixture_small,
    "shapestacks_mixture_small": shapestacks_mixture_small,
    "objectsroom_mixture": objectsroom_mixture,
    "shapestacks_mixture": shapestacks_mixture,
    "clevrtex_mixture": clevrtex_mixture,
    "ptr_mixture": ptr_mixture,
    "photographs_transformer": photographs_transformer,
    "birds_transformer": birds_transformer,
    "dogs_transformer": dogs_transformer,
    "cars_transformer": cars_transformer,
    "flowers_transformer": flowers_transformer,
    "ycb_transformer": ycb_transformer,
    "scannet_transformer": scannet_transformer,
    "coco_transformer": coco_transformer,
    "objectsroom_transformer": objectsroom_transformer,
    "shapestacks_transformer": shapestacks_transformer,
    "birds_mixture": birds_mixture,
    "dogs_mixture": dogs_mixture,
    "cars_mixture": cars_mixture,
    "flowers_mixture": flowers_mixture,
    "objectsroom_slot_attention": objectsroom_slot_attention,
    "shapestacks_slot_attention": shapestacks_slot_attention,
    "shapestacks_slate": shapestacks_slate,
    "objectsroom_slate": objectsroom_slate,
    "birds_slate": birds_slate,
    "dogs_slate": dogs_slate,
    "cars_slate": cars_slate,
    "flowers_slate": flowers_slate,
    "shapestacks_slate_boqsa": shapestacks_slate_boqsa,
    "photographs_transformer_small": photographs_transformer_small,
    "birds_transformer_small": birds_transformer_small,
    "dogs_transformer_small": dogs_transformer_small,
    "cars_transformer_small": cars_transformer_small,
    "flowers_transformer_small": flowers_transformer_small,
    "ycb_transformer_small": ycb_transformer_small,
    "scannet_transformer_small": scannet_transformer_small,
    "coco_transformer_small": coco_transformer_small,
    "objectsroom_transformer_small": objectsroom_transformer_small,
    "shapestacks_transformer_small": shapestacks_transformer_small,
    "shapestacks_slate_small": shapestacks_slate_small,
    "objectsroom_slate_small": objectsroom_slate_small,
    "birds_slate_small": birds_slate_small,
    "dogs_slate_small": dogs_slate_small,
    "cars_slate_small": cars_slate_small,
    "flowers_slate_small": flowers_slate_small,
    "shapestacks_slate_boqsa_small": shapestacks_slate_boqsa_small,
    "clevr567_radiance": clevr567_radiance,
    "room_chair_radiance": room_chair_radiance,
    "room_diverse_radiance": room_diverse_radiance,
    "clevr567_radiance_half": clevr567_radiance_half,
    "room_chair_radiance_half": room_chair_radiance_half,
    "room_diverse_radiance_half": room_diverse_radiance_half,
    "clevr567_radiance_script": clevr567_radiance_script,
    "scenes_radiance_small": scenes_radiance_small,
    "scenes_radiance_ci": scenes_radiance_ci,
    "scenes_radiance_gpu_small": scenes_radiance_gpu_small,
    "coco_features": coco_features,
    "voc_features": voc_features,
    "birds_features": birds_features,
    "folder_features_small": folder_features_small,
}
"""In the order of `boqsa recipes`. `boqsa data prepare` names the first of those that fit best, so a photograph's
transformer stands before its mixture."""


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        RecipeError: if there is none; the message names close matches.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise RecipeError(f"there is no recipe {name!r}; {hint}`boqsa recipes` lists all.")
    return RECIPES[name]()
