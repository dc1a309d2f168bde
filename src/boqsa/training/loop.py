"""The training loop: `TrainStep`, repeated; evaluation, log and checkpoints; stopping at any moment and going on.

Notable choices:
- A step depends on its number alone, so there is no state of random numbers or schedulers to save, but for what
  `patience` has seen, if it is on.
- A step is finished or it did not happen: signals are looked at between steps. One whose loss or gradient is not a
  number did not happen either; the device counts these, and the loop learns of it where it reads the device anyway.
- Everything is built and checked before the run folder is made.
- In a job of several processes all take every step and agree on when to stop; the first one alone writes and talks.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from boqsa.atomic import one_process, recover_folder, write_text
from boqsa.data import PackedDataset
from boqsa.errors import RunError
from boqsa.inference.load import model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, read_recipe, refuse_links
from boqsa.models.published import Model
from boqsa.recipes import Recipe
from boqsa.recipes.band import Band, expected_band
from boqsa.training.checkpoint import save_checkpoint, set_aside
from boqsa.training.data import StepImages, data_identity
from boqsa.training.diagnostics import verdict
from boqsa.training.evaluation import evaluate, headline
from boqsa.training.faults import told_in_words
from boqsa.training.interval import Interval
from boqsa.training.log import CHANGED, Log, NoLog
from boqsa.training.machine import changed_since_start, machine_facts
from boqsa.training.pictures import draw_scenes
from boqsa.training.processes import missing_each_other
from boqsa.training.progress import RunProgress
from boqsa.training.resume import LOCK, changes_between, kept, saved_training, state_of
from boqsa.training.schedules import Plateau
from boqsa.training.signals import stop_signals
from boqsa.training.sinks import require_sinks
from boqsa.training.skipped import SkippedSteps
from boqsa.training.start import check_data, starting_model
from boqsa.training.step import TrainStep

__all__ = ["check", "state_of", "train"]


def train(
    recipe: Recipe,
    run: str | Path,
    *,
    train_data: PackedDataset,
    validation_data: PackedDataset | None = None,
    allow_changes: bool = False,
    log_to: Sequence[str] = (),
) -> bool:
    """Train a recipe into a run folder, or finish the run of that recipe that the folder holds.

    Args:
        recipe: What to run.
        run: Folder to make, or of an unfinished run of the same recipe, which goes on exactly where it was.
        train_data: Split to train on.
        validation_data: Split to look at during training; None does without `best_*` checkpoints.
        allow_changes: Whether to go on although the data, or fields of the recipe that `CHANGEABLE` names, are not
            those that the run began with. The log tells of it.
        log_to: Where the log is shown beside `log.jsonl`: names of `boqsa.training.sinks.SINKS`.

    Returns:
        True if the run is finished, False if a signal stopped it; `checkpoints/last` can then be resumed.

    Raises:
        RunError: if the folder holds something else, a finished run or one of another recipe, or cannot be
            made; if the loss stops being a number; if disk or memory do not suffice; or if another process of the
            job died.
        RecipeError: if the recipe does not fit together, the data, or the machine.
        InputError: if the package of one of `log_to` is not installed.
    """
    check_data(recipe, train_data, validation_data)
    run = Path(run)
    with told_in_words(recipe, run), missing_each_other():
        training = _Training(recipe, run, allow_changes=allow_changes, log_to=log_to)
    training.require_same_data(train_data)
    console = None if training.writes else Console(quiet=True)
    with (
        missing_each_other(),
        training.holding_folder(),
        told_in_words(recipe, run),
        RunProgress(recipe.train.steps, training.start, console) as progress,
        stop_signals() as stop,
        closing(training.log),
    ):
        if training.writes:
            training.begin(train_data, progress)
        with training.step.own_stream():
            return training.run_steps(train_data, validation_data, progress, stop)


def check(recipe: Recipe, run: str | Path, *, allow_changes: bool = False, log_to: Sequence[str] = ()) -> None:
    """Raise what `train` would raise about recipe, machine and run folder, before any data is made."""
    with told_in_words(recipe, Path(run)):
        _Training(recipe, Path(run), allow_changes=allow_changes, log_to=log_to)


class _Training:
    """One run: model, optimiser, counters, new or as the run folder has them. Making it writes nothing."""

    def __init__(self, recipe: Recipe, run: Path, *, allow_changes: bool = False, log_to: Sequence[str] = ()) -> None:
        self.recipe, self.run, self.allow_changes = recipe, run, allow_changes
        require_sinks(log_to)
        self.saved = saved_training(recipe, run, allow_changes=allow_changes)
        self.step = TrainStep(recipe, starting_model(recipe, None if self.saved is None else self.saved.folder))
        self.writes = self.step.fabric.is_global_zero
        self.log = Log(run, log_to) if self.writes else NoLog(run)
        self.start, self.seconds, self.best = 0, 0.0, dict[str, float]()
        self.interval = Interval(recipe.train.batch_size)
        self.skipped = SkippedSteps(self.step.device)
        self.plateau = Plateau()
        self.band: Band | None = None
        if self.saved is not None:
            try:
                self.restore(self.saved.trainer)
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise RunError(f"{self.saved.folder} holds no state of this training ({error}); train again.") from None

    def restore(self, saved: dict[str, Any]) -> None:
        """Take up what `state` gave. Checkpoints of earlier versions lack some of it, and need none."""
        device = self.step.device
        self.step.optimizer.load_state_dict(saved["optimizer"])
        self.start, self.seconds, self.best = (saved[name] for name in ("step", "seconds", "best"))
        parts = {name: values.to(device) for name, values in saved.get("parts", {}).items()}
        self.interval = Interval(self.recipe.train.batch_size, saved["losses"].to(device), parts)
        self.skipped = SkippedSteps(device, saved.get("skipped", (0, 0, 0, 0)))
        self.plateau = Plateau(*saved.get("plateau", Plateau()))

    def require_same_data(self, data: PackedDataset) -> None:
        """Refuse to go on with other images than the run began with, unless that is or was meant."""
        if self.saved is None or self.allow_changes:
            return
        now = data.manifest.fingerprint
        if now not in self.saved.data:
            before = self.saved.data[0]
            count = self.saved.trainer.get("images", "some")
            raise RunError(
                f"{self.run} was trained on other data than {data.path} ({count} images with fingerprint "
                f"{before[:12]} -> {len(data)} images with fingerprint {now[:12]}); give the data it began with, or go "
                "on with these by --allow-changes."
            )

    @contextmanager
    def holding_folder(self) -> Iterator[None]:
        """Make the run folder where there is none, and keep other jobs from training in it."""
        # Here every process of this job has read the folder, and none has changed it.
        if not self.step.all_have(self.start):
            raise RunError(
                f"the processes of this job do not go on from the same step of {self.run} (this one from "
                f"{self.start}); give them one folder that all see alike, then start the same command again."
            )
        if not self.writes:
            yield
            return
        try:
            self.run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {self.run}: {error.strerror}; choose another --out.") from None
        busy = f"another process is training {self.run}; let it end, or choose another --out."
        refuse_links(self.run)  # the lock would be written through one
        with one_process(self.run / LOCK, wait=False, busy=busy):
            there = state_of(self.run)
            if there is not None and there[0] != self.start:
                raise RunError(f"another process has gone on with {self.run} meanwhile; give the command again.")
            yield

    def begin(self, data: PackedDataset, progress: RunProgress) -> None:
        """Write the recipe into a new run folder, or tidy what a killed process left, and say what goes on."""
        run, fingerprint = self.run, data.manifest.fingerprint
        is_new = not (run / RECIPE).exists()
        for leftover in run.glob(".partial-*"):
            leftover.unlink()
        there = self.recipe if is_new else read_recipe(run)
        if not is_new:  # in a new folder the recipe comes first: without one it is no run
            # Without a checkpoint nothing of an earlier attempt counts, its first row included.
            self.log.cut_after(self.start or -1)
        self.tell_changes(there, data, progress)
        # Device and threads stay those that the run began with; data that were moved must be found by `evaluate` too.
        own = replace(self.recipe.train, device=there.train.device, threads=there.train.threads)
        if is_new or there != replace(self.recipe, train=own):
            write_text(run / RECIPE, replace(self.recipe, train=own).to_json())
        (run / CHECKPOINTS).mkdir(exist_ok=True)
        damaged = () if self.saved is None else self.saved.damaged
        set_aside(run, None if self.saved is None else self.saved.folder)
        for name in ("best_loss", f"best_{self.recipe.evaluate.select_by}"):
            recover_folder(run / CHECKPOINTS / name)
        self.log.open(self.recipe, self.start, progress.say)
        self.band, why_none = expected_band(self.recipe, data_identity(self.recipe.data, fingerprint))
        if self.band is None:
            progress.say(why_none)
        machine = machine_facts(self.step.device, processes=self.step.fabric.world_size)
        if not self.start:
            if not is_new:
                progress.say(f"{run} has no checkpoint yet; starting at step 0 of {self.recipe.train.steps}")
            self.log.append("started", 0, data=fingerprint, **machine)
            return
        for sentence in damaged:
            progress.say(f"{sentence}; going on from the checkpoint before it")
        progress.say(f"resuming {run} at step {self.start} of {self.recipe.train.steps}")
        changed = changed_since_start(run, machine)
        if changed:
            progress.say(f"not bit-identical to an unbroken run: {', '.join(changed)}")
        told = {"damaged": list(damaged)} if damaged else {}
        self.log.append("resumed", self.start, changed=changed, data=fingerprint, **machine, **told)

    def tell_changes(self, there: Recipe, data: PackedDataset, progress: RunProgress) -> None:
        """Log what was changed on purpose, before the recipe is another: it tells which recipe a checkpoint is of."""
        changes, fingerprint = changes_between(there, self.recipe), data.manifest.fingerprint
        if self.saved is not None and fingerprint not in self.saved.data:
            changes.append(f"data: {self.saved.data[0][:12]} -> {fingerprint[:12]}")
        if changes:
            hashes = {"recipe_before": there.hash, "recipe": self.recipe.hash}
            self.log.append(CHANGED, self.start, changes=changes, data=fingerprint, **hashes)
            self.log.flush()
            progress.say(f"changed at step {self.start}: {'; '.join(changes)}")
            if there.hash != self.recipe.hash:
                progress.say(f"the recipe's hash was {there.hash} and is {self.recipe.hash} from here on")

    def run_steps(
        self, data: PackedDataset, validation: PackedDataset | None, progress: RunProgress, stop: list[Any]
    ) -> bool:
        """All steps that are left; False if `stop` was filled before the end."""
        settings = self.recipe.train
        began = time.monotonic() - self.seconds
        images = StepImages(data, self.step.device)
        progress.say(str(images))
        for done in range(self.start + 1, settings.steps + 1):
            result = self.step(images, done - 1, rate_factor=self.plateau.factor)
            self.interval.add(result.loss, result.norm, result.parts, result.query_norm)
            self.skipped.add(result.is_finite)
            progress.step(done, loss=result.loss, images_per_second=self.interval.images_per_second)

            is_last = done == settings.steps
            stopping = self.step.any_process(bool(stop)) and not is_last  # a signal reaches them at different steps
            to_log = is_last or done % settings.log_every == 0
            to_evaluate = validation is not None and (is_last or done % settings.evaluate_every == 0)
            to_save = is_last or stopping or done % settings.checkpoint_every == 0
            if not (to_log or to_evaluate or to_save):
                continue
            self.require_finite(done)
            if self.writes:
                self.require_folder(done, data, progress)
            if to_log:
                self.log_step(done)
            with self.interval.paused():
                if validation is not None and to_evaluate:
                    with told_in_words(self.recipe, self.run, evaluating=True):
                        self.evaluate(validation, done, progress)
                self.seconds = time.monotonic() - began
                if is_last:
                    self.log.append("finished", done, seconds=round(self.seconds, 1))
                if to_save:
                    self.log.flush()
                    self.save("last", done, trainer=self.state(done, data))
            if stopping:
                self.log.append("stopped", done, signal=stop[0].name if stop else "of another process")
                progress.say(f"stopped at step {done}; go on with `boqsa train --resume {self.run}`")
                # A launcher kills a job whose first process has left: all leave once the checkpoint is written.
                self.step.any_process(False)
                return False
        return True

    def require_finite(self, done: int) -> None:
        """Stop the run before anything is saved if too many steps in a row gave no number, or a weight is none."""
        in_a_row = self.skipped.look()
        if in_a_row < max(self.recipe.train.nonfinite_patience, 1) and _is_finite(self.step.plain_model):
            return
        self.log.append("diverged", done, loss=self.interval.last_loss, in_a_row=in_a_row)
        raise RunError(
            f"the loss or its gradient is not a number at step {done}, after {in_a_row} such steps in a row; "
            f"{kept(self.run)}. Start again, in another --out, with a lower --train.learning-rate, or with "
            "--train.precision fp32."
        )

    def require_folder(self, done: int, data: PackedDataset, progress: RunProgress) -> None:
        """Where someone deleted the run folder or its checkpoints, make them anew; without its log a run ends there."""
        run = self.run
        if (run / RECIPE).exists():
            if not (run / CHECKPOINTS).exists():
                (run / CHECKPOINTS).mkdir()
                self.best = {}  # or none would be saved before it is beaten
                progress.say(f"{run / CHECKPOINTS} was deleted; at step {done} it is made anew")
            return
        run.mkdir(parents=True, exist_ok=True)
        write_text(run / RECIPE, self.recipe.to_json())
        self.log.append("remade", done, data=data.manifest.fingerprint, **machine_facts(self.step.device))
        self.save("last", done, trainer=self.state(done, data))
        raise RunError(
            f"{run} was deleted while it was trained. It was made anew, with its recipe and the state of step {done}; "
            f"its log is lost. Go on with `boqsa train --resume {run}`, or delete it again."
        )

    def log_step(self, done: int) -> None:
        """Write the row of the interval that ends here, and begin another."""
        skipped = self.skipped.take()
        self.log.append(
            "step",
            done,
            loss=self.interval.mean_loss,
            **{f"loss_{name}": value for name, value in self.interval.mean_parts.items()},
            gradient_norm=self.interval.last_norm,
            query_gradient_norm=self.interval.last_query_norm,
            **self.step.rates(),
            **self.step.options(done - 1),
            images_per_second=round(self.interval.images_per_second, 1),
            **({"skipped": skipped} if skipped else {}),
        )
        self.interval = Interval(self.recipe.train.batch_size)

    def evaluate(self, validation: PackedDataset, done: int, progress: RunProgress) -> None:
        """Score the validation split, log it, and keep the best checkpoints."""
        protocol = self.recipe.evaluate
        scores = evaluate(
            self.step.plain_model, validation, protocol, limit=protocol.validation_limit, device=self.step.device
        )
        labelled = headline(scores)
        numbers = scores["diagnostics"]
        state, warnings = verdict(numbers, step=done, warmup_steps=self.recipe.train.warmup_steps)
        self.log.append("evaluation", done, loss=scores["loss"], **labelled)
        self.log.append("diagnostics", done, verdict=state, warnings=warnings, **numbers)
        if self.log.wants_pictures:
            self.log.picture("masks", done, draw_scenes(self.step.plain_model, validation, 4, device=self.step.device))
        shown = [name for name in ("ari_fg", "msc_fg", "ari", "iou", "dice", "ap", "pq") if name in labelled]
        values = "".join(f"  {name} {labelled[name]:.3f}" for name in shown)
        progress.say(f"step {done}: held-out loss {scores['loss']:.5f}{values}  ({state})")
        for warning in warnings:
            progress.say(f"  {warning}")
        if self.band is not None:
            progress.say(f"  {self.band.standing(done, {'loss': scores['loss'], **labelled})}")
        before, self.plateau = self.plateau, self.plateau.after(scores["loss"], patience=self.recipe.train.patience)
        if self.plateau.factor != before.factor:
            progress.say(f"  no lower held-out loss for {self.recipe.train.patience} evaluations: rates are halved")
        candidates = {"loss": -scores["loss"]}
        if protocol.select_by in labelled:
            candidates[protocol.select_by] = labelled[protocol.select_by]
        for name, value in candidates.items():
            if value > self.best.get(name, float("-inf")):
                self.best[name] = value
                self.save(f"best_{name}", done)

    def state(self, done: int, data: PackedDataset) -> dict[str, Any]:
        """What a later process needs beside the weights to go on as if nothing had happened."""
        return {
            "step": done,
            "optimizer": self.step.optimizer.state_dict(),
            "losses": self.interval.losses.cpu(),
            "parts": {name: values.cpu() for name, values in self.interval.parts.items()},
            "skipped": self.skipped.state,
            "plateau": tuple(self.plateau),
            "best": self.best,
            "seconds": self.seconds,
            "data": data.manifest.fingerprint,
            "images": len(data),
        }

    def save(self, name: str, done: int, *, trainer: dict[str, Any] | None = None) -> None:
        """Write a checkpoint; without `trainer` it holds weights alone."""
        if not self.writes:
            return
        save_checkpoint(
            self.run / CHECKPOINTS / name,
            self.step.plain_model,
            config=model_config(self.recipe),
            step=done,
            recipe_hash=self.recipe.hash,
            trainer=trainer,
            keep=1 if trainer is None else self.recipe.train.keep_last,
        )


def _is_finite(model: Model) -> bool:
    return bool(torch.stack([parameter.detach().isfinite().all() for parameter in model.parameters()]).all())
