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
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from boqsa.atomic import write_text
from boqsa.data import PackedDataset
from boqsa.errors import RunError, as_typed
from boqsa.inference.load import model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE
from boqsa.models.published import Model
from boqsa.recipes import Recipe
from boqsa.recipes.band import Band, expected_band
from boqsa.training.checkpoint import save_checkpoint
from boqsa.training.data import data_identity
from boqsa.training.diagnostics import verdict
from boqsa.training.evaluation import SHOWN_METRICS, evaluate, headline
from boqsa.training.faults import advice_after_divergence, told_in_words
from boqsa.training.features import with_encoder
from boqsa.training.folder import alone_in, log_resumed, mend
from boqsa.training.interval import Interval
from boqsa.training.log import Log, NoLog
from boqsa.training.machine import machine_facts
from boqsa.training.pictures import draw_scenes
from boqsa.training.processes import missing_each_other
from boqsa.training.progress import RunProgress
from boqsa.training.radiance_step import files_used, step_of
from boqsa.training.resume import checkpoints_now, kept, require_same_data, saved_training, state_of
from boqsa.training.schedules import Plateau
from boqsa.training.signals import stop_signals
from boqsa.training.sinks import require_sinks
from boqsa.training.skipped import SkippedSteps
from boqsa.training.start import check_data, computes_on, deterministic, starting_model

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
            made; or if the loss stops being a number.
        BusyError: if another process is training the run.
        MachineError: if disk or memory do not suffice, or another process of the job died.
        RecipeError: if the recipe does not fit together, the data, or the machine.
        InputError: if the package of one of `log_to` is not installed.
    """
    recipe = with_encoder(recipe, train_data)
    check_data(recipe, train_data, validation_data)
    run = Path(run)
    with told_in_words(recipe, run), missing_each_other():
        training = _Training(recipe, run, allow_changes=allow_changes, log_to=log_to)
    if training.saved is not None and not allow_changes:
        require_same_data(training.saved, train_data, training.run)
    console = None if training.writes else Console(quiet=True)
    with (
        missing_each_other(),
        deterministic(recipe.train.deterministic),
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
        self.recipe, self.run = recipe, run
        require_sinks(log_to)
        self.seen = checkpoints_now(run)
        self.saved = saved_training(recipe, run, allow_changes=allow_changes)
        self.step = step_of(recipe, starting_model(recipe, None if self.saved is None else self.saved.folder))
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
            self.saved = self.saved._replace(trainer={})  # or moments of the optimiser would stay, twice the model

    def restore(self, saved: dict[str, Any]) -> None:
        """Take up what `state` gave. Checkpoints of earlier versions lack some of it, and need none."""
        device = self.step.device
        self.step.optimizer.load_state_dict(saved["optimizer"])
        self.step.restore(saved)
        self.start, self.seconds, self.best = saved["step"], saved["seconds"], dict(saved["best"])
        parts = {name: values.to(device) for name, values in saved.get("parts", {}).items()}
        self.interval = Interval(self.recipe.train.batch_size, saved["losses"].to(device), parts)
        self.skipped = SkippedSteps(device, saved.get("skipped", (0, 0, 0, 0)))
        self.plateau = Plateau(*saved.get("plateau", Plateau()))

    @contextmanager
    def holding_folder(self) -> Iterator[None]:
        """The first process keeps other jobs from the run folder; the others hear whether it could."""
        # Here every process of this job has read the folder, and none has changed it.
        if not self.step.all_have(self.start):
            raise RunError(
                f"the processes of this job do not go on from the same step of {self.run} (the first one from "
                f"{self.start}); give them one folder that all see alike, then start the same command again."
            )
        if not self.writes:
            if self.step.any_process(False):
                raise RunError(f"the first process of this job could not open {self.run}; it says why.")
            yield
            return
        with ExitStack() as held:
            try:
                held.enter_context(alone_in(self.run, self.seen))
            except Exception:
                self.step.any_process(True)
                raise
            self.step.any_process(False)
            yield

    def begin(self, data: PackedDataset, progress: RunProgress) -> None:
        """Mend the run folder, open the log, and say what goes on."""
        folder = self.run / CHECKPOINTS
        is_new = mend(self.recipe, self.run, self.saved, self.log, data, progress.say)
        # What is best is so among the checkpoints that are there.
        self.best = {name: value for name, value in self.best.items() if (folder / f"best_{name}").exists()}
        self.log.open(self.recipe, self.start, progress.say)
        identity = data_identity(self.recipe.data, data.manifest.fingerprint)
        self.band, why_none = expected_band(self.recipe, identity)
        if self.band is None:
            progress.say(why_none)
        facts = {"data": data.manifest.fingerprint, **self.machine()}
        if self.saved is not None and self.start:
            log_resumed(self.recipe, self.run, self.saved, self.log, facts, progress.say)
            return
        if not is_new:
            progress.say(f"{self.run} has no checkpoint yet; starting at step 0 of {self.recipe.train.steps}")
        self.log.append("started", 0, identity=identity, **facts)

    def machine(self) -> dict[str, Any]:
        """What the log says of where this process runs."""
        facts = machine_facts(self.step.device, processes=self.step.fabric.world_size)
        return {**facts, **computes_on(self.step.device, self.recipe), **files_used(self.recipe)}

    def run_steps(
        self, data: PackedDataset, validation: PackedDataset | None, progress: RunProgress, stop: list[Any]
    ) -> bool:
        """All steps that are left; False if `stop` was filled before the end."""
        settings = self.recipe.train
        began = time.monotonic() - self.seconds
        images = self.step.images(data)
        progress.say(str(images))
        for done in range(self.start + 1, settings.steps + 1):
            with told_in_words(self.recipe, self.run, "step"):
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
            self.require_finite(done, data)
            if self.writes:
                self.require_folder(done, data, progress)
            if to_log:
                self.log_step(done)
            with self.interval.paused():
                if validation is not None and to_evaluate:
                    self.evaluate(validation, done, progress)
                self.seconds = time.monotonic() - began
                if is_last:
                    self.log.append("finished", done, seconds=round(self.seconds, 1))
                if to_save:
                    self.log.flush()
                    self.save("last", done, trainer=self.state(done, data), keep=settings.keep_last)
            if stopping:
                self.log.append("stopped", done, signal=stop[0].name if stop else "of another process")
                progress.say(f"stopped at step {done}; go on with `boqsa train --resume {as_typed(self.run)}`")
                # A launcher kills a job whose first process has left: all leave once the checkpoint is written.
                self.step.any_process(False)
                return False
        return True

    def require_finite(self, done: int, data: PackedDataset) -> None:
        """Stop the run if too many steps in a row gave no number, or a weight is none; weights that are good are saved.

        Where steps are skipped the weights are those before the first of them. Where none was made since the run was
        resumed they are those that it was resumed with: they stand in `last` already, and what is before it stays.
        """
        settings, is_finite = self.recipe.train, _is_finite(self.step.plain_model)
        in_a_row = self.skipped.look()
        if in_a_row < max(settings.nonfinite_patience, 1) and is_finite:
            return
        self.log.append("diverged", done, loss=self.interval.last_loss, in_a_row=in_a_row)
        if is_finite and settings.nonfinite_patience and done - in_a_row > self.start:
            self.skipped.forgive()  # or it would stop again at once
            step = min(done, settings.steps - 1)  # from the last step on nothing could go on
            self.log.flush()
            # With the one before it: these weights may give no number ever again.
            self.save("last", step, trainer=self.state(step, data), keep=max(settings.keep_last, 2))
        self.step.any_process(False)  # a launcher kills a job whose first process has left
        raise RunError(
            f"the loss or its gradient is not a number at step {done}, after {in_a_row} such steps in a row; "
            f"{kept(self.run)}. {advice_after_divergence(self.recipe, self.run)}"
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
        self.log.append("remade", done, data=data.manifest.fingerprint, **self.machine())
        self.save("last", done, trainer=self.state(done, data), keep=self.recipe.train.keep_last)
        raise RunError(
            f"{run}, or the recipe in it, was deleted while it was trained. It was made anew, with its recipe and the "
            f"state of step {done}; what else was deleted is lost. Go on with `boqsa train --resume {as_typed(run)}`."
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
            **self.step.more_norms(),
            **self.step.rates(),
            **self.step.options(done - 1),
            images_per_second=round(self.interval.images_per_second, 1),
            **({"skipped": skipped} if skipped else {}),
        )
        self.interval = Interval(self.recipe.train.batch_size)

    def evaluate(self, validation: PackedDataset, done: int, progress: RunProgress) -> None:
        """Score the validation split, log it, and keep the best checkpoints."""
        protocol = self.recipe.evaluate
        model, device = self.step.plain_model, self.step.device
        with told_in_words(self.recipe, self.run, "evaluation"):
            scores = evaluate(model, validation, protocol, limit=protocol.validation_limit, device=device)
        labelled = headline(scores)
        numbers = scores["diagnostics"]
        state, warnings = verdict(numbers, step=done, warmup_steps=self.recipe.train.warmup_steps)
        self.log.append("evaluation", done, loss=scores["loss"], **labelled)
        self.log.append("diagnostics", done, verdict=state, warnings=warnings, **numbers)
        if self.log.wants_pictures:
            try:
                picture = draw_scenes(model, validation, 4, device=device)
            except Exception as error:  # pictures show a run and decide nothing, so no failure of theirs ends it
                self.log.leave_out_pictures(error)
            else:
                self.log.picture("masks", done, picture)
        shown = [name for name in SHOWN_METRICS if name in labelled]
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
            **self.step.more_state(),
            "losses": self.interval.losses.cpu(),
            "parts": {name: values.cpu() for name, values in self.interval.parts.items()},
            "skipped": self.skipped.state,
            "plateau": tuple(self.plateau),
            "best": self.best,
            "seconds": self.seconds,
            "data": data.manifest.fingerprint,
            "images": len(data),
        }

    def save(self, name: str, done: int, *, trainer: dict[str, Any] | None = None, keep: int = 1) -> None:
        """Write a checkpoint, without `trainer` of weights alone, and keep so many of its kind."""
        if not self.writes:
            return
        save_checkpoint(
            self.run / CHECKPOINTS / name,
            self.step.plain_model,
            config=model_config(self.recipe),
            step=done,
            recipe_hash=self.recipe.hash,
            trainer=trainer,
            keep=keep,
        )


def _is_finite(model: Model) -> bool:
    return bool(torch.stack([parameter.detach().isfinite().all() for parameter in model.parameters()]).all())
