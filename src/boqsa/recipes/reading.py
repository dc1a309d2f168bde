"""From plain data, as JSON gives it, to the dataclasses of a recipe; strictly: every key known, every type right."""

from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

from boqsa.errors import RecipeError


def from_dict(kind: type[Any], values: Any, where: str) -> Any:
    """Build a dataclass from JSON values, strictly: every key known, every type right.

    Where `kind` is a union of dataclasses, the field `kind` of the values chooses; without it the first one is meant.
    """
    choices = get_args(kind) or (kind,)
    kind = choices[0]
    if isinstance(values, dict) and len(choices) > 1 and "kind" in values:
        by_name = {choice.kind: choice for choice in choices}
        if not isinstance(values["kind"], str) or values["kind"] not in by_name:
            raise RecipeError(f"{where}.kind is {values['kind']!r}; expected one of {', '.join(map(repr, by_name))}.")
        kind = by_name[values["kind"]]
    if not isinstance(values, dict):
        raise RecipeError(f"{where} is {values!r}; expected an object with the fields of {kind.__name__}.")
    known = {entry.name: entry for entry in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise RecipeError(f"{where} has unknown fields {', '.join(unknown)}; known are {', '.join(known)}.")
    arguments = {}
    for name, value in values.items():
        expected: Any = known[name].type
        if any(is_dataclass(choice) for choice in get_args(expected) or (expected,)):
            arguments[name] = from_dict(expected, value, f"{where}.{name}")
        else:
            arguments[name] = _convert(expected, value, f"{where}.{name}")
    try:
        return kind(**arguments)
    except TypeError as error:
        raise RecipeError(f"{where} is incomplete: {str(error).split('() ')[-1]}.") from None


def _convert(expected: Any, value: Any, where: str) -> Any:
    if get_origin(expected) is tuple:
        if not isinstance(value, list) or not all(type(entry) is int for entry in value):
            raise RecipeError(f"{where} is {value!r}; expected a list of whole numbers.")
        return tuple(value)
    if expected is float and type(value) is int:
        return float(value)
    if get_origin(expected) is Literal:
        if value not in get_args(expected):
            raise RecipeError(f"{where} is {value!r}; expected one of {', '.join(map(repr, get_args(expected)))}.")
        return value
    choices = get_args(expected) or (expected,)
    if type(value) not in choices:  # not isinstance: True would pass as a whole number
        wanted = " or ".join(choice.__name__ for choice in choices)
        raise RecipeError(f"{where} is {value!r}; expected {wanted}.")
    return value
