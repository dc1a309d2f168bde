"""`boqsa data list | prepare | check | show`: from people's files to packed arrays that can be trusted."""

import difflib
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from boqsa.commands.arguments import parse, print_json, print_table
from boqsa.errors import InputError

if TYPE_CHECKING:
    from boqsa.data import Manifest

_SECONDS_BETWEEN_LINES = 10.0
_MOST_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class List:
    """List the data sets: which can be prepared, at which size, under which licence."""

    json: bool = False
    """Print JSON on stdout."""


@dataclass(frozen=True)
class Prepare:
    """Pack a data set once: read SOURCE, check everything, write arrays and a manifest to TARGET."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Data set of `boqsa data list`; `folder` and `arrays` take your own images."""
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Its files: a folder or a file, as `boqsa data list` says."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TARGET")]
    """Folder to make; it must not exist, or be empty."""
    image_size: int | None = None
    """Side of the packed images in pixels; by default the data set's own."""
    masks: Path | None = None
    """folder: where the masks are, if not in a sibling folder `masks`."""
    crop: Annotated[str | None, tyro.conf.arg(metavar="{centre,none}")] = None
    """folder: take the central square (the default), or squeeze the whole image into one."""
    mask_resample: Annotated[str | None, tyro.conf.arg(metavar="{pil-nearest,published}")] = None
    """shapestacks: how masks are made smaller."""
    mask_threshold: int | None = None
    """folder: masks are foreground where grey is above this, as JPEG masks need."""
    split: Annotated[str | None, tyro.conf.arg(metavar="{default,blocks_all,ccs_all}")] = None
    """shapestacks: which split files."""
    limit: int | None = None
    """At most this many images: the first of the source, or of each split where the source has them."""
    skip_broken: bool = False
    """folder: leave unreadable images out; they are listed, and the exit code is 1."""
    json: bool = False
    """Print the manifest as JSON on stdout; progress stays on stderr."""


@dataclass(frozen=True)
class Check:
    """Verify a packed data set: the hash of every file, shapes, labels. Exit code 1 if anything is wrong."""

    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TARGET")]
    """Packed folder."""
    json: bool = False
    """Print JSON on stdout."""


