"""`boqsa bench [RECIPE]`: speed and memory of a recipe on this machine, beside what the machine reaches at best."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from boqsa.commands.arguments import parse, print_json, print_table
from boqsa.recipes import Recipe, get_recipe


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time a training step, an evaluation step and the reading of images; no data is needed. docs/bench.md explains."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    batch: int | None = None
    """Images in a step; by default the smallest of --batches, or the recipe's train.batch_size."""
    threads: int | None = None
    """CPU threads of torch; by default the recipe's train.threads."""
    precision: Literal["fp32", "bf16"] | None = None
    """Of the training step; by default the recipe's train.precision."""
    reference: bool = False
    """Also measure a literal fp32 step of the published algorithm, and print ratios."""
    batches: tuple[int, ...] = ()
    """Also measure the training step at these batch sizes."""
    rounds: int = 3
    """Processes that are timed of each; their median counts."""
    seconds: float = 2.0
    """How long each of them repeats its step; one step at least."""
    json: bool = False
    """Print JSON on stdout, with every round."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    named = bool(arguments) and not arguments[0].startswith("-")
    name, options = (arguments[0], arguments[1:]) if named else ("demo", arguments)
    chosen = parse(Bench, options, command=f"bench {name}", default=Bench(recipe=get_recipe(name)))
    train = chosen.recipe.train
    # Of several the smallest: that the larger ones do not fit is a finding, and ends nothing.
    batch = chosen.batch if chosen.batch is not None else min(chosen.batches, default=train.batch_size)
    recipe = replace(
        chosen.recipe,
        train=replace(
            train,
            batch_size=batch,
            threads=train.threads if chosen.threads is None else chosen.threads,
            precision=chosen.precision or train.precision,
        ),
    )

    from boqsa.bench import bench

    with _telling() as progress:
        report = bench(
            recipe,
            reference=chosen.reference,
            batches=chosen.batches,
            rounds=chosen.rounds,
            seconds=chosen.seconds,
            progress=progress,
        )
    if chosen.json:
        print_json(report)
    else:
        _show(report)
    return 0


@contextmanager
def _telling() -> Iterator[Any]:
    """Shows on a terminal's stderr what is measured now."""
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


_COLUMNS = ("ms", "images/s", "GFLOP/s", "share %", "needs", "holds")


def _show(report: dict[str, Any]) -> None:
    machine = report["machine"]
    print(f"{machine['processor']}, {machine['device']}, {machine['threads']} threads, torch {machine['torch']}")
    title = (
        f"{report['recipe']} at {report['image_size']}x{report['image_size']}, batch {report['batch']}; memory in MiB"
    )
    rows = [[f"{form}, {found['precision']}", *_cells(found)] for form, found in report["forms"].items()]
    print_table(title, ("step", *_COLUMNS), rows, first_whole=True)
    reading = report["reading"]
    print(f"reading: {reading['images_per_second']:,.0f} images/s ({reading['images']})")
    for precision, found in {found["precision"]: found for found in report["forms"].values()}.items():
        ceilings = {name: f"{value / 1e9:,.0f} GFLOP/s" for name, value in found["ceilings"].items()}
        print(f"ceilings, {precision}: convolution {ceilings['convolution']}, matrix product {ceilings['product']}")
    if "against_reference" in report:
        ratios = report["against_reference"]
        words = [f"{ratios['speed']:.2f} x as fast"]
        for name, what in {"memory_needed": "the memory needed", "memory_held": "held"}.items():
            words += [] if ratios[name] is None else [f"{ratios[name]:.2f} x {what}"]
        print(f"against the reference: {', '.join(words)}")
    if "batches" in report:
        _show_batches(report["batches"])


def _show_batches(batches: list[dict[str, Any]]) -> None:
    fitting = [found for found in batches if "fails" not in found]
    if fitting:
        title = f"training, {fitting[0]['precision']}, by batch size; memory in MiB"
        print_table(title, ("batch", *_COLUMNS), [[found["batch"], *_cells(found)] for found in fitting])
    for found in batches:
        if "fails" in found:
            print(f"batch {found['batch']} {found['fails']}")
    known = sorted((found["batch"], found["needs_bytes"]) for found in fitting if found["needs_bytes"] is not None)
    if len(known) > 1:
        (fewest, least), (most_images, most) = known[0], known[-1]
        an_image = (most - least) / (most_images - fewest)
        fixed = least - fewest * an_image
        print(f"needs about {fixed / 2**20:,.0f} MiB and {an_image / 2**20:,.1f} MiB an image")


def _cells(found: dict[str, Any]) -> list[Any]:
    def mebibytes(name: str) -> Any:
        return "" if found[name] is None else round(found[name] / 2**20)

    time = found["milliseconds"]
    return [
        round(time, 1) if time < 10 else round(time),
        round(found["images_per_second"]) if found["images_per_second"] >= 10 else found["images_per_second"],
        round(found["flops_per_second"] / 1e9),
        round(100 * found["share_of_ceilings"]),
        mebibytes("needs_bytes"),
        mebibytes("holds_bytes"),
    ]
