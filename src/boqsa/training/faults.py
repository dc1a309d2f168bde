"""A machine in trouble, in words: a full disk, a folder that went away, too little memory.

Each ends a run with one line that says what the run can go on from and what to type; what was saved before stays.
"""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from boqsa.atomic import DISK_IS_FULL
from boqsa.errors import FullDiskError, MachineError, as_typed
from boqsa.inference.run import CHECKPOINTS, RECIPE
from boqsa.recipes import Recipe
from boqsa.training.processes import rank_and_count
from boqsa.training.resume import kept

Work = Literal["step", "evaluation", "other"]
"""What is going on: the two that compute a batch, whose size can be changed, or anything else."""

_NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
"""What the messages of torch's allocators, of CUDA and of its libraries have in them."""


@contextmanager
def told_in_words(recipe: Recipe, run: Path, work: Work = "other") -> Iterator[None]:
    """Turn what goes wrong inside for lack of space or memory into one line; all else passes.

    Args:
        recipe: What is running.
        run: Its folder.
        work: What is done inside. Where this is used inside itself, the inner one counts.

    Raises:
        MachineError: that line; a `FullDiskError` where space is what lacks.
    """
    with _told(
        run,
        lambda error: _no_memory(error, recipe, run, work),
        lambda remedy: f"{kept(run)}. {_sentence(f'{remedy}, then {_again(run)}')}",
    ):
        yield


@contextmanager
def scoring_told_in_words(where: Path) -> Iterator[None]:
    """The same for what looks at finished runs, of which nothing goes on from a checkpoint.

    Args:
        where: What is used inside, for errors that name no file.

    Raises:
        MachineError: that line; a `FullDiskError` where space is what lacks.
    """
    no_memory = "the memory does not suffice; end other programs of this machine, or give the command again with fewer "
    with _told(
        where,
        lambda _: MachineError(f"{no_memory}--workers."),
        lambda remedy: f"{remedy}, then give the command again.",
    ):
        yield


@contextmanager
def _told(
    where: Path, no_memory: Callable[[Exception], MachineError], going_on: Callable[[str], str]
) -> Iterator[None]:
    """What both have in common; `going_on` says what to do, from what to mend."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_short_of_memory(error):
            raise
        raise no_memory(error) from None
    except BrokenPipeError:
        raise  # nobody reads what is printed any more: nothing is wrong with the run
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise no_memory(error) from None
        place = error.filename or where
        full = error.errno in DISK_IS_FULL
        what = f"no space is left to write {place}" if full else f"cannot use {place}: {error.strerror or error}"
        kind = FullDiskError if full else MachineError
        raise kind(f"{what}; {going_on('free some' if full else 'mend that')}") from None


def is_short_of_memory(error: Exception) -> bool:
    """Whether an error of Python, of torch or of CUDA says that memory does not suffice."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in _NO_MEMORY)


def memory_advice(recipe: Recipe, run: Path, work: Work) -> str:
    """What computes less at once, in the order to try it in.

    What would fit is not known: where memory ran out, nobody has seen how much more the rest would have taken.
    """
    if work == "step":
        return _of_a_step(recipe, run)
    if work == "evaluation":
        return _of_an_evaluation(recipe, run)
    return f"it ran out outside of steps and evaluations; end other programs of this machine, then {_again(run)}."


def advice_after_divergence(recipe: Recipe, run: Path) -> str:
    """How a run goes on that was stopped by steps without a number."""
    settings = recipe.train
    precision = " --train.precision fp32" if settings.precision == "bf16" else ""
    again = (
        f"boqsa train --resume {as_typed(run)} --allow-changes "
        f"--train.learning-rate {settings.learning_rate / 2:g}{precision}"
    )
    newest, before = (run / CHECKPOINTS / name for name in ("last", "last-1"))
    older = f" If that stops again at once, delete {newest} first: then {before} is used." if before.exists() else ""
    return f"Go on with a lower --train.learning-rate: `{again}`.{older}"


def _of_a_step(recipe: Recipe, run: Path) -> str:
    """The first two keep the result, but for the draws of dropout and the rounding of sums."""
    settings = recipe.train
    processes = rank_and_count()[1]
    share = settings.batch_size // processes
    at_once = share // settings.accumulate
    found = (
        f"a step computes {at_once} images at once (train.batch_size {settings.batch_size} in train.accumulate "
        f"{settings.accumulate} pieces{f' and {processes} processes' if processes > 1 else ''})"
    )
    pieces = [str(count) for count in range(settings.accumulate + 1, share + 1) if share % count == 0]
    options = []  # with what to add to each
    if pieces:
        options.append((f"--train.accumulate {pieces[0]}", _next_values(pieces[1:])))
    if getattr(recipe.model, "recompute", True) is False:  # a mixture model has no such field
        options.append(("--model.recompute", ""))
    if settings.precision == "fp32":
        options.append(("--train.precision bf16", ", which rounds more"))
    last = "a smaller train.batch_size, model or image size, which is another run"
    if not options:
        return f"{found}, and no field saves more of it; what is left is {last}."
    (first, remark), *others = options
    then = "".join(f"; then {option}{remark}" for option, remark in others)
    return f"{found}; {_again(run, first)}{remark}{then}; last {last}."


def _of_an_evaluation(recipe: Recipe, run: Path) -> str:
    at_once = recipe.evaluate.batch_size
    if at_once == 1:
        return "an evaluation computes evaluate.batch_size 1 at once, which is the least; take a smaller model."
    smaller = [str(at_once >> halvings) for halvings in range(1, at_once.bit_length())]
    return (
        f"an evaluation computes evaluate.batch_size {at_once} images at once; "
        f"{_again(run, f'--evaluate.batch-size {smaller[0]}')}{_next_values(smaller[1:])}."
    )


def _next_values(values: list[str]) -> str:
    """What to try where the first value is not enough."""
    return f" (if that is not enough, {', '.join(values[:3])}{', ...' if len(values) > 3 else ''})" if values else ""


def _no_memory(error: Exception, recipe: Recipe, run: Path, work: Work) -> MachineError:
    asked = re.search(r"tried to allocate ([\d.]+ ?\w+)", str(error), re.IGNORECASE)
    more = f" ({asked[1]} more were asked for)" if asked else ""
    return MachineError(f"the memory does not suffice{more}: {memory_advice(recipe, run, work)} {_sentence(kept(run))}")


def _again(run: Path, changes: str = "") -> str:
    """What to type to go on, or to start."""
    if not (run / RECIPE).exists():
        return f"give the command again{f' with {changes}' if changes else ''}"
    return f"go on with `boqsa train --resume {as_typed(run)}{f' --allow-changes {changes}' if changes else ''}`"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
