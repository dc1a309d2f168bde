"""The training loop: one step, repeated, on Lightning Fabric; what it needs to stop at any moment and go on.

Notable choices:
- Every random draw comes from (seed, step, position in the batch), so no random state has to be saved.
- The learning rate and sigma are functions of the step, set before each; no scheduler state either.
- A step is finished or it did not happen: signals are looked at between steps.
- Everything is built and checked before the run folder is made.
- One process. The draws and the order of samples are made for more.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from boqsa.atomic import one_process, recover_folder, write_text
from boqsa.data import PackedDataset
from boqsa.errors import RecipeError, RunError
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, checkpoint_folder, load_weights, read_recipe
from boqsa.models import MixtureModel, Noise
from boqsa.recipes import Recipe
from boqsa.training.checkpoint import save_checkpoint
from boqsa.training.data import StepImages
from boqsa.training.diagnostics import verdict
from boqsa.training.draws import batch_indices, draw_noise
from boqsa.training.evaluation import evaluate, headline
from boqsa.training.interval import Interval
from boqsa.training.log import Log
from boqsa.training.machine import accelerator, changed_since_start, keep_freed_memory, machine_facts
from boqsa.training.progress import RunProgress
from boqsa.training.resume import LOCK, last_checkpoint, saved_training, state_of
from boqsa.training.schedules import learning_rate_factor, query_sigma
from boqsa.training.signals import stop_signals

__all__ = ["check", "state_of", "train"]

# Fabric tells the precision of every Fabric that is made; it stands in the recipe.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)

_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}


def train(
    recipe: Recipe,
    run: str | Path,
    *,
    train_data: PackedDataset,
    validation_data: PackedDataset | None = None,
) -> bool:
    """Train a recipe into a run folder, or finish the run of that recipe that the folder holds.

    Args:
        recipe: What to run.
        run: Folder to make, or of an unfinished run of the same recipe, which goes on exactly where it was.
        train_data: Split to train on.
        validation_data: Split to look at during training; None does without `best_*` checkpoints.

    Returns:
        True if the run is finished, False if a signal stopped it; `checkpoints/last` can then be resumed.

    Raises:
        RunError: if the folder holds something else, a finished run or one of another recipe, or cannot be
            made; or if the loss stops being a number.
        RecipeError: if the recipe does not fit together, the data, or the machine.
    """
    for data in filter(None, (train_data, validation_data)):
        _check_size(recipe, data)
    training = _Training(recipe, Path(run))
    training.require_same_data(train_data)
    with (
        training.holding_folder(),
        RunProgress(recipe.train.steps, training.start) as progress,
        stop_signals() as stop,
    ):
        training.begin(train_data, progress)
        return training.run_steps(train_data, validation_data, progress, stop)


def check(recipe: Recipe, run: str | Path) -> None:
    """Raise what `train` would raise about recipe, machine and run folder, before any data is made."""
    _Training(recipe, Path(run))


class _Training:
    """One run: model, optimiser, counters, new or as the run folder has them. Making it writes nothing."""

    def __init__(self, recipe: Recipe, run: Path) -> None:
        self.recipe, self.run = recipe, run
        settings = recipe.train
        if settings.threads:
            torch.set_num_threads(settings.threads)
        device = accelerator(settings)
        self.saved = saved_training(recipe, run)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.plain_model = build_model(recipe)
        if self.saved is not None:
            self.plain_model.load_state_dict(load_weights(last_checkpoint(run) or run))
        elif settings.init_from is not None:
            _initialise(self.plain_model, settings.init_from)
        if settings.channels_last:
            self.plain_model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The fused kernel updates all parameters in one pass; on a CPU the plain one costs a tenth of a step.
        optimizer = torch.optim.Adam(self.plain_model.parameters(), lr=settings.learning_rate, fused=True)
        self.fabric = Fabric(accelerator=device, devices=1, precision=_PRECISION[settings.precision])
        self.model, self.optimizer = self.fabric.setup(self.plain_model, optimizer)
        if self.fabric.device.type == "cpu":
            keep_freed_memory()
        self.log = Log(run)
        self.start, self.seconds, self.best = 0, 0.0, dict[str, float]()
        self.interval = Interval(settings.batch_size)
        if self.saved is not None:
            self.optimizer.load_state_dict(self.saved["optimizer"])
            self.start, self.seconds, self.best = (self.saved[name] for name in ("step", "seconds", "best"))
            self.interval = Interval(settings.batch_size, self.saved["losses"].to(self.fabric.device))

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
        machine = machine_facts(self.fabric.device)
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
        images = StepImages(data, self.fabric.device)
        progress.say(str(images))
        for done in range(self.start + 1, settings.steps + 1):
            loss, norm = self.step(images, done - 1)
            self.interval.add(loss, norm)
            progress.step(done, loss=loss, images_per_second=self.interval.images_per_second)

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

    def step(self, images: StepImages, step: int) -> tuple[Tensor, Tensor]:
        """One optimiser step; its mean loss and the gradient norm before clipping, left on the device."""
        recipe, settings, device = self.recipe, self.recipe.train, self.fabric.device
        sigma = query_sigma(step, sigma_steps=settings.sigma_steps)
        draws_queries = sigma > 0 or recipe.model.queries != "learned"
        indices = batch_indices(recipe.seed, step, settings.batch_size, len(images))
        piece = settings.batch_size // settings.accumulate
        total = torch.zeros((), device=device)
        self.optimizer.zero_grad(set_to_none=True)
        for first in range(0, settings.batch_size, piece):
            image = images.batch(indices[first : first + piece])
            if settings.channels_last:
                image = image.contiguous(memory_format=torch.channels_last)
            noise = draw_noise(
                self.plain_model.noise_shapes(),
                seed=recipe.seed,
                step=step,
                positions=range(first, first + piece),
                perturb_queries=draws_queries,
            )
            output = self.model(image, sigma=sigma, noise=_to(noise, device))
            loss = output.loss / settings.accumulate
            self.fabric.backward(loss)
            total += loss.detach()
        # An infinite limit clips nothing and still measures the norm.
        norm = nn.utils.clip_grad_norm_(self.plain_model.parameters(), settings.clip_norm or float("inf"))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(
                step, warmup_steps=settings.warmup_steps, half_life_steps=settings.half_life_steps
            )
        self.optimizer.step()
        return total, norm

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
        settings = self.recipe.train
        self.log.append(
            "step",
            done,
            loss=self.interval.mean_loss,
            gradient_norm=self.interval.last_norm,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            sigma=query_sigma(done - 1, sigma_steps=settings.sigma_steps),
            images_per_second=round(self.interval.images_per_second, 1),
        )
        self.interval = Interval(settings.batch_size)

    def evaluate(self, validation: PackedDataset, done: int, progress: RunProgress) -> None:
        """Score the validation split, log it, and keep the best checkpoints."""
        protocol = self.recipe.evaluate
        scores = evaluate(
            self.plain_model, validation, protocol, limit=protocol.validation_limit, device=self.fabric.device
        )
        labelled = headline(scores)
        numbers = scores["diagnostics"]
        state, warnings = verdict(numbers, step=done, warmup_steps=self.recipe.train.warmup_steps)
        self.log.append("evaluation", done, loss=scores["loss"], **labelled)
        self.log.append("diagnostics", done, verdict=state, warnings=warnings, **numbers)
        shown = [name for name in ("ari_fg", "msc_fg", "ari", "iou", "dice") if name in labelled]
        values = "".join(f"  {name} {labelled[name]:.3f}" for name in shown)
        progress.say(f"step {done}: held-out loss {scores['loss']:.5f}{values}  ({state})")
        for warning in warnings:
            progress.say(f"  {warning}")
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
            "optimizer": self.optimizer.state_dict(),
            "losses": self.interval.losses.cpu(),
            "best": self.best,
            "seconds": self.seconds,
            "data": data.manifest.fingerprint,
        }

    def save(self, name: str, done: int, *, trainer: dict[str, Any] | None = None) -> None:
        """Write a checkpoint; without `trainer` it holds weights alone."""
        save_checkpoint(
            self.run / CHECKPOINTS / name,
            self.plain_model,
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


def _initialise(model: MixtureModel, source: str) -> None:
    read_recipe(source)  # a clear error where there is no run at all
    weights = load_weights(checkpoint_folder(source))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"the weights of {source} do not fit this recipe: {reason}") from None


def _to(noise: Noise, device: torch.device) -> Noise:
    return Noise(*(None if tensor is None else tensor.to(device) for tensor in noise))
