"""Training on CPUs: two processes of one thread, and one process of two threads, against one process of one thread.

The same recipe and the same batch of all processes together. Each form is `boqsa train`, started anew, in turn; two
processes are started by torchrun and talk by gloo. Prints the images a second of the log without its first part,
as medians over rounds, and their ratios to one process of one thread.
    python benchmarks/scaling.py                                          # random images in the recipe's size
    python benchmarks/scaling.py --recipe demo --root packed --rounds 5   # a packed folder
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PARTS = 4
"""Rows of the log of a training; the first one, in which memory and threads are made, is left out."""
FORMS = {"1 process x 1 thread": (1, 1), "2 processes x 1 thread": (2, 1), "1 process x 2 threads": (1, 2)}
"""Processes, and threads of each; the first form is what the others are compared with."""


def pack_noise(folder: Path, size: int, count: int) -> None:
    """Random images, for a speed does not depend on what they show."""
    import numpy as np

    from boqsa.data.packing import write_packed

    images = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    splits = {"train": (images, np.zeros((count, size, size), dtype=np.uint8))}
    words = {"name": "arrays", "source": "drawn", "licence": "none", "split_rule": "drawn"}
    write_packed(folder, splits, task="multi-object", **words)


def images_per_second(recipe: str, root: Path, out: Path, *, processes: int, threads: int, steps: int) -> float:
    """Of a training in this form, in a folder of its own."""
    from boqsa.training.log import read_log

    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    fields = {
        "data.root": root,
        "train.device": "cpu",
        "train.threads": threads,
        "train.steps": steps,
        "train.log-every": steps // PARTS,
        "train.evaluate-every": steps,
        "train.checkpoint-every": steps,
    }
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "boqsa", "train", recipe, "--out", str(out)]
    command += [part for name, value in fields.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stdout}")
    rates = [row["images_per_second"] for row in read_log(out) if row["event"] == "step"]
    return statistics.median(rates[1:])


def main() -> None:
    """Time all forms in turn and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="objectsroom_mixture_small")
    parser.add_argument("--root", type=Path, help="packed folder; by default random images are packed")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.steps < PARTS or chosen.rounds < 1:
        parser.error(f"expected at least {PARTS} steps and 1 round")

    from boqsa.recipes import get_recipe

    recipe = get_recipe(chosen.recipe)
    batch = recipe.train.batch_size
    found: dict[str, list[float]] = {form: [] for form in FORMS}
    with tempfile.TemporaryDirectory() as place:
        root = chosen.root
        if root is None:
            root = Path(place) / "packed"
            pack_noise(root, recipe.data.image_size, count=4 * batch)
        for turn in range(chosen.rounds):
            for number, (form, (processes, threads)) in enumerate(FORMS.items()):
                out = Path(place) / f"run-{turn}-{number}"
                rate = images_per_second(
                    chosen.recipe, root, out, processes=processes, threads=threads, steps=chosen.steps
                )
                found[form].append(rate)
                print(f"round {turn + 1}, {form}: {rate:.1f} images/s", file=sys.stderr)
    medians = {form: statistics.median(rates) for form, rates in found.items()}
    one = next(iter(medians.values()))
    print(f"{chosen.recipe}, batch {batch}, {chosen.steps} steps, {os.cpu_count()} cores, median of {chosen.rounds}")
    for form, rate in medians.items():
        print(f"{form:<24}{rate:8.1f} images/s  {rate / one:.2f} x")


if __name__ == "__main__":
    main()
