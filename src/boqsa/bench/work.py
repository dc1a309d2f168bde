"""What is measured, each function in a process of its own: steps, memory, arithmetic, agreement, reading.

A *form* is a step of a kind: `training` is the training loop's own step, `evaluation` the forward pass of
`boqsa evaluate` and of the scores during training (fp32, without a graph; the metrics are not in it), `reference` the
literal step. All forms get the same random images, from memory.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from boqsa.bench.ceilings import Ceilings, CeilingSizes, measure_ceilings
from boqsa.bench.literal import LiteralStep
from boqsa.bench.memory import Peak, PeakMemory, bytes_needed, hand_back_freed_memory
from boqsa.bench.operations import OperationCounter, Operations
from boqsa.bench.stopwatch import Stopwatch
from boqsa.data import PackedDataset, write_packed
from boqsa.errors import BoqsaError
from boqsa.inference.load import build_model
from boqsa.models import Output
from boqsa.recipes import Recipe
from boqsa.training.data import StepImages, open_split
from boqsa.training.draws import batch_indices, draw_gumbel, draw_noise, samples
from boqsa.training.machine import keep_freed_memory, sent
from boqsa.training.processes import join_processes
from boqsa.training.step import TrainStep

Form = Literal["training", "evaluation", "reference"]

AGREE = 1e-4
"""Relative; rounding of two orders of summation, over sums of tens of thousands of terms."""

_WARM_UP = {"cuda": 3}
"""Steps that are not timed, by device; elsewhere one, which allocates and chooses kernels."""
_PACKED_BYTES = 32 << 20
_MOST_PACKED = 8_192


class RandomImages:
    """Stands in for a split: random bytes on the device, the same for every form."""

    def __init__(self, count: int, size: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator).to(device)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int] | Int[np.ndarray, "B"]) -> UInt8[Tensor, "B 3 H W"]:
        """The images of these indices."""
        return self.images[sent(torch.from_numpy(np.asarray(indices)), self.images.device)]


@dataclass(frozen=True)
class Timed:
    """What a process that timed a form found."""

    seconds: list[float]
    """Of each step."""
    peak: Peak
    """On a CPU `needs` is None: another process measures it."""
    ceilings: Ceilings
    """Mean of those before and after the steps, in the form's precision."""


def precision_of(form: Form, recipe: Recipe) -> str:
    """fp32 or bf16: evaluation and the reference are always in fp32."""
    return recipe.train.precision if form == "training" else "fp32"


def time_form(form: Form, recipe: Recipe, seconds: float, sizes: CeilingSizes) -> Timed:
    """Steps of a form for so many seconds, one at least, and the ceilings around them."""
    device = device_of(recipe)
    ceilings = partial(measure_ceilings, device, _dtype(form, recipe), sizes, seconds=seconds / 4)
    images = _images(recipe, device)
    before = ceilings()
    memory = PeakMemory(device)
    step = _build(form, recipe, images)
    warm_up = _WARM_UP.get(device.type, 1)
    for number in range(warm_up):
        step(number)
    found = Stopwatch(device).repeat(lambda number: step(warm_up + number), seconds=seconds)
    peak = memory.growth()
    after = ceilings()
    if device.type == "cpu":
        peak = peak._replace(needs=None)
    mean = Ceilings(*((early + late) / 2 for early, late in zip(before, after, strict=True)))
    return Timed(found, peak, mean)


def memory_needed(form: Form, recipe: Recipe) -> int | None:
    """Bytes that a form needs on the CPU, beyond what a process has that made its images and used each library once."""
    device = device_of(recipe)
    images = _images(recipe, device)
    measure_ceilings(device, _dtype(form, recipe), CeilingSizes(images=1, matrix=64), seconds=0)

    def work() -> None:
        step = _build(form, recipe, images)
        hand_back_freed_memory()  # a training step has asked for the opposite
        for number in range(2):  # the second one has Adam's moments
            step(number)

    return bytes_needed(work)


def count_operations(recipe: Recipe) -> dict[Form, tuple[Operations, Operations]]:
    """What a forward and backward pass computes whatever the batch, and what each image adds; by form.

    Counted at one and at two images: both parts of the line are exact. The reference is counted as the training step,
    since it is there for the same result.
    """
    found: dict[Form, tuple[Operations, Operations]] = {}
    forms: tuple[Form, ...] = ("training", "evaluation")
    for form in forms:
        counted = []
        for batch in (1, 2):
            # Not compiled: what is counted are PyTorch's own operations.
            small = replace(recipe, train=replace(recipe.train, batch_size=batch, accumulate=1, compile=False))
            step = _build(form, small, _images(small, device_of(small)))
            with OperationCounter() as counter:
                step(0)
            counted.append(counter.counted)
        one, two = counted
        an_image = two.plus(one, times=-1)
        found[form] = (one.plus(an_image, times=-1), an_image)
    found["reference"] = found["training"]
    return found