@dataclass(frozen=True)
class Show:
    """Draw a contact sheet of a packed split: images beside their masks, evenly spaced over the split."""

    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TARGET")]
    """Packed folder."""
    split: str | None = None
    """Split to draw; by default the first, which is `train` if there is one."""
    out: Path | None = None
    """Picture to write, a .png; by default <name of the packed folder>_<split>.png here."""
    rows: int = 5
    """Rows of the sheet."""
    columns: int = 4
    """Columns of the sheet."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in _COMMANDS:
        close = difflib.get_close_matches(name, _COMMANDS, n=1)
        hint = f"did you mean `boqsa data {close[0]}`?" if close else f"choose from {', '.join(_COMMANDS)}."
        print(f"boqsa data: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    return _COMMANDS[name][0](rest)


def _list(arguments: list[str]) -> int:
    chosen = parse(List, arguments, command="data list")

    from boqsa.data import CATALOG

    if chosen.json:
        print_json({name: asdict(dataset) for name, dataset in CATALOG.items()})
        return 0
    rows = [
        (name, known.task, known.image_size, known.status, known.published, known.licence)
        for name, known in CATALOG.items()
    ]
    print_table("data sets", ("name", "task", "pixels", "status", "images", "licence"), rows)
    print("\nReady ones, and what SOURCE is in `boqsa data prepare NAME SOURCE TARGET`:")
    for name, known in CATALOG.items():
        if known.status == "ready":
            print(f"  {name}: {known.obtain}")
    return 0


def _prepare(arguments: list[str]) -> int:
    chosen = parse(Prepare, arguments, command="data prepare")

    from boqsa.atomic import recover_folder
    from boqsa.data import prepare

    recover_folder(chosen.target)  # a killed `prepare` may have left gigabytes beside it
    with _stopped_by_sigterm(), _counting("preparing") as progress:
        manifest = prepare(
            chosen.name,
            chosen.source,
            chosen.target,
            image_size=chosen.image_size,
            masks=chosen.masks,
            crop=chosen.crop,
            mask_resample=chosen.mask_resample,
            mask_threshold=chosen.mask_threshold,
            split=chosen.split,
            limit=chosen.limit,
            skip_broken=chosen.skip_broken,
            progress=progress,
        )
    following = next_command(manifest, chosen.target)
    if chosen.json:
        values = asdict(manifest) | {"fingerprint": manifest.fingerprint}
        print_json({"target": str(chosen.target), "manifest": values, "next": following})
    else:
        height, width = manifest.image_size
        print(f"{chosen.target}: {manifest.name}, {height}x{width}, {manifest.task}")
        for split, count in manifest.counts.items():
            print(f"  {split}: {count} images")
        for notice in manifest.notices:
            print(f"note: {notice}")
        for skipped in manifest.skipped:
            print(f"skipped: {skipped}")
        print(f"Look at it with `boqsa data show {shlex.quote(str(chosen.target))}`. {following}")
    return 1 if manifest.skipped else 0


def _check(arguments: list[str]) -> int:
    chosen = parse(Check, arguments, command="data check")

    from boqsa.data import check

    report = check(chosen.target)
    if chosen.json:
        print_json(
            {
                "ok": report.ok,
                "findings": report.findings,
                "splits": {split: asdict(counted) for split, counted in report.splits.items()},
                "manifest": asdict(report.manifest) | {"fingerprint": report.manifest.fingerprint},
            }
        )
    else:
        print("\n".join(report.lines()))
    return 0 if report.ok else 1


def _show(arguments: list[str]) -> int:
    chosen = parse(Show, arguments, command="data show")
    for option, value in (("rows", chosen.rows), ("columns", chosen.columns)):
        if not 1 <= value <= _MOST_ROWS:
            raise InputError(f"--{option} is {value}; a whole number from 1 to {_MOST_ROWS} expected.")

    from boqsa.atomic import atomic_file
    from boqsa.data import Manifest, contact_sheet

    counts = Manifest.load(chosen.target).counts
    split = next(iter(counts)) if chosen.split is None else chosen.split
    out = Path(f"{chosen.target.resolve().name}_{split}.png") if chosen.out is None else chosen.out
    if out.suffix.lower() != ".png":
        raise InputError(f"--out is {out}; a name that ends in .png expected.")
    sheet = contact_sheet(chosen.target, split, rows=chosen.rows, columns=chosen.columns)
    with atomic_file(out) as partial:
        sheet.save(partial, format="PNG")
    if chosen.json:
        print_json({"sheet": str(out), "split": split, "images": counts[split]})
    else:
        print(f"{out}: {split}, {min(chosen.rows * chosen.columns, counts[split])} of {counts[split]} images")
    return 0


def next_command(manifest: "Manifest", target: Path) -> str:
    """What to type after `prepare`: the recipe that fits the images best, and what must be said beside it.

    The recipe of the data set itself comes first, then one of the same task, then any of the image size.
    """
    from boqsa.recipes import RECIPES

    task = manifest.task.replace("-", "_")
    side = manifest.image_size[0]
    fitting = [recipe for recipe in (make() for make in RECIPES.values()) if recipe.data.image_size == side]
    if not fitting:
        sizes = " or ".join(map(str, sorted({make().data.image_size for make in RECIPES.values()})))
        return (
            f"No recipe is for {side}x{side} images: prepare with --image-size {sizes}, "
            "or change model.decoder_strides and decoder_grid of one (`boqsa recipes`)."
        )
    best = max(fitting, key=lambda recipe: (recipe.data.name == manifest.name, recipe.evaluate.task == task))
    options = ["--data.root", shlex.quote(str(target))]
    if best.data.name != manifest.name:
        options += ["--data.name", manifest.name]
    if best.evaluate.task != task:
        options += [
            "--evaluate.task",
            task,
            "--evaluate.select-by",
            "iou" if task == "foreground" else "ari_fg",
        ]
    return f"Next: `boqsa train {best.name} {' '.join(options)} --out RUN`."


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield the `progress` of `prepare`: a bar on a terminal, a line now and then elsewhere; on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        told = time.monotonic()

        def advance(done: int, total: int) -> None:
            nonlocal told
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - told >= _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                console.print(f"{what}: {done} of {total} images", highlight=False)

        yield advance


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that the half-made folder is removed."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "list": (_list, "List the data sets that are known."),
    "prepare": (_prepare, "Pack a data set, or your own images, once."),
    "check": (_check, "Verify a packed data set."),
    "show": (_show, "Draw a contact sheet of a packed data set."),
}
"""Command -> (function, one line of help)."""


def _overview() -> str:
    lines = [f"  {name:<9}{text}" for name, (_, text) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: boqsa data COMMAND ...        boqsa data COMMAND --help explains one",
            "",
            *lines,
        ]
    )
