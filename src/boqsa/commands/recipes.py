"""`boqsa recipes [NAME]`: what can be trained by name."""

from dataclasses import dataclass

import tyro

from boqsa.commands.arguments import parse, print_json, print_table


@dataclass(frozen=True)
class Recipes:
    """List the recipes, or show one in full."""

    name: tyro.conf.Positional[str | None] = None
    """Recipe to show; without it all are listed."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    import json
    from inspect import getdoc

    from boqsa.recipes import RECIPES, get_recipe

    chosen = parse(Recipes, arguments, command="recipes")
    if chosen.name is not None:
        recipe = get_recipe(chosen.name)
        if not chosen.json:
            print(f"# {getdoc(RECIPES[chosen.name])}")
            print(f"# hash {recipe.hash}; every field below is an option of `boqsa train {recipe.name}`")
        print(recipe.to_json())
        return 0
    listed = {name: json.loads(make().to_json()) | {"hash": make().hash} for name, make in RECIPES.items()}
    if chosen.json:
        print_json(listed)
        return 0
    rows = [
        (
            name,
            values["data"]["name"],
            f"{values['data']['image_size']}x{values['data']['image_size']}",
            f"{values['model']['num_slots']} slots",
            f"{values['train']['steps']} steps",
            (getdoc(RECIPES[name]) or "").split(":")[0],
        )
        for name, values in listed.items()
    ]
    columns = ("name", "data", "pixels", "slots", "steps", "what it is")
    print_table("recipes", columns, rows, full_width=True, last_below=True)
    return 0
