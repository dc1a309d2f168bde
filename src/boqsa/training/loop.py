"""The training loop: one step, repeated, on Lightning Fabric; what it needs to stop at any moment and go on.

Notable choices:
- Every random draw comes from (seed, step, position in the batch), so nothing about randomness has to be saved.
- The learning rate and sigma are functions of the step, set before each; no scheduler state either.
- A step is finished or it did not happen: signals are looked at between steps.
- One process. The draws and the order of samples are made for more.
"""

import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import boqsa
from boqsa.atomic import recover_folder, write_text
from boqsa.data import PackedDataset
from boqsa.errors import RecipeError, RunError
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, MANIFEST, RECIPE, checkpoint_folder, load_weights, read_manifest, read_recipe
from boqsa.models import Noise
from boqsa.recipes import Recipe
from boqsa.recipes.recipe import differences
from boqsa.training.checkpoint import load_trainer, save_checkpoint
from boqsa.training.diagnostics import verdict
from boqsa.training.draws import batch_indices, draw_noise
from boqsa.training.evaluation import evaluate, headline
from boqsa.training.log import Log
from boqsa.training.progress import RunProgress
from boqsa.training.schedules import learning_rate_factor, query_sigma

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


def train(
    recipe: Recipe, run: str | Path, *, train_data: PackedDataset, validation_data: PackedDataset | None = None
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
        RunError: if the folder holds something else, a finished run or one of another recipe; or if the loss stops
            being a number.
        RecipeError: if the recipe does not fit together, the data, or the machine.
    """
    run = Path(run)
    _check_data(recipe, train_data)
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    fabric = Fabric(accelerator=_accelerator(recipe), devices=1, precision=_PRECISION[recipe.train.precision])
    training = _Training(recipe, run, fabric)
    start = training.prepare(train_data)
    progress = RunProgress(recipe.train.steps, start)
    if start:
        progress.say(f"resuming {run} at step {start} of {recipe.train.steps}")
    with progress, _stop_signals() as stop:
        return training.run_steps(train_data, validation_data, progress, stop)


def state_of(run: str | Path) -> tuple[int, int] | None:
    """Finished steps and steps in all of the run in a folder; None if the folder is absent or empty.

    Raises:
        RunError: if the folder holds something else than a run.
    """
    run = Path(run)
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return None
    recipe = read_recipe(run)
    recover_folder(run / CHECKPOINTS / "last")
    if not (run / CHECKPOINTS / "last" / MANIFEST).is_file():
        return 0, recipe.train.steps
    return int(read_manifest(checkpoint_folder(run))["step"]), recipe.train.steps


class _Training:
    """The parts of one run that the steps share."""

    def __init__(self, recipe: Recipe, run: Path, fabric: Fabric) -> None:
        self.recipe, self.run, self.fabric = recipe, run, fabric
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = build_model(recipe)
        if recipe.train.init_from is not None:
            _initialise(model, recipe.train.init_from)
        if recipe.train.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The fused kernel updates all parameters in one pass; on a CPU the plain one costs a tenth of a step.
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.train.learning_rate, fused=True)
        self.noise_shapes = model.noise_shapes()
        self.plain_model = model
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.log = Log(run)
        self.best: dict[str, float] = {}
        self.seconds = 0.0

    def prepare(self, data: PackedDataset) -> int:
        """Make the run folder, or restore what is in it; the step to start at."""
        recipe, run = self.recipe, self.run
        state = state_of(run)
        if state is None:
            run.mkdir(parents=True, exist_ok=True)
            write_text(run / RECIPE, recipe.to_json())
            self.log.append("started", 0, data=data.manifest.fingerprint, **self.environment())
            return 0
        changed = differences(read_recipe(run), recipe)
        if recipe.hash != read_recipe(run).hash:
            raise RunError(
                f"{run} holds a run of another recipe ({'; '.join(changed)}); choose another --out, "
                f"or continue that run with `boqsa train --resume {run}`."
            )
        done, total = state
        if done >= total:
            raise RunError(f"{run} is finished ({done} steps); choose another --out, or look at it with `boqsa evaluate {run}`.")
        (run / CHECKPOINTS).mkdir(exist_ok=True)
        for name in ("last", "best_loss", f"best_{recipe.evaluate.select_by}"):
            recover_folder(run / CHECKPOINTS / name)
        self.log.cut_after(done)
        if done:
            folder = checkpoint_folder(run)
            trainer = load_trainer(folder)
            if trainer["data"] != data.manifest.fingerprint:
                raise RunError(f"{run} was trained on other data than {data.path}; give the data it began with.")
            self.plain_model.load_state_dict(load_weights(folder))
            self.optimizer.load_state_dict(trainer["optimizer"])
            self.best, self.seconds = trainer["best"], trainer["seconds"]
        self.log.append("resumed", done, **self.environment())
        return done

    def run_steps(
        self, data: PackedDataset, validation: PackedDataset | None, progress: RunProgress, stop: list[int]
    ) -> bool:
        """All steps that are left; False if `stop` was filled before the end."""
        settings = self.recipe.train
        start = self._step_in_file
        mark, marked_step = time.monotonic(), start
        losses: list[Tensor] = []
        rate = 0.0
        for step in range(start, settings.steps):
            loss, norm = self.step(data, step)
            losses.append(loss)
            done = step + 1
            if done % settings.log_every == 0 or done == settings.steps:
                mean = float(torch.stack(losses).mean())
                losses.clear()
                self.seconds += time.monotonic() - mark
                rate = (done - marked_step) * settings.batch_size / max(time.monotonic() - mark, 1e-9)
                self.log.append(
                    "step",
                    done,
                    loss=mean,
                    gradient_norm=float(norm),
                    learning_rate=self.optimizer.param_groups[0]["lr"],
                    sigma=query_sigma(step, sigma_steps=settings.sigma_steps),
                    images_per_second=round(rate, 1),
                )
                if not torch.isfinite(torch.tensor(mean)):
                    raise RunError(
                        f"the loss is {mean} at step {done}; {self.run}/checkpoints/last holds the last good state. "
                        "Start again with a lower --train.learning-rate, or with --train.precision fp32."
                    )
                progress.step(done, loss=mean, images_per_second=rate)
                mark, marked_step = time.monotonic(), done
            if validation is not None and (done % settings.evaluate_every == 0 or done == settings.steps):
                self.evaluate(validation, done, progress)
                mark, marked_step = time.monotonic(), done
            if done % settings.checkpoint_every == 0 or done == settings.steps or stop:
                self.save("last", done, data)
            if stop and done < settings.steps:
                self.log.append("stopped", done, signal=signal.Signals(stop[0]).name)
                progress.say(f"stopped at step {done}; go on with `boqsa train --resume {self.run}`")
                return False
        self.log.append("finished", settings.steps, seconds=round(self.seconds, 1))
        return True

    def step(self, data: PackedDataset, step: int) -> tuple[Tensor, Tensor]:
        """One optimiser step; its mean loss and the gradient norm before clipping, both left on the device."""
        recipe, settings = self.recipe, self.recipe.train
        sigma = query_sigma(step, sigma_steps=settings.sigma_steps)
        perturb = sigma > 0 or recipe.model.queries != "learned"
        indices = batch_indices(recipe.seed, step, settings.batch_size, len(data))
        piece = settings.batch_size // settings.accumulate
        total = torch.zeros((), device=self.fabric.device)
        self.optimizer.zero_grad(set_to_none=True)
        for first in range(0, settings.batch_size, piece):
            positions = range(first, first + piece)
            image = data.batch(indices[first : first + piece])["image"].to(self.fabric.device)
            if settings.channels_last:
                image = image.contiguous(memory_format=torch.channels_last)
            noise = draw_noise(
                self.noise_shapes, seed=recipe.seed, step=step, positions=positions, perturb_queries=perturb
            )
            output = self.model(image, sigma=sigma, noise=_to(noise, self.fabric.device))
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

    def evaluate(self, validation: PackedDataset, done: int, progress: RunProgress) -> None:
        """Score the validation split, log it, and keep the best checkpoints."""
        protocol = self.recipe.evaluate
        scores = evaluate(
            self.plain_model, validation, protocol, limit=protocol.validation_limit, device=self.fabric.device
        )
        labelled = headline(scores)
        state, warnings = verdict(scores["diagnostics"], step=done, warmup_steps=self.recipe.train.warmup_steps)
        self.log.append("evaluation", done, loss=scores["loss"], **labelled)
        self.log.append("diagnostics", done, verdict=state, warnings=warnings, **scores["diagnostics"])
        shown = {name: labelled[name] for name in ("ari_fg", "msc_fg", "ari", "iou", "dice") if name in labelled}
        progress.say(
            f"step {done}: held-out loss {scores['loss']:.5f}"
            + "".join(f"  {name} {value:.3f}" for name, value in shown.items())
            + f"  ({state})"
        )
        for warning in warnings:
            progress.say(f"  {warning}")
        candidates = {"loss": -scores["loss"]}
        if protocol.select_by in labelled:
            candidates[protocol.select_by] = labelled[protocol.select_by]
        for name, value in candidates.items():
            if value > self.best.get(name, float("-inf")):
                self.best[name] = value
                self.save(f"best_{name}", done, None)

    def save(self, name: str, done: int, data: PackedDataset | None) -> None:
        """Write a checkpoint; with `data` it can be resumed, without it holds weights alone."""
        trainer = None
        if data is not None:
            trainer = {
                "optimizer": self.optimizer.state_dict(),
                "best": self.best,
                "seconds": self.seconds,
                "data": data.manifest.fingerprint,
            }
        save_checkpoint(
            self.run / CHECKPOINTS / name,
            self.plain_model,
            config=model_config(self.recipe),
            step=done,
            recipe_hash=self.recipe.hash,
            trainer=trainer,
        )

    def environment(self) -> dict[str, Any]:
        """What bit-identity depends on beside the recipe."""
        return {
            "boqsa": boqsa.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": str(self.fabric.device),
            "threads": torch.get_num_threads(),
        }

    @property
    def _step_in_file(self) -> int:
        state = state_of(self.run)
        return state[0] if state else 0


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that Ctrl-C and SIGTERM put themselves into; a second Ctrl-C stops at once."""
    received: list[int] = []

    def remember(number: int, _: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_data(recipe: Recipe, data: PackedDataset) -> None:
    size = recipe.data.image_size
    if data.image_size != (size, size):
        raise RecipeError(
            f"{data.path} holds {data.image_size[0]}x{data.image_size[1]} images, the recipe wants {size}x{size}; "
            f"prepare it with --image-size {size}."
        )


def _accelerator(recipe: Recipe) -> str:
    device = recipe.train.device
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device != "auto" and not available[device]:
        has = ", ".join(name for name, there in available.items() if there)
        raise RecipeError(f"train.device is {device!r}, but this machine and torch have {has}; pass --train.device cpu.")
    return device


def _initialise(model: nn.Module, source: str) -> None:
    try:
        model.load_state_dict(load_weights(checkpoint_folder(source)))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"the weights of {source} do not fit this recipe: {reason}") from None


def _to(noise: Noise, device: torch.device) -> Noise:
    return Noise(*(None if tensor is None else tensor.to(device) for tensor in noise))
