"""Checks of a recipe's fields when it is made: whoever writes a wrong one is told which, and what it may be.

All take the part of the recipe and the field's name, and raise RecipeError.
"""

from dataclasses import fields
from typing import Any, get_args

from boqsa.errors import RecipeError
from boqsa.recipes.limits import beyond_limits

ADDED_LATER = {"added_later": True}
"""Metadata of a field that old recipes lack: at its default they keep their hash, and unfinished runs go on."""

_SECTIONS = {
    "DataRecipe": "data.",
    "MixtureRecipe": "model.",
    "TransformerRecipe": "model.",
    "RadianceRecipe": "model.",
    "FeaturesRecipe": "model.",
    "TrainRecipe": "train.",
    "DVAETrainRecipe": "train.dvae.",
    "RadianceTrainRecipe": "train.radiance.",
    "EvaluateRecipe": "evaluate.",
    "RadianceEvaluateRecipe": "evaluate.radiance.",
}


def _field_name(section: Any, name: str) -> str:
    return _SECTIONS.get(type(section).__name__, "") + name


def at_least(section: Any, name: str, least: float) -> None:
    """A finite number, not below `least`."""
    value = getattr(section, name)
    if value == float("inf"):
        raise RecipeError(f"{_field_name(section, name)} is {value}; it must be finite.")
    if not value >= least:
        raise RecipeError(f"{_field_name(section, name)} is {value}; it must be at least {least}.")


def above_zero(section: Any, name: str) -> None:
    """A finite number above 0."""
    value = getattr(section, name)
    if not value > 0:
        raise RecipeError(f"{_field_name(section, name)} is {value}; it must be above 0.")
    at_least(section, name, 0)  # refuses infinity


def each_at_least_one(section: Any, name: str) -> None:
    """A list of numbers, each 1 or more."""
    value = getattr(section, name)
    if any(entry < 1 for entry in value):
        raise RecipeError(f"{_field_name(section, name)} is {value}; each must be at least 1.")


def within_limits(section: Any) -> None:
    """Nothing beyond what `boqsa.recipes.limits` allows."""
    beyond = beyond_limits(section)
    if beyond is not None:
        raise RecipeError(f"{_field_name(section, beyond[0])} {beyond[1]}")


def within(section: Any, name: str, least: float, most: float) -> None:
    """A number between two, both included."""
    value = getattr(section, name)
    if not least <= value <= most:
        raise RecipeError(f"{_field_name(section, name)} is {value}; it must be between {least} and {most}.")


def one_of(section: Any, name: str) -> None:
    """One of the values that the annotation of the field lists."""
    choices = get_args(next(entry.type for entry in fields(section) if entry.name == name))
    value = getattr(section, name)
    if value not in choices:
        raise RecipeError(f"{_field_name(section, name)} is {value!r}; pass one of {', '.join(map(repr, choices))}.")
