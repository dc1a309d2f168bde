"""Recipes: everything that defines a run, by name, and nothing that executes.

A recipe is a function that returns a full `Recipe`; a variant is `dataclasses.replace` on it. The dictionary below
is the whole registry: to add one, write the function and its line here.
"""

import difflib
from collections.abc import Callable

from boqsa.errors import RecipeError
from boqsa.recipes.cpu import demo, objectsroom_mixture_small, shapestacks_mixture_small
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
from boqsa.recipes.recipe import DataRecipe, EvaluateRecipe, MixtureRecipe, Recipe, TrainRecipe

__all__ = ["RECIPES", "DataRecipe", "EvaluateRecipe", "MixtureRecipe", "Recipe", "TrainRecipe", "get_recipe"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "objectsroom_mixture_small": objectsroom_mixture_small,
    "shapestacks_mixture_small": shapestacks_mixture_small,
    "objectsroom_mixture": objectsroom_mixture,
    "shapestacks_mixture": shapestacks_mixture,
    "clevrtex_mixture": clevrtex_mixture,
    "ptr_mixture": ptr_mixture,
    "birds_mixture": birds_mixture,
    "dogs_mixture": dogs_mixture,
    "cars_mixture": cars_mixture,
    "flowers_mixture": flowers_mixture,
    "objectsroom_slot_attention": objectsroom_slot_attention,
    "shapestacks_slot_attention": shapestacks_slot_attention,
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        RecipeError: if there is none; the message names close matches.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4) or list(RECIPES)
        raise RecipeError(f"there is no recipe {name!r}; did you mean {', '.join(close)}? `boqsa recipes` lists all.")
    return RECIPES[name]()
