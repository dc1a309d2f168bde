"""`boqsa convert OFFICIAL.ckpt --recipe NAME --out RUN`: a released checkpoint becomes a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from boqsa.commands.arguments import parse, print_json
from boqsa.errors import as_typed


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn a released checkpoint of the authors into a run, to segment and evaluate with.

    Nothing in the file is executed; only its weights are used.
    """

    official: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OFFICIAL")]]
    """Released checkpoint (.ckpt), or its weights as .safetensors."""
    recipe: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """Recipe that the weights were trained with; `boqsa recipes` lists all."""
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Run folder to make."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Convert, arguments, command="convert")

    from boqsa.inference import convert
    from boqsa.recipes import get_recipe

    recipe = get_recipe(chosen.recipe)
    convert(chosen.official, recipe, chosen.out)
    if chosen.json:
        print_json({"run": str(chosen.out), "recipe": recipe.name, "recipe_hash": recipe.hash})
    else:
        following = f"boqsa segment {as_typed(chosen.out)} PICTURE --out DIR"
        print(f"{chosen.out} is a run of {recipe.name}. Next: `{following}`.")
    return 0
