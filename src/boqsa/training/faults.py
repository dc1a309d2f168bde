"""A machine in trouble, in words: a full disk, a folder that went away, too little memory.

Each ends a run with one line that says what the run can go on from and what to type; what was saved before stays.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from boqsa.atomic import DISK_IS_FULL
from boqsa.errors import FullDiskError, RunError
from boqsa.inference.run import RECIPE
from boqsa.recipes import Recipe
from boqsa.training.processes import rank_and_count
from boqsa.training.resume import kept

_NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
"""What the messages of torch's allocators, of CUDA and of its libraries have in them."""


@contextmanager
def told_in_words(recipe: Recipe, run: Path, *, evaluating: bool = False) -> Iterator[None]:
    """Turn what goes wrong inside for lack of space or memory into one line; all else passes.

    Args:
        recipe: What is running.
        run: Its folder.
        evaluating: Whether an evaluation runs, whose batch is another.

    Raises:
        RunError: that line; a `FullDiskError` where space is what lacks.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not _is_short_of_memory(error):
            raise
        raise RunError(
            f"the memory does not suffice: {memory_advice(recipe, run, evaluating=evaluating)} {_sentence(kept(run))}"
        ) from None
    except BrokenPipeError:
        raise  # nobody reads what is printed any more: nothing is wrong with the run
    except OSError as error:
        if error.errno == errno.ENOMEM:
            advice = memory_advice(recipe, run, evaluating=evaluating)
            raise RunError(f"the memory does not suffice: {advice} {_sentence(kept(run))}") from None
        where = error.filename or run
        full = error.errno in DISK_IS_FULL
        what = f"no space is left to write {where}" if full else f"cannot use {where}: {error.strerror or error}"
        remedy = "free some" if full else "mend that"
        kind = FullDiskError if full else RunError
        raise kind(f"{what}; {kept(run)}. {_sentence(f'{remedy}, then {_again(run)}')}") from None


def memory_advice(recipe: Recipe, run: Path, *, evaluating: bool = False) -> str:
    """What computes less at once, with the next value to try. The result stays, but for the draws of dropout."""
    settings = recipe.train
    if evaluating:
        at_once = recipe.evaluate.batch_size
        if at_once == 1:
            return "an evaluation computes evaluate.batch_size 1 at once, which is the least; take a smaller model."
        return (
            f"an evaluation computes evaluate.batch_size {at_once} images at once; "
            f"{_again(run, f'--evaluate.batch-size {at_once // 2}')}."
        )
    processes = rank_and_count()[1]
    share = settings.batch_size // processes
    at_once = share // settings.accumulate
    found = (
        f"a step computes {at_once} images at once (train.batch_size {settings.batch_size} in train.accumulate "
        f"{settings.accumulate} pieces{f' and {processes} processes' if processes > 1 else ''})"
    )
    options = []
    more = next((count for count in range(2 * settings.accumulate, share + 1) if share % count == 0), None)
    if more is not None:
        options.append(f"--train.accumulate {more}")
    if getattr(recipe.model, "recompute", True) is False:  # a mixture model has no such field
        options.append("--model.recompute")
    if not options:
        return f"{found}, and nothing more can be saved; take a smaller model or images."
    return f"{found}; {_again(run, options[0])}{f', or with {options[1]}' if len(options) > 1 else ''}."


def _again(run: Path, changes: str = "") -> str:
    """What to type to go on, or to start."""
    if not (run / RECIPE).exists():
        return f"give the command again{f' with {changes}' if changes else ''}"
    return f"go on with `boqsa train --resume {run}{f' --allow-changes {changes}' if changes else ''}`"


def _is_short_of_memory(error: Exception) -> bool:
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in _NO_MEMORY)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
