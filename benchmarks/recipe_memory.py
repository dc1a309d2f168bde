"""Peak memory of a training step of every transformer and SLATE recipe, and what it would be at batch 128.

Each measurement is a process of its own, on the CPU: the growth of its peak resident memory over two steps of the
training loop, from before the model is built, while every large block is handed back when it is freed. (The loop
itself keeps freed blocks on a CPU, so a training process holds more; `transformer_step.py` measures both.) Two batch
sizes give a line: what is always there (weights, gradients, Adam) and what an image adds. Recipes that differ in
nothing that needs memory are measured once. The columns behind the bar are arithmetic: that line at batch 128, computed
in 1, 2, 4 and 8 pieces (`--train.accumulate`). Nobody measured them, and the working memory of an accelerator's kernels
is another.
    python benchmarks/recipe_memory.py
    python benchmarks/recipe_memory.py --recipes birds_transformer_small objectsroom_slate_small --batches 2 4
"""

import argparse
import resource
import subprocess
import sys
from dataclasses import replace

FOLDED_IS_COMPARED_ON = "birds_transformer"
"""The recipe whose keys and values are measured both ways; its small version too."""
WANTED_BATCH = 128
PIECES = (1, 2, 4, 8)


def measure(name: str, batch: int, changes: dict[str, object]) -> int:
    """Growth of the peak resident memory over two steps, in KiB; the second has Adam's moments."""
    import torch
    from transformer_step import FixedImages, let_blocks_go, recipe_of

    from boqsa.inference.load import build_model
    from boqsa.training.step import TrainStep

    let_blocks_go()
    recipe = recipe_of(name, batch, precision="fp32", threads=0)
    recipe = replace(recipe, model=replace(recipe.model, **changes))
    images = FixedImages(batch, recipe.data.image_size)
    torch.randn(64, 64).mm(torch.randn(64, 64))  # the libraries behind it take their own memory once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = TrainStep(recipe, build_model(recipe).train())
    for number in range(2):
        step(images, number)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def line(batches: tuple[int, int], mebibytes: tuple[float, float]) -> tuple[float, float]:
    """MiB that are always there, and MiB an image."""
    per_image = (mebibytes[1] - mebibytes[0]) / (batches[1] - batches[0])
    return mebibytes[0] - batches[0] * per_image, per_image


def names_of_recipes() -> list[str]:
    """All of transformer models."""
    from boqsa.recipes import RECIPES, get_recipe

    return [name for name in RECIPES if get_recipe(name).model.kind == "transformer"]


def variants(name: str) -> list[tuple[str, dict[str, object]]]:
    """What is measured of a recipe, and how the rows are called."""
    found: list[tuple[str, dict[str, object]]] = [("as it is", {}), ("recompute", {"recompute": True})]
    if name.removesuffix("_small") == FOLDED_IS_COMPARED_ON:
        found.append(("projected", {"keys_and_values": "projected"}))
        found.append(("projected, recompute", {"keys_and_values": "projected", "recompute": True}))
    return found


def arguments() -> argparse.Namespace:
    """Of the command line; `--measure` is what the processes are started with."""
    parser = argparse.ArgumentParser(description="Peak memory of a training step, by recipe.")
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="default: all transformer and SLATE recipes")
    parser.add_argument("--batches", nargs=2, type=int, default=(4, 8), metavar=("SMALLER", "LARGER"))
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure all recipes and print the table, row by row."""
    options = arguments()
    if options.measure:
        name, batch, *changed = options.measure
        changes = dict(entry.split("=") for entry in changed)
        print(measure(name, int(batch), {key: value == "True" or value for key, value in changes.items()}))
        return
    from transformer_step import HANDS_BACK

    from boqsa.recipes import get_recipe

    batches = tuple(options.batches)
    known: dict[object, tuple[float, float]] = {}
    pieces = " ".join(f"{f'1/{count}':>8}" for count in PIECES)
    print(
        f"MiB; fp32, CPU. Measured at batch {batches[0]} and {batches[1]}; arithmetic: batch {WANTED_BATCH} in pieces"
    )
    print(f"{'recipe':32} {'variant':21} {batches[0]:>7} {batches[1]:>7} {'fixed':>7} {'image':>7} | {pieces}")
    for name in options.recipes or names_of_recipes():
        recipe = get_recipe(name)
        for called, changes in variants(name):
            key = (recipe.data.image_size, replace(recipe.model, **changes), recipe.train.channels_last)
            if key not in known:
                arguments_of_changes = [f"{field}={value}" for field, value in changes.items()]
                found = []
                for batch in batches:
                    command = [sys.executable, __file__, "--measure", name, str(batch), *arguments_of_changes]
                    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=HANDS_BACK)
                    found.append(int(done.stdout) / 1024)
                known[key] = (found[0], found[1])
            fixed, per_image = line(batches, known[key])
            numbers = " ".join(f"{value:7.0f}" for value in known[key])
            estimates = " ".join(f"{fixed + per_image * WANTED_BATCH / count:8.0f}" for count in PIECES)
            print(f"{name:32} {called:21} {numbers} {fixed:7.0f} {per_image:7.1f} | {estimates}", flush=True)


if __name__ == "__main__":
    main()
