"""`boqsa train RECIPE --out RUN [any field]` and `boqsa train --resume RUN`."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from boqsa.commands import STOPPED
from boqsa.commands.arguments import parse, print_json
from boqsa.errors import BoqsaError, MachineError, RecipeError, RunError, as_typed
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
    """Go on with a run that was stopped or killed. Everything comes from the run folder.

    Where its data was moved, or the device or the number of CPU threads is another, say so with the field. Other fields
    stay as they are, unless --allow-changes is given.
    """

    resume: Path
    """Run folder."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    allow_changes: bool = False
    """Go on although data or fields are another than the run began with; `log.jsonl` tells of it."""
    log_to: LogTo = ()
    """Where to show the run beside RUN/log.jsonl; not remembered from the first part."""
    json: bool = False
    """Print the result as JSON on stdout; progress stays on stderr."""


def main(arguments: list[str]) -> int:
    """Entry of the command. What every process of a job refuses is said by one; what befell one alone, by that one."""
    code = 2
    try:
        code = _main(arguments)
    except MachineError:
        raise
    except BoqsaError:
        if _speaks_for_all():
            raise
    finally:
        if _is_one_of_several():
            from boqsa.training.processes import leave_processes

            leave_processes(in_step=code != 2)
    return code


def _is_one_of_several() -> bool:
    """Without importing torch."""
    return bool(os.environ.keys() & {"LOCAL_RANK", "SLURM_LOCALID"})


def _speaks_for_all() -> bool:
    if not _is_one_of_several():
        return True
    from boqsa.training.processes import speaks_for_all

    return speaks_for_all()


def _main(arguments: list[str]) -> int:
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        return _resume(arguments)
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


def _resume(arguments: list[str]) -> int:
    from boqsa.inference.run import read_recipe

    run = _named_run(arguments)
    default = Resume(resume=run, recipe=read_recipe(run))
    chosen = parse(Resume, arguments, command="train", default=default)
    return _train(
        chosen.recipe, chosen.resume, log_to=chosen.log_to, as_json=chosen.json, allow_changes=chosen.allow_changes
    )


def _named_run(arguments: list[str]) -> Path:
    """What follows --resume: its recipe tells which fields there are, before they are read."""
    for place, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option == "--resume":
            following = value or next(iter(arguments[place + 1 :]), "")
            if following and not following.startswith("-"):
                return Path(following)
    raise RunError("--resume needs a run folder, as in `boqsa train --resume RUN`.")


def _train(recipe: Recipe, run: Path, *, log_to: LogTo, as_json: bool, allow_changes: bool = False) -> int:
    from boqsa.commands.console import rendering
    from boqsa.training.data import open_split, open_validation
    from boqsa.training.loop import check, state_of, train
    from boqsa.training.processes import rank_and_count

    # Before scenes are rendered: what is refused makes no file.
    check(recipe, run, allow_changes=allow_changes, log_to=log_to)
    with rendering() as progress:
        train_data = open_split(recipe.data, recipe.data.train_split, progress=progress)
    validation_data = open_validation(recipe.data)
    if validation_data is None and _speaks_for_all():
        print(
            f"{train_data.path} has no split {recipe.data.validation_split!r}: nothing is scored during "
            "training, and there will be no best_* checkpoints.",
            file=sys.stderr,
        )
    finished = train(
        recipe,
        run,
        train_data=train_data,
        validation_data=validation_data,
        allow_changes=allow_changes,
        log_to=log_to,
    )
    if rank_and_count()[0] > 0:  # the first process of a job speaks for all
        return 0 if finished else STOPPED
    if as_json:
        done = state_of(run)
        step = done[0] if done else 0
        print_json({"run": str(run), "finished": finished, "step": step, "recipe_hash": recipe.hash})
    elif finished:
        _say_where_everything_lies(run)
    return 0 if finished else STOPPED


def _say_where_everything_lies(run: Path) -> None:
    """What a finished run has left, and the commands that use it."""
    from boqsa.inference.run import CHECKPOINTS, RECIPE, checkpoint_names
    from boqsa.training.log import FILE
    from boqsa.training.sinks import TENSORBOARD, WANDB

    names = checkpoint_names(run, older=True)
    quoted = as_typed(run)
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
