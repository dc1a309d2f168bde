"""A training step of the transformer at batch 8: the training loop's own, against a literal eager one in fp32.

`literal_transformer.py` is the reference; the loop runs in fp32 and in bf16. All three start from the same weights, and
before anything is timed the losses of model and reference must agree in eval mode under the same noise. Each form runs
in a process of its own, in turn; prints median milliseconds, ratios, and the growth of the process's peak memory: what
it holds as it is timed, where the loop keeps freed blocks, and what it needs, measured in one more process for each
form, in which every large block is handed back when it is freed.
    python benchmarks/transformer_step.py              # birds_transformer: 128x128
    python benchmarks/transformer_step.py --small      # birds_transformer_small: 64x64
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from boqsa.recipes import Recipe

FORMS = ("literal", "fp32", "bf16")
GOAL = 1.8
"""Promise of the project: the loop's step at least 1.8x as fast as the literal one."""
AGREE = 1e-4
"""Relative; rounding of two orders of summation, over sums of tens of thousands of terms."""


def recipe_of(name: str, batch: int, precision: str, threads: int) -> "Recipe":
    """The recipe, on this machine's CPU and at this batch size."""
    from boqsa.recipes import get_recipe

    recipe = get_recipe(name)
    train = replace(recipe.train, batch_size=batch, accumulate=1, precision=precision, device="cpu", threads=threads)
    return replace(recipe, train=train)


class FixedImages:
    """Stands in for a packed split: random bytes, the same for every form."""

    def __init__(self, count: int, size: int) -> None:
        import torch

        self.images = torch.randint(
            0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int]) -> "Tensor":
        """The images of these indices."""
        return self.images[list(indices)]


def require_same_losses(recipe: "Recipe") -> None:
    """The reference computes what the model computes, or there is nothing to compare."""
    import torch
    from literal_transformer import LiteralStep

    from boqsa.inference.load import build_model
    from boqsa.training.draws import draw_gumbel, draw_noise

    torch.manual_seed(recipe.seed)
    model = build_model(recipe).eval()
    batch = recipe.train.batch_size
    image = FixedImages(batch, recipe.data.image_size).images
    shapes = model.noise_shapes()
    draws = {"seed": 0, "step": 0, "positions": range(batch)}
    soft, hard = draw_gumbel(shapes["gumbel_soft"], **draws)
    noise = draw_noise(shapes, perturb_queries=True, **draws)._replace(gumbel_soft=soft, gumbel_hard=hard)
    with torch.no_grad():
        wanted = LiteralStep(model, recipe).losses(image, sigma=0.5, tau=0.7, noise=noise)
        ours = deepcopy(model).to(memory_format=torch.channels_last)
        found = ours(image.contiguous(memory_format=torch.channels_last), sigma=0.5, tau=0.7, noise=noise).losses
    for name, value in wanted.items():
        relative = abs(float(found[name] - value)) / abs(float(value))
        print(f"{name:14} {float(found[name]):12.4f}  literal {float(value):12.4f}  relative difference {relative:.1e}")
        if not relative < AGREE:
            raise SystemExit(f"the losses differ by more than {AGREE}: the reference is not the same algorithm")


HANDS_BACK = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16), "MALLOC_TRIM_THRESHOLD_": str(1 << 16)}
"""Environment in which glibc maps each block of 64 KiB or more by itself: resident memory is then what is in use."""


def let_blocks_go() -> None:
    """Keep the training loop from setting the allocator, in a process that runs under `HANDS_BACK`."""
    from boqsa.training import step

    step.keep_freed_memory = lambda: False


def measure(form: str, recipe: "Recipe", steps: int) -> tuple[float, float]:
    """Median milliseconds of a step, and growth of the peak resident memory in MiB."""
    import torch

    from boqsa.inference.load import build_model

    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    images = FixedImages(4 * recipe.train.batch_size, recipe.data.image_size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.manual_seed(recipe.seed)
    model = build_model(recipe).train()
    if form == "literal":
        from literal_transformer import LiteralStep

        literal = LiteralStep(model, recipe)

        def step(number: int) -> None:
            first = number * recipe.train.batch_size % len(images)
            literal.step(images.images[first : first + recipe.train.batch_size])
    else:
        from boqsa.training.step import TrainStep

        ours = TrainStep(recipe, model)

        def step(number: int) -> None:
            ours(images, number)

    step(0)  # the first one allocates, and chooses kernels
    seconds = []
    for number in range(1, 1 + steps):
        began = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - began)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    return 1e3 * statistics.median(seconds), grown / 1024


def arguments() -> argparse.Namespace:
    """Of the command line; `--form` is what the processes are started with."""
    parser = argparse.ArgumentParser(description="A training step against a literal eager one.")
    parser.add_argument("--small", action="store_true", help="birds_transformer_small instead of birds_transformer")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each form")
    parser.add_argument("--steps", type=int, default=3, help="timed in each process, after one that is not")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 keeps its choice")
    parser.add_argument("--form", choices=("check", *FORMS), help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Check, run all forms in turn and print them."""
    options = arguments()
    name = "birds_transformer_small" if options.small else "birds_transformer"
    if options.form:
        precision = "bf16" if options.form == "bf16" else "fp32"
        recipe = recipe_of(name, options.batch, precision, options.threads)
        if options.form == "check":
            require_same_losses(recipe)
        elif options.memory:
            let_blocks_go()
            print(*measure(options.form, recipe, steps=1))
        else:
            print(*measure(options.form, recipe, options.steps))
        return

    def run(form: str, *, memory: bool = False) -> str:
        command = [sys.executable, __file__, *sys.argv[1:], "--form", form, *(["--memory"] if memory else [])]
        environment = HANDS_BACK if memory else None
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout

    print(f"{name}, batch {options.batch}, CPU, {options.threads or 'default'} threads")
    print(run("check"), end="")
    found: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for _ in range(options.rounds):
        for form in FORMS:
            milliseconds, mebibytes = run(form).split()
            found[form].append((float(milliseconds), float(mebibytes)))
    needed = {form: float(run(form, memory=True).split()[1]) for form in FORMS}
    times = {form: statistics.median(time for time, _ in rounds) for form, rounds in found.items()}
    for form, rounds in found.items():
        spread = " ".join(f"{time:.0f}" for time, _ in rounds)
        held = max(memory for _, memory in rounds)
        ratio = times["literal"] / times[form]
        memory = f"needs {needed[form]:6.0f} MiB, holds {held:6.0f} MiB"
        print(f"{form:8} {times[form]:9.0f} ms a step ({spread})  ratio {ratio:5.2f}  {memory}")
    print(f"goal: a ratio of at least {GOAL:g}")


if __name__ == "__main__":
    main()
