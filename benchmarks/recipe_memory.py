"""Peak memory of a training step of every transformer, SLATE and mixture recipe, and what it would be at batch 128.

Each measurement is a process of its own, on the CPU: the growth of its peak resident memory over two steps of the
training loop, from before the model is built, while every large block is handed back when it is freed. (The loop
itself keeps freed blocks on a CPU, so a training process holds more; `boqsa bench` measures both.) Two batch sizes
give a line: what is always there (weights, gradients, Adam) and what an image adds. Recipes that differ in
nothing that needs memory are measured once. The columns behind the bar are arithmetic: that line at batch 128, computed
in 1, 2, 4 and 8 pieces (`--train.accumulate`). Nobody measured them, and the working memory of an accelerator's kernels
is another.
    python benchmarks/recipe_memory.py
    python benchmarks/recipe_memory.py --recipes birds_transformer_small objectsroom_slate_small --batches 2 4
"""

import argparse
from dataclasses import replace

from boqsa.bench.processes import in_own_process
from boqsa.bench.work import memory_needed
from boqsa.recipes import RECIPES, Recipe, get_recipe

FOLDED_IS_COMPARED_ON = "birds_transformer"
"""The recipe whose keys and values are measured both ways; its small version too."""
WANTED_BATCH = 128
PIECES = (1, 2, 4, 8)


def measure(recipe: Recipe, batch: int) -> float:
    """Growth of the peak resident memory over two steps, in MiB; the second has Adam's moments."""
    train = replace(recipe.train, batch_size=batch, accumulate=1, precision="fp32", device="cpu", threads=0)
    needed = in_own_process(memory_needed, "training", replace(recipe, train=train))
    if needed is None:
        raise SystemExit("this machine's C library is not glibc: it cannot be told to hand memory back")
    return needed / 2**20


def line(batches: tuple[int, int], mebibytes: tuple[float, float]) -> tuple[float, float]:
    """MiB that are always there, and MiB an image."""
    per_image = (mebibytes[1] - mebibytes[0]) / (batches[1] - batches[0])
    return mebibytes[0] - batches[0] * per_image, per_image


def names_of_recipes() -> list[str]:
    """All of transformer and mixture models."""
    return [name for name in RECIPES if get_recipe(name).model.kind in {"transformer", "mixture"}]


def variants(name: str) -> list[tuple[str, dict[str, object]]]:
    """What is measured of a recipe, and how the rows are called."""
    found: list[tuple[str, dict[str, object]]] = [("as it is", {})]
    if get_recipe(name).model.kind == "transformer":
        found.append(("recompute", {"recompute": True}))
    if name.removesuffix("_small") == FOLDED_IS_COMPARED_ON:
        found.append(("projected", {"keys_and_values": "projected"}))
        found.append(("projected, recompute", {"keys_and_values": "projected", "recompute": True}))
    return found


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description="Peak memory of a training step, by recipe.")
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="default: all of transformer and mixture models")
    parser.add_argument("--batches", nargs=2, type=int, default=(4, 8), metavar=("SMALLER", "LARGER"))
    return parser.parse_args()


def main() -> None:
    """Measure all recipes and print the table, row by row."""
    options = arguments()
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
                changed = replace(recipe, model=replace(recipe.model, **changes))
                known[key] = (measure(changed, batches[0]), measure(changed, batches[1]))
            fixed, per_image = line(batches, known[key])
            numbers = " ".join(f"{value:7.0f}" for value in known[key])
            estimates = " ".join(f"{fixed + per_image * WANTED_BATCH / count:8.0f}" for count in PIECES)
            print(f"{name:32} {called:21} {numbers} {fixed:7.0f} {per_image:7.1f} | {estimates}", flush=True)


if __name__ == "__main__":
    main()
