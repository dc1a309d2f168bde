"""`boqsa train RECIPE --out RUN [any field]` and `boqsa train --resume RUN`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from boqsa.commands.arguments import parse, print_json
from boqsa.errors import RecipeError
from boqsa.recipes import Recipe, get_recipe

LogTo = tuple[Literal["tensorboard", "wandb"], ...]


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe. The same command on an unfinished run of it goes on exactly where it was."""

    out: Path
    """Run folder to make."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    log_to: LogTo = ()
    """Where to show the run beside RUN/log.jsonl; decides no result and is no part of the recipe."""
    json: bool = False
    """Print the result as JSON on stdout; progress stays on stderr."""


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Go on with a run that was stopped or killed. Everything comes from the run folder."""

    resume: Path
    """Run folder."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Where its data is now, if it was moved."""
    device: Annotated[str | None, tyro.conf.arg(name="train.device")] = None
    """Where to train on: auto, cpu, cuda or mps."""
    threads: Annotated[int | None, tyro.conf.arg(name="train.threads")] = None
    """CPU threads; results are bit-identical only at the number the run began with."""
    log_to: LogTo = ()
    """Where to show the run beside RUN/log.jsonl; not remembered from the first part."""
    json: bool = False
    """Print the result as JSON on stdout; progress stays on stderr."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        resumed = parse(Resume, arguments, command="train")
        return _train(_recipe_to_resume(resumed), resumed.resume, log_to=resumed.log_to, as_json=resumed.json)
    if not arguments or arguments[0].startswith("-"):
        if arguments[:1] in (["-h"], ["--help"]):
            print("usage: boqsa train RECIPE --out RUN [any field of the recipe]")
            print("       boqsa train --resume RUN")
            print("`boqsa recipes` lists the recipes; `boqsa train RECIPE --help` lists the fields.")
            return 0
        raise RecipeError("name a recipe first, as in `boqsa train demo --out RUN`; `boqsa recipes` lists them.")
    name, *rest = arguments
    default = Train(out=tyro.MISSING, recipe=get_recipe(name))
    chosen = parse(Train, rest, command=f"train {name}", default=default)
    return _train(chosen.recipe, chosen.out, log_to=chosen.log_to, as_json=chosen.json)


def _recipe_to_resume(resumed: Resume) -> Recipe:
    from dataclasses import replace

    from boqsa.inference.run import read_recipe

    recipe = read_recipe(resumed.resume)
    train = recipe.train
    if resumed.device is not None:
        train = replace(train, device=resumed.device)  # type: ignore[arg-type]  # checked by the dataclass
    if resumed.threads is not None:
        train = replace(train, threads=resumed.threads)
    data = recipe.data if resumed.data_root is None else replace(recipe.data, root=resumed.data_root)
    return replace(recipe, data=data, train=train)


def _train(recipe: Recipe, run: Path, *, log_to: LogTo, as_json: bool) -> int:
    from boqsa.commands.console import rendering
    from boqsa.training.data import open_split, open_validation
    from boqsa.training.loop import check, state_of, train

    check(recipe, run, log_to=log_to)  # before scenes are rendered: what is refused makes no file
    with rendering() as progress:
        train_data = open_split(recipe.data, recipe.data.train_split, progress=progress)
    validation_data = open_validation(recipe.data)
    if validation_data is None:
        print(
            f"{train_data.path} has no split {recipe.data.validation_split!r}: nothing is scored during "
            "training, and there will be no best_* checkpoints.",
            file=sys.stderr,
        )
    finished = train(recipe, run, train_data=train_data, validation_data=validation_data, log_to=log_to)
    if as_json:
        done = state_of(run)
        step = done[0] if done else 0
        print_json({"run": str(run), "finished": finished, "step": step, "recipe_hash": recipe.hash})
    elif finished:
        _say_where_everything_lies(run)
    return 0 if finished else 1


def _say_where_everything_lies(run: Path) -> None:
    """What a finished run has left, and the commands that use it."""
    import shlex

    from boqsa.inference.run import CHECKPOINTS, MANIFEST, RECIPE
    from boqsa.training.log import FILE
    from boqsa.training.sinks import TENSORBOARD, WANDB

    names = sorted(path.parent.name for path in (run / CHECKPOINTS).glob(f"[!.]*/{MANIFEST}"))
    quoted = shlex.quote(str(run))
    lines = [
        ("log", run / FILE),
        ("checkpoints", f"{run / CHECKPOINTS}: {', '.join(names)}"),
        ("recipe", run / RECIPE),
        *([("TensorBoard", f"tensorboard --logdir {quoted}")] if (run / TENSORBOARD).exists() else []),
        *([("W&B", run / "wandb")] if (run / WANDB).exists() else []),
        ("score it", f"boqsa evaluate {quoted}"),
        ("its curves", f"boqsa plot {quoted}"),
        ("use it", f"boqsa segment {quoted} PICTURE --out DIR"),
    ]
    print("finished.")
    for title, what in lines:
        print(f"  {title:<12} {what}")
