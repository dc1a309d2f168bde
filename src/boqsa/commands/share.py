"""`boqsa share RUN --out FOLDER`: a folder with weights, recipe, scores and a model card, and its way to the hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from boqsa.commands.arguments import parse, print_json


@dataclass(frozen=True, kw_only=True)
class Share:
    """Write a run as others need it: weights, recipe, scores, digests, and a model card made from them.

    `boqsa.load` and every command that takes a RUN read the folder, and the hub's `owner/name@revision`.

    boqsa share RUN --out shared --seeds RUN1 RUN2 --licence cc-by-4.0
    """

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """Run folder; `boqsa evaluate` it first, or the card has no scores."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder to make."""
    checkpoint: str = "last"
    """last, best_loss or best_<metric>; the last one was chosen by labels."""
    seeds: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN...")] = ()
    """Runs of the same recipe with other seeds, evaluated: the card then has means and spreads."""
    licence: str = "other"
    """Of the weights, as the hub abbreviates it, such as cc-by-4.0. Mind that of the data."""
    push: Annotated[str | None, tyro.conf.arg(metavar="OWNER/NAME")] = None
    """Upload the folder to the hub."""
    private: bool = False
    """Upload it so that only you can see it."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Share, arguments, command="share")

    from boqsa.inference.share import push, share

    folder = share(chosen.run, chosen.out, checkpoint=chosen.checkpoint, seeds=chosen.seeds, licence=chosen.licence)
    pinned = push(folder, chosen.push, private=chosen.private) if chosen.push else None
    if chosen.json:
        print_json({"folder": str(folder), "hub": pinned})
        return 0
    print(f"{folder}: weights, recipe, scores and README.md, the model card.")
    if pinned:
        print(f'uploaded; others type boqsa.load("{pinned}")')
    return 0
