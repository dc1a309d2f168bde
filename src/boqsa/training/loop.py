"""The training loop: `TrainStep`, repeated; evaluation, log and checkpoints; stopping at any moment and going on.

Notable choices:
- A step depends on its number alone, so there is no state of random numbers or schedulers to save, but for what
  `patience` has seen, if it is on.
- A step is finished or it did not happen: signals are looked at between steps.
- Everything is built and checked before the run folder is made.
- One process. The draws and the order of samples are made for more.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from boqsa.atomic import one_process, recover_folder, write_text
from boqsa.data import PackedDataset
from boqsa.errors import RecipeError, RunError
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, checkpoint_folder, load_weights, read_recipe
from boqsa.models.published import Model
from boqsa.recipes import Recipe
from boqsa.recipes.band import Band, expected_band
from boqsa.training.checkpoint import save_checkpoint
from boqsa.training.data import StepImages, data_identity
from boqsa.training.diagnostics import verdict
from boqsa.training.evaluation import evaluate, headline
from boqsa.training.interval import Interval
from boqsa.training.log import Log
from boqsa.training.machine import changed_since_start, machine_facts
from boqsa.training.pictures import draw_scenes
from boqsa.training.progress import RunProgress
from boqsa.training.resume import LOCK, last_checkpoint, saved_training, state_of
from boqsa.training.schedules import Plateau
from boqsa.training.signals import stop_signals
from boqsa.training.step import TrainStep

__all__ = ["check", "state_of", "train"]


def train(
    recipe: Recipe,
    run: str | Path,
    *,
    train_data: PackedDataset,
    validation_data: PackedDataset | None = None,
    log_to: Sequence[str] = (),
) -> bool:
    """Train a recipe into a run folder, or finish the run of that recipe that the folder holds.

    Args:
        recipe: What to run.
        run: Folder to make, or of an unfinished run of the same recipe, which goes on exactly where it was.
        train_data: Split to train on.
        validation_data: Split to look at during training; None does without `best_*` checkpoints.
        log_to: Where the log is shown beside `log.jsonl`: names of `boqsa.training.sinks.SINKS`.

    Returns:
        True if the run is finished, False if a signal stopped it; `checkpoints/last` can then be resumed.

    Raises:
        RunError: if the folder holds something else, a finished run or one of another recipe, or cannot be
            made; or if the loss stops being a number.
        RecipeError: if the recipe does not fit together, the data, or the machine.
        InputError: if the package of one of `log_to` is not installed.
    """
    for data in filter(None, (train_data, validation_data)):
        _check_size(recipe, data)
    if recipe.train.patience and validation_data is None:
        raise RecipeError(
            "train.patience counts evaluations, but there is no validation split; "
            "pass --train.patience 0, or prepare data with one."
        )
    training = _Training(recipe, Path(run), log_to)
    training.require_same_data(train_data)
    with (
        training.holding_folder(),
        RunProgress(recipe.train.steps, training.start) as progress,
        stop_signals() as stop,
        closing(training.log),
    ):
        training.begin(train_data, progress)
        with training.step.own_stream():
            return training.run_steps(train_data, validation_data, progress, stop)


def check(recipe: Recipe, run: str | Path, *, log_to: Sequence[str] = ()) -> None:
    """Raise what `train` would raise about recipe, machine and run folder, before any data is made."""
    _Training(recipe, Path(run), log_to)


class _Training:
    """One run: model, optimiser, counters, new or as the run folder has them. Making it writes nothing."""

    def __init__(self, recipe: Recipe, run: Path, log_to: Sequence[str]) -> None:
        self.recipe, self.run = recipe, run
        self.log = Log(run, log_to)
        self.saved = saved_training(recipe, run)
        self.step = TrainStep(recipe, _model(recipe, run, is_new=self.saved is None))
        self.start, self.seconds, self.best = 0, 0.0, dict[str, float]()
        self.interval = Interval(recipe.train.batch_size)
        self.plateau = Plateau()
        self.band: Band | None = None
        if self.saved is not None:
            self.step.optimizer.load_state_dict(self.saved["optimizer"])
            self.start, self.seconds, self.best = (self.saved[name] for name in ("step", "seconds", "best"))
            device = self.step.device
            # Checkpoints of earlier versions have neither parts of the loss nor a plateau, and need none.
            parts = {name: values.to(device) for name, values in self.saved.get("parts", {}).items()}
            self.interval = Interval(recipe.train.batch_size, self.saved["losses"].to(device), parts)
            self.plateau = Plateau(*self.saved.get("plateau", Plateau()))

    def require_same_data(self, data: PackedDataset) -> None:
        """Refuse to go on with other images than the run began with."""
        if self.saved is not None and self.saved["data"] != data.manifest.fingerprint:
            raise RunError(f"{self.run} was trained on other data than {data.path}; give the data it began with.")

    @contextmanager
    def holding_folder(self) -> Iterator[None]:
        """Make the run folder where there is none, and keep other processes from training in it."""
        try:
            self.run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {self.run}: {error.strerror}; choose another --out.") from None
        busy = f"another process is training {self.run}; let it end, or choose another --out."
        with one_process(self.run / LOCK, wait=False, busy=busy):
            there = state_of(self.run)
            if there is not None and there[0] != self.start:
                raise RunError(f"another process has gone on with {self.run} meanwhile; give the command again.")
            yield

    def begin(self, data: PackedDataset, progress: RunProgress) -> None:
        """Write the recipe into a new run folder, or tidy what a killed process left, and say what goes on."""
        run, fingerprint = self.run, data.manifest.fingerprint
        is_new = not (run / RECIPE).exists()
        (run / CHECKPOINTS).mkdir(exist_ok=True)
        for leftover in run.glob(".partial-*"):
            leftover.unlink()
        for name in ("last", "best_loss", f"best_{self.recipe.evaluate.select_by}"):
            recover_folder(run / CHECKPOINTS / name)
        there = self.recipe if is_new else read_recipe(run)
        if is_new or there.data.root != self.recipe.data.root:  # moved data: `evaluate` must find it there too
            write_text(run / RECIPE, replace(there, data=self.recipe.data).to_json())
        # Without a checkpoint nothing of an earlier attempt counts, its first row included.
        self.log.cut_after(self.start or -1)
        self.log.open(self.recipe, self.start, progress.say)
        self.band, why_none = expected_band(self.recipe, data_identity(self.recipe.data, fingerprint))
        if self.band is None:
            progress.say(why_none)
        machine = machine_facts(self.step.device)
        if not self.start:
            if not is_new:
                progress.say(f"{run} has no checkpoint yet; starting at step 0 of {self.recipe.train.steps}")
            self.log.append("started", 0, data=fingerprint, **machine)
            return
        progress.say(f"resuming {run} at step {self.start} of {self.recipe.train.steps}")
        changed = changed_since_start(run, machine)
        if changed:
            progress.say(f"not bit-identical to an unbroken run: {', '.join(changed)}")
        self.log.append("resumed", self.start, changed=changed, data=fingerprint, **machine)

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
            self.interval.add(*result)
            progress.step(done, loss=result.loss, images_per_second=self.interval.images_per_second)

            is_last = done == settings.steps
            stopping = bool(stop) and not is_last  # read once: a signal may come between two lines
            to_log = is_last or done % settings.log_every == 0
            to_evaluate = validation is not None and (is_last or done % settings.evaluate_every == 0)
            to_save = is_last or stopping or done % settings.checkpoint_every == 0
            if not (to_log or to_evaluate or to_save):
                continue
            self.require_finite(done)
            if to_log:
                self.log_step(done)
            with self.interval.paused():
                if validation is not None and to_evaluate:
                    self.evaluate(validation, done, progress)
                self.seconds = time.monotonic() - began
                if is_last:
                    self.log.append("finished", done, seconds=round(self.seconds, 1))
                if to_save:
                    self.save("last", done, trainer=self.state(done, data))
            if stopping:
                self.log.append("stopped", done, signal=stop[0].name)
                progress.say(f"stopped at step {done}; go on with `boqsa train --resume {self.run}`")
                return False
        return True

    def require_finite(self, done: int) -> None:
        """Stop the run before anything is saved if a loss or a gradient was not a number."""
        if self.interval.is_finite():
            return
        self.log.append("diverged", done, loss=self.interval.mean_loss)
        last = last_checkpoint(self.run)
        kept = f"{last} holds the last good state" if last else "there is no checkpoint yet"
        raise RunError(
            f"the loss or its gradient is not a number at step {done}; {kept}. Start again, in another "
            "--out, with a lower --train.learning-rate, or with --train.precision fp32."
        )

    def log_step(self, done: int) -> None:
        """Write the row of the interval that ends here, and begin another."""
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
            "plateau": tuple(self.plateau),
            "best": self.best,
            "seconds": self.seconds,
            "data": data.manifest.fingerprint,
        }

    def save(self, name: str, done: int, *, trainer: dict[str, Any] | None = None) -> None:
        """Write a checkpoint; without `trainer` it holds weights alone."""
        save_checkpoint(
            self.run / CHECKPOINTS / name,
            self.step.plain_model,
            config=model_config(self.recipe),
            step=done,
            recipe_hash=self.recipe.hash,
            trainer=trainer,
        )


def _check_size(recipe: Recipe, data: PackedDataset) -> None:
    size = recipe.data.image_size
    if data.image_size != (size, size):
        raise RecipeError(
            f"{data.path} holds {data.image_size[0]}x{data.image_size[1]} images, the recipe wants "
            f"{size}x{size}; prepare it with --size {size}."
        )


def _model(recipe: Recipe, run: Path, *, is_new: bool) -> Model:
    """The recipe's model: new from its seed, from another run's weights, or as this run's last checkpoint has it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_model(recipe)
    if not is_new:
        model.load_state_dict(load_weights(last_checkpoint(run) or run))
    elif recipe.train.init_from is not None:
        _initialise(model, recipe.train.init_from)
    return model


def _initialise(model: Model, source: str) -> None:
    read_recipe(source)  # a clear error where there is no run at all
    weights = load_weights(checkpoint_folder(source))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"the weights of {source} do not fit this recipe: {reason}") from None
