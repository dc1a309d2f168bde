"""All measurements of a recipe, in turn and repeated, and what follows from them: rates, shares and ratios.

A time is the median of a process's steps, and then of the rounds. Forms take turns within a round, so that what else
the machine does meets all of them. The report holds every number that a figure was made of.
"""

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from boqsa.bench.ceilings import SIZES, CeilingSizes
from boqsa.bench.operations import Operations
from boqsa.bench.processes import OutOfMemoryError, in_own_process
from boqsa.bench.work import (
    Form,
    Timed,
    compare_losses,
    count_operations,
    device_of,
    memory_needed,
    precision_of,
    read_images,
    time_form,
)
from boqsa.errors import RecipeError, RunError
from boqsa.recipes import Recipe
from boqsa.training.machine import accelerator, machine_facts
from boqsa.training.processes import started_processes

Progress = Callable[[str], None]


def bench(
    recipe: Recipe,
    *,
    reference: bool = False,
    batches: Sequence[int] = (),
    rounds: int = 3,
    seconds: float = 2.0,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Measure a recipe on this machine.

    Args:
        recipe: Its batch size, precision, device and threads are those that are measured.
        reference: Also measure the literal fp32 step, after its losses were found equal to the model's.
        batches: Also measure the training step at these batch sizes; one that does not fit is reported as such.
        rounds: Processes of each form that are timed.
        seconds: That each of them times steps for; one step at least.
        progress: Told what is measured next.

    Returns:
        Plain nested data, as `boqsa bench --json` prints it; docs/bench.md explains it.

    Raises:
        RecipeError: if a value is out of its range, or the machine lacks the recipe's device.
        RunError: if the recipe's own batch does not fit into memory.
        BoqsaError: if the losses of reference and model differ.
    """
    for name, value in {"--rounds": rounds, "--seconds": seconds}.items():
        if not value > 0:
            raise RecipeError(f"{name} is {value}; it must be above 0.")
    if started_processes().total > 1:
        raise RecipeError("boqsa bench measures one process; start it without torchrun or srun.")
    if recipe.model.kind == "radiance":
        raise RecipeError(
            "boqsa bench times models of images; benchmarks/radiance_step.py times a step of a radiance model."
        )
    if recipe.model.kind == "features":
        raise RecipeError("boqsa bench times models of images, and a features model reads features from files.")
    accelerator(recipe.train)
    others = [replace(recipe, train=replace(recipe.train, batch_size=batch)) for batch in dict.fromkeys(batches)]

    progress("counting operations")
    facts, operations = in_own_process(_prepare, recipe)
    differences = {}
    if reference:
        progress("comparing the losses of model and reference")
        differences = in_own_process(compare_losses, recipe)
    forms: tuple[Form, ...] = ("training", "evaluation", "reference") if reference else ("training", "evaluation")
    lines = {form: _Line(form, recipe, operations[form]) for form in forms}
    sweep = [
        lines["training"] if other == recipe else _Line("training", other, operations["training"], may_fail=True)
        for other in others
    ]
    every = [*lines.values(), *(line for line in sweep if line is not lines["training"])]

    rates = []
    device = torch.device(facts["device"]).type
    for number in range(1, 1 + rounds):
        for line in every:
            progress(f"round {number} of {rounds}: {line}")
            line.time(seconds=seconds, sizes=SIZES.get(device, SIZES["cpu"]))
        progress(f"round {number} of {rounds}: reading")
        with tempfile.TemporaryDirectory(prefix="boqsa-bench-") as folder:
            rates.append(in_own_process(read_images, recipe, Path(folder), seconds))
    if device == "cpu":
        for line in every:
            progress(f"memory: {line}")
            line.measure_needs()

    summaries = {form: line.summary() for form, line in lines.items()}
    return {
        "recipe": recipe.name,
        "hash": recipe.hash,
        "image_size": recipe.data.image_size,
        "batch": recipe.train.batch_size,
        "accumulate": recipe.train.accumulate,
        "precision": recipe.train.precision,
        "machine": facts,
        "forms": summaries,
        "reading": {
            "images": recipe.data.root or "random",
            "images_per_second": median(rates),
            "rounds": rates,
        },
        **({"against_reference": _ratios(summaries, differences)} if reference else {}),
        **({"batches": [line.summary() for line in sweep]} if sweep else {}),
    }


def _prepare(recipe: Recipe) -> tuple[dict[str, Any], dict[Form, tuple[Operations, Operations]]]:
    """Facts of the machine, and operations by form."""
    operations = count_operations(recipe)
    device = device_of(recipe)
    facts = machine_facts(device)
    del facts["processes"]
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"processor": processor, **facts}, operations


def _processor() -> str:
    """The CPU's name."""
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        for line in cpus.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class _Line:
    """A form at a batch size: what is found of it, round by round.

    Args:
        form, recipe: What is measured.
        operations: Of a forward and backward pass whatever the batch, and of each image in it.
        may_fail: Whether a batch that does not fit into memory is a finding, and not an error.
    """

    def __init__(
        self, form: Form, recipe: Recipe, operations: tuple[Operations, Operations], *, may_fail: bool = False
    ) -> None:
        self.form = form
        self.recipe = recipe
        pieces = recipe.train.accumulate if form == "training" else 1
        fixed, an_image = operations
        self.operations = Operations(0, 0).plus(fixed, pieces).plus(an_image, recipe.train.batch_size)
        self.may_fail = may_fail
        self.fails = ""
        self.rounds: list[Timed] = []
        self.needs: int | None = None

    def __str__(self) -> str:
        return f"{self.form}, batch {self.recipe.train.batch_size}"

    def time(self, *, seconds: float, sizes: CeilingSizes) -> None:
        """One round more."""
        timed = self._attempt(time_form, self.form, self.recipe, seconds, sizes)
        if timed is not None:
            self.rounds.append(timed)

    def measure_needs(self) -> None:
        """On a CPU, where the timed processes hold more than they need."""
        self.needs = self._attempt(memory_needed, self.form, self.recipe)

    def summary(self) -> dict[str, Any]:
        """What the report says of it."""
        batch = self.recipe.train.batch_size
        named = {"batch": batch, "precision": precision_of(self.form, self.recipe)}
        if self.fails:
            return {**named, "fails": self.fails}
        times = [median(timed.seconds) for timed in self.rounds]
        floors = [timed.ceilings.floor_s(self.operations) for timed in self.rounds]
        needs = [timed.peak.needs for timed in self.rounds if timed.peak.needs is not None]
        holds = [timed.peak.holds for timed in self.rounds if timed.peak.holds is not None]
        time = median(times)
        return {
            **named,
            "milliseconds": 1e3 * time,
            "images_per_second": batch / time,
            "operations": self.operations._asdict(),
            "flops_per_second": self.operations.total / time,
            "ceilings": {
                "convolution": median(timed.ceilings.convolution for timed in self.rounds),
                "product": median(timed.ceilings.product for timed in self.rounds),
            },
            "floor_milliseconds": 1e3 * median(floors),
            "share_of_ceilings": median(floor / time for floor, time in zip(floors, times, strict=True)),
            "needs_bytes": max(needs, default=self.needs),
            "holds_bytes": max(holds, default=None),
            "rounds": [
                {
                    "milliseconds": [1e3 * step for step in timed.seconds],
                    "ceilings": timed.ceilings._asdict(),
                    "peak": timed.peak._asdict(),
                }
                for timed in self.rounds
            ],
        }

    def _attempt(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """In a process of its own; None where memory was found too small, now or before."""
        if self.fails:
            return None
        try:
            return in_own_process(work, *arguments)
        except OutOfMemoryError as error:
            if not self.may_fail:
                raise RunError(f"{self} does not fit into memory ({error}); pass a smaller --batch.") from None
            self.fails = f"does not fit into memory ({error})"
            return None


def _ratios(summaries: dict[Form, dict[str, Any]], differences: dict[str, float]) -> dict[str, Any]:
    """The training step over the literal one."""
    ours, literal = summaries["training"], summaries["reference"]

    def ratio(name: str) -> float | None:
        return ours[name] / literal[name] if ours[name] and literal[name] else None

    return {
        "speed": literal["milliseconds"] / ours["milliseconds"],
        "memory_needed": ratio("needs_bytes"),
        "memory_held": ratio("holds_bytes"),
        "relative_difference_of_losses": differences,
    }