def compare_losses(recipe: Recipe) -> dict[str, float]:
    """Relative difference of each loss between model and reference: eval mode, fp32, CPU, two images, equal noise.

    Raises:
        BoqsaError: if one is larger than `AGREE`: then there is nothing to compare.
    """
    torch.manual_seed(recipe.seed)
    model = build_model(recipe).eval()
    image = RandomImages(2, recipe.data.image_size, torch.device("cpu")).images
    shapes = model.noise_shapes()
    noise = draw_noise(shapes, seed=0, step=0, positions=range(2), perturb_queries=True)
    options = {"sigma": 0.5}
    if "gumbel_soft" in shapes:
        soft, hard = draw_gumbel(shapes["gumbel_soft"], seed=0, step=0, positions=range(2))
        noise = noise._replace(gumbel_soft=soft, gumbel_hard=hard)
        options["tau"] = 0.7
    with torch.no_grad():
        ours = deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = ours(image.contiguous(memory_format=torch.channels_last), noise=noise, **options).losses
        wanted = LiteralStep(model, recipe).losses(image, noise=noise, **{"tau": 1.0, **options})
    differences = {name: abs(float(found[name] - value)) / abs(float(value)) for name, value in wanted.items()}
    for name, difference in differences.items():
        if not difference < AGREE:
            raise BoqsaError(
                f"the reference is not the same algorithm: its loss {name!r} is {float(wanted[name]):.6g}, the model's "
                f"{float(found[name]):.6g}; please report it, and leave out --reference."
            )
    return differences


def read_images(recipe: Recipe, folder: Path, seconds: float) -> float:
    """Images a second that a step would get, by the batch and shuffled, from the recipe's data or from random images.

    Args:
        recipe: Its `data.root` is read; without one, images are packed first.
        folder: An empty one to pack them in.
        seconds: How long to read; an epoch at most is read before that.
    """
    size, batch = recipe.data.image_size, recipe.train.batch_size
    if recipe.data.root is None:
        count = max(batch, min(_MOST_PACKED, _PACKED_BYTES // (3 * size * size)))
        images = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
        write_packed(
            folder / "packed",
            {"train": (images, None)},
            name="arrays",
            source="random",
            licence="none",
            task="multi-object",
            split_rule="all of them",
        )
        data = PackedDataset(folder / "packed", "train")
    else:
        data = open_split(recipe.data, recipe.data.train_split)
    device = device_of(recipe)
    reader = StepImages(data, device)
    reader.batch(batch_indices(recipe.seed, 0, batch, len(reader)))
    read = Stopwatch(device).repeat(
        lambda number: reader.batch(batch_indices(recipe.seed, 1 + number, batch, len(reader))), seconds=seconds
    )
    return batch / median(read)


def device_of(recipe: Recipe) -> torch.device:
    """Where the recipe runs; torch gets its number of threads."""
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    return join_processes(recipe).device


def _dtype(form: Form, recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if precision_of(form, recipe) == "bf16" else torch.float32


def _images(recipe: Recipe, device: torch.device) -> RandomImages:
    return RandomImages(2 * recipe.train.batch_size, recipe.data.image_size, device)


def _build(form: Form, recipe: Recipe, images: RandomImages) -> Callable[[int], object]:
    """The step of a form, as a function of its number, with fresh weights."""
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    batch, device = recipe.train.batch_size, images.images.device

    def some(number: int) -> UInt8[Tensor, "B 3 H W"]:
        first = number % 2 * batch
        return images.images[first : first + batch]

    if form == "training":
        ours = TrainStep(recipe, model.train())
        return lambda number: ours(images, number)
    if form == "reference":
        literal = LiteralStep(model.train().to(device), recipe)
        return lambda number: literal.step(some(number))
    model.eval().to(device)
    if recipe.train.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cpu":
        keep_freed_memory()  # as in the training loop
    places = np.arange(batch)

    def evaluate(number: int) -> Tensor:
        with torch.inference_mode():
            output: Output = model(some(number), noise=samples(model, places, device))
            return output.segmentation()

    return evaluate
