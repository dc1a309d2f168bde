"""The run folder as training opens it: locked, mended, and as it was at the step that the run goes on from.

What a folder holds is read by `boqsa.training.resume` before anything is written; what that refuses stays as it is.
Here begins the writing. Each part may be cut off by a death of the process: the next one does it again.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from boqsa.atomic import one_process, recover_folder, write_text
from boqsa.data import PackedDataset
from boqsa.errors import BusyError, RunError
from boqsa.inference.run import CHECKPOINTS, MANIFEST, RECIPE, read_recipe, refuse_links
from boqsa.plain import read_json
from boqsa.recipes import Recipe
from boqsa.training.checkpoint import set_aside
from boqsa.training.log import CHANGED, Log
from boqsa.training.machine import changed_since_start
from boqsa.training.resume import LOCK, Saved, changes_between, checkpoints_now


@contextmanager
def alone_in(run: Path, seen: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Make the run folder where there is none, and keep other processes from training in it while the body runs.

    Args:
        run: Run folder.
        seen: `checkpoints_now` before the state to go on from was read.

    Raises:
        BusyError: if another process is training the run, or has saved something since.
        RunError: if the folder cannot be made, or something in it is a link.
        InputError: if the lock cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {run}: {error.strerror}; choose another --out.") from None
    refuse_links(run)  # the lock would be written through one
    busy = f"another process is training {run}; let it end, or choose another --out."
    with one_process(run / LOCK, wait=False, busy=busy):
        if checkpoints_now(run) != seen:
            raise BusyError(f"another process has gone on with {run} meanwhile; give the command again.")
        yield


def mend(
    recipe: Recipe, run: Path, saved: Saved | None, log: Log, data: PackedDataset, say: Callable[[str], None]
) -> bool:
    """Write the recipe into a new run folder, or bring back how an earlier one was at the step that it goes on from.

    Args:
        recipe: What goes on from here.
        run: Its folder, which this process holds.
        saved: What it goes on from; None starts at step 0.
        log: Of the run; not open yet.
        data: What it goes on with.
        say: Tells the user what was changed on purpose.

    Returns:
        Whether the folder is new.
    """
    start = 0 if saved is None else saved.step
    is_new = not (run / RECIPE).exists()
    for leftover in run.glob(".partial-*"):
        if leftover.is_symlink() or not leftover.is_dir():  # no folder is made here: one is somebody else's
            leftover.unlink()
    there = recipe if is_new else read_recipe(run)
    if not is_new:  # in a new folder the recipe comes first: without one it is no run
        # Without a checkpoint nothing of an earlier attempt counts, its first row included.
        log.cut_after(start or -1)
    _tell_changes(there, recipe, saved, log, data, say)
    # Device and threads stay those that the run began with; data that were moved must be found by `evaluate` too.
    own = replace(recipe, train=replace(recipe.train, device=there.train.device, threads=there.train.threads))
    if is_new or there != own:
        write_text(run / RECIPE, own.to_json())
    (run / CHECKPOINTS).mkdir(exist_ok=True)
    set_aside(run, None if saved is None else saved.folder)
    for name in ("best_loss", f"best_{recipe.evaluate.select_by}"):
        recover_folder(run / CHECKPOINTS / name)
    _remove_later_best(run / CHECKPOINTS, start)
    return is_new


def log_resumed(
    recipe: Recipe, run: Path, saved: Saved, log: Log, facts: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Say and log from where a mended run goes on, and what keeps the last bits from being those of an unbroken run.

    Args:
        recipe, run, saved, log, say: As for `mend`; the log is open.
        facts: Of the data and the machine, for the row.
    """
    for sentence in saved.damaged:
        say(f"{sentence}; going on from the checkpoint before it")
    say(f"resuming {run} at step {saved.step} of {recipe.train.steps}")
    changed = changed_since_start(run, dict(facts))
    if changed:
        say(f"not bit-identical to an unbroken run: {', '.join(changed)}")
    told = {"damaged": list(saved.damaged)} if saved.damaged else {}
    log.append("resumed", saved.step, changed=changed, **facts, **told)


def _tell_changes(
    there: Recipe, recipe: Recipe, saved: Saved | None, log: Log, data: PackedDataset, say: Callable[[str], None]
) -> None:
    """Log what was changed on purpose, before the recipe is another: it tells which recipe a checkpoint is of."""
    changes, fingerprint = changes_between(there, recipe), data.manifest.fingerprint
    start = 0 if saved is None else saved.step
    if saved is not None and fingerprint not in saved.data:
        changes.append(f"data: {saved.data[0][:12]} -> {fingerprint[:12]}")
    if not changes:
        return
    log.append(CHANGED, start, changes=changes, data=fingerprint, recipe_before=there.hash, recipe=recipe.hash)
    log.flush()
    say(f"changed at step {start}: {'; '.join(changes)}")
    if there.hash != recipe.hash:
        say(f"the recipe's hash was {there.hash} and is {recipe.hash} from here on")


def _remove_later_best(checkpoints: Path, start: int) -> None:
    """Remove `best_*` of steps that this run has not reached: what it finds there counts, and no row tells of them."""
    for removed in checkpoints.glob(".later-*"):
        shutil.rmtree(removed)
    for folder in checkpoints.glob("best_*"):
        try:
            step = read_json(folder / MANIFEST)["step"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: nobody knows of which step it is
        if type(step) is int and step > start:
            # One rename first: half a folder would look like a damaged one.
            removed = folder.with_name(f".later-{folder.name}")
            folder.rename(removed)
            shutil.rmtree(removed)
