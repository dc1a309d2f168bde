"""Fields of a recipe by name and as text: what a person types, checked as strictly as a recipe in JSON."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, get_args, get_origin

from boqsa.errors import RecipeError
from boqsa.recipes.recipe import Recipe

_NOT_BY_TEXT = {
    "name": "it is the label of a recipe",
    "model.kind": "a recipe has one kind of model for good; choose another recipe",
}


def field_names(recipe: Recipe) -> list[str]:
    """All fields that can be set by text, as `train.learning_rate`, in the order of the recipe."""
    return [name for name in _typed_fields(recipe) if name not in _NOT_BY_TEXT]


def with_fields(recipe: Recipe, values: Mapping[str, str]) -> Recipe:
    """The recipe with some fields replaced; they are checked together, so that those that belong together can change.

    Args:
        recipe: Where all other fields come from.
        values: Text of each field by its name, `train.learning_rate` or `train.learning-rate`. Several whole numbers
            are separated by commas or spaces; a switch is `true` or `false`; `none` empties a field that may be empty.

    Raises:
        RecipeError: if a field is unknown or a value is of a wrong type or out of its range.
    """
    types = _typed_fields(recipe)
    nested = asdict(recipe)
    for typed, text in values.items():
        name = typed.replace("-", "_")
        if name in _NOT_BY_TEXT:
            raise RecipeError(f"{name} cannot be set: {_NOT_BY_TEXT[name]}.")
        if name not in types:
            close = difflib.get_close_matches(name, field_names(recipe), n=1)
            hint = f"did you mean {close[0]}?" if close else f"`boqsa recipes {recipe.name}` shows its fields."
            raise RecipeError(f"the recipe {recipe.name} has no field {name}; {hint}")
        *sections, last = name.split(".")
        place = nested
        for section in sections:
            place = place[section]
        place[last] = _from_text(types[name], text)
    return Recipe.from_json(json.dumps(nested))


def _typed_fields(section: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in fields(section):
        value = getattr(section, entry.name)
        if is_dataclass(value):
            found |= _typed_fields(value, f"{prefix}{entry.name}.")
        else:
            found[prefix + entry.name] = entry.type
    return found


def _from_text(expected: Any, text: str) -> Any:
    """The value as JSON has it. What cannot be read stays text, and the recipe says what it wanted instead."""
    choices = get_args(expected) or (expected,)
    if type(None) in choices and text.lower() == "none":
        return None
    if bool in choices:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        if get_origin(expected) is tuple:
            return [int(part) for part in text.replace(",", " ").split()]
        for kind in (int, float):
            if kind in choices:
                return kind(text)
    except ValueError:
        pass
    return text
