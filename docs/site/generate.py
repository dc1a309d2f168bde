"""Pages that are made from the code: commands from their help, recipes from their fields, Python from docstrings.

Tables and pictures of `results`, which lies outside of the pages' folder, come along where a page links to them.
mkdocs runs it (`make docs`); nothing is written into the repository.
"""

import contextlib
import importlib
import io
import os
import re
from pathlib import Path

import mkdocs_gen_files

from boqsa.commands import COMMANDS, main
from boqsa.recipes import RECIPES, DataRecipe, Recipe, get_recipe
from boqsa.recipes.recipe import flat

PACKAGES = ("slots", "models", "data", "metrics", "recipes", "training", "inference", "reports")
"""What a user of the library imports from."""

MORE = {
    "models": ("models.adaptive",),
    "training": ("training.concepts",),
    "inference": ("inference.decode", "inference.exchange", "inference.novel_views"),
}
"""Modules that a package does not export, but the documentation speaks of."""

DOCS = Path(__file__).parents[1]
TO_RESULTS = re.compile(r"\]\(\.\./(results/[^)#]+\.(?:md|png))")
"""A link from a page to a table or a picture of `results`, as it is right in the repository."""


def help_of(command: str) -> str:
    """What `boqsa COMMAND --help` prints on a terminal of a hundred columns."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def commands_page() -> str:
    """Every command with its help."""
    parts = ["# Commands\n\nWhat `boqsa COMMAND --help` says."]
    for name, (_, what) in COMMANDS.items():
        parts.append(f"## boqsa {name}\n\n{what}\n\n```text\n{help_of(name)}\n```")
    return "\n\n".join(parts) + "\n"


def recipes_page() -> str:
    """Every recipe, and the fields in which it differs from the defaults."""
    parts = [
        "# Recipes\n\n`boqsa recipes NAME` shows one in full. Here stand the fields that differ from the defaults of "
        "their classes."
    ]
    for name in RECIPES:
        recipe = get_recipe(name)
        own, default = flat(recipe), _defaults(recipe)
        rows = [f"| `{field}` | `{value}` |" for field, value in own.items() if default.get(field) != value]
        words = " ".join((RECIPES[name].__doc__ or "").split())
        parts.append("\n".join([f"## {name}", "", words, "", "| field | value |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _defaults(recipe: Recipe) -> dict[str, object]:
    """The flat fields of a recipe of the same kind where nothing was set."""
    data = DataRecipe(name="any", image_size=recipe.data.image_size)
    return {**flat(Recipe(name="", data=data, model=type(recipe.model)())), "name": recipe.name}


def package_page(package: str) -> str:
    """What a package exports, in the order of its modules."""
    module = importlib.import_module(f"boqsa.{package}")
    names = [name for name in module.__all__ if not name.isupper()]
    entries = [f"::: boqsa.{package}.{name}" for name in names]
    summary, _, more = (module.__doc__ or "").strip().partition("\n\n")
    rest = [f"```text\n{more}\n```"] if more else []
    modules = [f"::: boqsa.{name}" for name in MORE.get(package, ())]
    return "\n\n".join([f"# boqsa.{package}", summary, *rest, *entries, *modules]) + "\n"


def write(path: str, text: str) -> None:
    """A page of the site."""
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


def take_results_along() -> None:
    """Bring in what pages link to in `results`, below the same name, and turn their links to it."""
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name in TO_RESULTS.findall(text):
            with mkdocs_gen_files.open(name, "wb") as file:
                file.write((DOCS.parent / name).read_bytes())
        if TO_RESULTS.search(text):
            write(page.name, TO_RESULTS.sub(r"](\1", text))


os.environ["COLUMNS"] = "100"
os.environ["NO_COLOR"] = "1"
os.environ["TERM"] = "dumb"
write("commands.md", commands_page())
write("recipes.md", recipes_page())
for package in PACKAGES:
    write(f"api/{package}.md", package_page(package))
take_results_along()
