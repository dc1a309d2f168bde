"""`boqsa concepts RUN`: what each slot stands for, as a page; and `--name SLOT=NAME`, what people call it."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from boqsa.commands.arguments import parse, print_json, print_table
from boqsa.errors import as_typed


@dataclass(frozen=True)
class Concepts:
    """Show what each slot of a run binds, as a page in the run folder, and name slots.

    The page, concepts.html, has the regions that each slot binds most strongly, what lies there, and which slots are
    alike. With --name or --names, names are stored with the run and nothing is computed; `boqsa segment` uses them.
    """

    run: tyro.conf.Positional[Path]
    """Run folder."""
    name: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], tyro.conf.arg(metavar="SLOT=NAME")]] = ()
    """Name a slot, as in --name 0=background; may be given several times. --name 0= takes its name away."""
    names: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Name slots as in a file that the page gave to download; slots that --name names are named by that."""
    dataset: str | None = None
    """Another data set to look at, by its name."""
    root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Its packed folder, or where the run's own data is now."""
    split: str | None = None
    """Split to look at; by default the recipe's test split."""
    images: int = 1000
    """Only the first so many images; 0 means all."""
    examples: int = 8
    """Most regions of each kind to show of a slot."""
    checkpoint: str = "last"
    """last, best_loss or best_<metric>; the last one was chosen by labels."""
    iterations: int | None = None
    """Slot-attention steps; by default the trained number."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Features models: where the frozen encoder is, a folder or a name on the hub; by default where it was."""
    device: str = "cpu"
    """Where to compute."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Concepts, arguments, command="concepts")
    if chosen.name or chosen.names is not None:
        return _name(chosen)

    from boqsa.commands.console import progress_bar
    from boqsa.inference.run import read_recipe
    from boqsa.training.concepts import find_concepts

    data = read_recipe(chosen.run).data
    if chosen.dataset is not None:
        data = replace(data, name=chosen.dataset, root=None)
    if chosen.root is not None:
        data = replace(data, root=chosen.root)
    with progress_bar("looking") as progress:
        found = find_concepts(
            chosen.run,
            data=data,
            split=chosen.split,
            images=chosen.images,
            examples=chosen.examples,
            checkpoint=chosen.checkpoint,
            iterations=chosen.iterations,
            encoder=chosen.encoder,
            device=chosen.device,
            command=shlex.join(["boqsa", "concepts", *arguments]),
            progress=progress,
        )
    if chosen.json:
        print_json(found)
    else:
        _show(found, chosen.run)
    return 0


def _name(chosen: Concepts) -> int:
    """Store names with the run."""
    from boqsa.inference.names import name_slots, names_from_file, parsed_names

    given = names_from_file(chosen.names) if chosen.names is not None else {}
    names = name_slots(chosen.run, {**given, **parsed_names(chosen.name)})
    if chosen.json:
        print_json({"names": {str(slot): name for slot, name in names.items()}})
    else:
        for slot, name in names.items():
            print(f"slot {slot}: {name}")
        print(f"stored in {chosen.run}; `boqsa concepts {as_typed(chosen.run)}` makes the page anew with them.")
    return 0


def _show(found: dict[str, Any], run: Path) -> None:
    from boqsa.inference.names import read_names
    from boqsa.reports.concepts import class_name, percent

    names = read_names(run, len(found["slots"]))
    rows = []
    for one in found["slots"]:
        stands_out = (
            "background"
            if one["is_background"]
            else ", ".join(
                f"{class_name(entry, found)} {percent(entry['share'])} (all: {percent(entry['of_all'])})"
                for entry in one["notable"]
            )
        )
        share = percent(one["images"] / found["images"])
        name = names.get(one["slot"], "")
        rows.append([str(one["slot"]), name, share, percent(one["area"]), one["place"], stands_out])
    where = found["dataset"]
    title = f"{where['name']}, {where['split']}: {found['images']} images"
    print_table(title, ("slot", "name", "in images", "area", "mean place", "stands out"), rows)
    if found["warning"]:
        print(found["warning"])
    print(f"pictures, and fields to name slots in: {found['page']}")
