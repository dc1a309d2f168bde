"""`boqsa data list | prepare | features | mimic | check | show`: from people's files to arrays that can be trusted."""

import difflib
import functools
import inspect
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from boqsa.commands.arguments import parse, print_json, print_table
from boqsa.commands.console import stopped_by_sigterm
from boqsa.errors import InputError, as_typed

if TYPE_CHECKING:
    from boqsa.data import DatasetEntry, Manifest
    from boqsa.recipes import Recipe

_SECONDS_BETWEEN_LINES = 10.0
_MOST_ROWS = 100
_COUNTED_IN_BYTES = ("unpacking", "verifying")
"""Of the stages that `prepare` reports, those that count bytes; the others count images."""


@dataclass(frozen=True)
class List:
    """List the data sets, or all that is known of one: owners, files, splits, options, licence, the paper's use."""

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NAME]")] = None
    """Data set to tell about; without it all are listed."""
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
    size: tuple[int, ...] = ()
    """Size of the packed images in pixels: one number, or height and width; by default the data set's own."""
    split: Annotated[str | None, tyro.conf.arg(metavar="{clean,published,...}")] = None
    """clean: validation is part of nothing else (the default). published: what the paper's code did, leaks included.
    Some sets have others: `boqsa data list NAME`."""
    crop: Annotated[str | None, tyro.conf.arg(metavar="{none,centre,SIDE,...}")] = None
    """What to cut out before resizing; `boqsa data list NAME` says what a data set can do."""
    mask_resample: Annotated[str | None, tyro.conf.arg(metavar="{pil-nearest,published}")] = None
    """How masks are made smaller: on the images' grid, or as the published code did."""
    variant: str | None = None
    """Which of several published editions: shapestacks, multi_dsprites, ycb, scannet, coco."""
    masks: Path | None = None
    """folder: where the masks are, if not in a sibling folder `masks`."""
    classes: Path | None = None
    """folder: where class pictures are, of the objects of the masks; scores of classes need them."""
    images: Path | None = None
    """coco_instances: where the images are."""
    mask_threshold: int | None = None
    """folder: masks are foreground where grey is above this, as JPEG masks need."""
    mask_rule: Annotated[str | None, tyro.conf.arg(metavar="{robust,published}")] = None
    """flowers: how the blue background is told."""
    channel_order: Annotated[str | None, tyro.conf.arg(metavar="{rgb,bgr}")] = None
    """dogs, cars: bgr swaps red and blue, as the published code did."""
    paint: Annotated[str | None, tyro.conf.arg(metavar="{area,last}")] = None
    """coco_instances: what lies on top where annotations overlap: the smaller, or the later one."""
    min_area: float | None = None
    """coco_instances: leave out instances that cover less than this share of the picture."""
    max_objects: int | None = None
    """clevr_with_masks: leave out scenes with more objects; 6 makes CLEVR6."""
    repair_background: bool = False
    """objectsroom: find objects that are stored as a part of the wall."""
    limit: int | None = None
    """At most this many images of each split, the first ones."""
    skip_broken: int = 0
    """Leave out so many broken images; they are listed, and the exit code is 1."""
    workers: int | None = None
    """Processes that read; by default one a core, one for a compressed stream. The result does not depend on it."""
    json: bool = False
    """Print the manifest as JSON on stdout; progress stays on stderr."""


@dataclass(frozen=True)
class Features:
    """Pack a packed data set again, with the features of a frozen vision transformer beside each image.

    A call that was interrupted goes on when it is typed again.
    """

    packed: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PACKED")]
    """Packed folder."""
    encoder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENCODER")]
    """Folder that `transformers` wrote, with safetensors, or name on the hub: owner/name, owner/name@revision."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to make; it must not exist, or be empty."""
    size: int | None = None
    """Height and width in pixels to which images are squeezed for the encoder; by default it sees them as they are.
    Images and masks of OUT keep their size, at which masks are scored."""
    batch_size: int = 16
    """Images that are encoded at a time."""
    device: str = "cpu"
    """Where to encode."""
    json: bool = False
    """Print the manifest as JSON on stdout; progress stays on stderr."""


@dataclass(frozen=True)
class Mimic:
    """Write a tiny stand-in for a data set, in the layout of the original: to try a recipe without a download."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Data set of `boqsa data list`."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TARGET")]
    """Folder to make; it must not exist, or be empty."""
    count: int = 24
    """Scenes in all, at least 6."""
    seed: int = 0
    """Of the scenes."""
    json: bool = False
    """Print JSON on stdout."""


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
    from boqsa.data.catalog import entry

    if chosen.name is not None:
        known = entry(chosen.name)
        options = _reader_options(chosen.name)
        if chosen.json:
            print_json(asdict(known) | {"options": options})
        else:
            _tell(known, options)
        return 0
    if chosen.json:
        print_json({name: asdict(known) | {"options": _reader_options(name)} for name, known in CATALOG.items()})
        return 0
    rows = [
        (name, known.task, "x".join(map(str, known.image_size)), known.status, known.what)
        for name, known in CATALOG.items()
    ]
    print_table("data sets", ("name", "task", "pixels", "status", "what"), rows)
    print("\n`boqsa data list NAME` tells who publishes a set, which files are needed, and what `prepare` can do.")
    print("`boqsa data mimic NAME TARGET` writes a tiny stand-in in the original layout.")
    return 0


def _tell(known: "DatasetEntry", options: dict[str, str]) -> None:
    """Everything about one data set, a line a fact."""
    facts = {
        "what": known.what,
        "task": f"{known.task}; {known.foreground}",
        "owners": known.owners,
        "SOURCE": known.obtain,
        "archives": ", ".join(known.archives),
        "published": known.published,
        "licence": known.licence,
        "paper": known.paper,
        "slots": known.slots,
        "pixels": "x".join(map(str, known.image_size)),
        **{f"--split {name}": sentence for name, sentence in known.splits.items()},
        **{f"--{name.replace('_', '-')}": legal for name, legal in options.items() if name != "split"},
    }
    print(known.name)
    for fact, text in facts.items():
        if text:
            print(f"  {fact + ':':<20} {text}")


def _reader_options(name: str) -> dict[str, str]:
    """The options of a reader and what the docstrings of its module say of each."""
    from boqsa.data.readers import READERS

    if name not in READERS:
        return {}
    read = READERS[name]
    module = inspect.getmodule(read.func if isinstance(read, functools.partial) else read)
    readers = [function for called, function in inspect.getmembers(module, callable) if called.startswith("read")]
    text = "\n".join(inspect.getdoc(function) or "" for function in [read, *readers])
    told = {}
    for parameter in inspect.signature(read).parameters.values():
        found = re.search(rf"^ +{parameter.name}: (.*(?:\n {{8,}}.*)*)", text, re.MULTILINE)
        if found is None or parameter.name in ("source", "progress"):
            continue
        default = parameter.default
        given = "" if default in (None, False) or isinstance(default, tuple) else f" By default {default}."
        told["size" if parameter.name == "image_size" else parameter.name] = " ".join(found[1].split()) + given
    return told


def _prepare(arguments: list[str]) -> int:
    chosen = parse(Prepare, arguments, command="data prepare")

    from boqsa.data import prepare

    options = {
        field.name: getattr(chosen, field.name)
        for field in fields(Prepare)
        if field.name not in ("name", "source", "target", "size", "skip_broken", "workers", "json")
    }
    try:
        with stopped_by_sigterm(), _counting() as progress:
            manifest = prepare(
                chosen.name,
                chosen.source,
                chosen.target,
                image_size=_height_and_width(chosen.size),
                skip_broken=chosen.skip_broken,
                workers=chosen.workers,
                progress=progress,
                **options,
            )
    except KeyboardInterrupt:
        if not _said_that_it_goes_on(chosen.target):
            raise
        return 1
    _tell_packed(manifest, chosen.target, as_json=chosen.json)
    return 1 if manifest.skipped else 0


def _said_that_it_goes_on(target: Path) -> bool:
    """Whether something of an interrupted command is kept; the user is told."""
    from boqsa.data.preparing import workplace_of

    if not workplace_of(target).exists():
        return False
    print("boqsa data: stopped; what is done is kept, and the same command goes on.", file=sys.stderr)
    return True


def _tell_packed(manifest: "Manifest", target: Path, *, as_json: bool) -> None:
    """What was packed, and what to type next."""
    following = next_command(manifest, target)
    if as_json:
        values = asdict(manifest) | {"fingerprint": manifest.fingerprint}
        print_json({"target": str(target), "manifest": values, "next": following})
        return
    height, width = manifest.image_size
    print(f"{target}: {manifest.name}, {height}x{width}, {manifest.task}")
    for split, count in manifest.counts.items():
        print(f"  {split}: {count} images")
    for notice in manifest.notices:
        print(f"note: {notice}")
    for skipped in manifest.skipped:
        print(f"skipped: {skipped}")
    print(f"Look at it with `boqsa data show {as_typed(target)}`. {following}")


def _features(arguments: list[str]) -> int:
    chosen = parse(Features, arguments, command="data features")

    from boqsa.inference import load_encoder
    from boqsa.inference.features import write_features

    encoder = load_encoder(chosen.encoder)
    try:
        with stopped_by_sigterm(), _counting() as progress:
            manifest = write_features(
                chosen.packed,
                encoder,
                chosen.target,
                image_size=chosen.size,
                batch_size=chosen.batch_size,
                device=chosen.device,
                progress=progress,
            )
    except KeyboardInterrupt:
        if not _said_that_it_goes_on(chosen.target):
            raise
        return 1
    _tell_packed(manifest, chosen.target, as_json=chosen.json)
    return 0


def _height_and_width(size: tuple[int, ...]) -> tuple[int, int] | None:
    if len(size) > 2:
        raise InputError(f"--size has {len(size)} numbers; one, or height and width expected.")
    return (size[0], size[-1]) if size else None


def _mimic(arguments: list[str]) -> int:
    chosen = parse(Mimic, arguments, command="data mimic")

    from boqsa.data.mimic import mimic

    source = mimic(chosen.name, chosen.target, count=chosen.count, seed=chosen.seed)
    extra = " ".join(f"--{option} {shlex.quote(str(value))}" for option, value in source.options.items())
    following = f"boqsa data prepare {chosen.name} {as_typed(source.path)} PACKED {extra}".strip()
    if chosen.json:
        print_json({"source": str(source.path), "next": following})
    else:
        print(f"{chosen.target}: {chosen.count} scenes of the built-in renderer in the layout of {chosen.name}")
        print(f"Next: `{following}`.")
    return 0


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


def _next_for_views(manifest: "Manifest", target: Path) -> str:
    """A radiance recipe: the data set's own, or CLEVR-567's for data of one's own."""
    from boqsa.recipes import RECIPES, get_recipe

    own = f"{manifest.name}_radiance"
    name = own if own in RECIPES else "clevr567_radiance"
    options = ["--data.root", as_typed(target)]
    if name != own:
        options += ["--data.name", manifest.name]
    if manifest.image_size[0] != get_recipe(name).data.image_size:
        options += ["--data.image-size", str(manifest.image_size[0])]
    return (
        f"Next: `boqsa train {name} {' '.join(options)} --train.radiance.perceptual-file VGG16 --out my-run`, or with "
        "`--train.radiance.perceptual-weight 0` in place of the weights of VGG-16. The lens, the depths and the size "
        "of the world are the recipe's (model.focal-x, near, far, scene-scale)."
    )


def next_command(manifest: "Manifest", target: Path) -> str:
    """What to type after `prepare`: the recipe that fits the images best, and what must be said beside it.

    The recipe of the data set itself comes first, if it is of its task; then one of the task, then any of the size.
    """
    from boqsa.recipes import RECIPES

    if manifest.task == "views":
        return _next_for_views(manifest, target)
    if "train" not in manifest.counts:
        split = next(iter(manifest.counts))
        score = f"boqsa evaluate RUN --dataset {manifest.name} --data.root {as_typed(target)} --split {split}"
        return f"Next: `{score}` of a trained run."
    task = manifest.task.replace("-", "_")
    features = manifest.options if "features" in manifest.extras else {}
    height, width = manifest.image_size
    if features:
        from boqsa.inference.features import seen_size

        height, width = seen_size(manifest)
    kinds = ("features",) if features else ("mixture", "transformer")
    recipes = [recipe for make in RECIPES.values() if (recipe := make()).model.kind in kinds]
    # A grid of patches may have any size.
    fitting = [recipe for recipe in recipes if height == width and (features or recipe.data.image_size == height)]
    if features and not fitting:
        return (
            f"No recipe is for features of {height}x{width} images: make them of the set without features again, with "
            f"a square --size such as {max(height, width)}."
        )
    if not fitting:
        every = [make() for make in RECIPES.values()]
        of_features = {recipe.data.image_size for recipe in every if recipe.model.kind == "features"}
        encode = f"boqsa data features {as_typed(target)} ENCODER OUT"
        if height == width and height in of_features:
            return f"Next: `{encode}`; recipes for {height}x{width} images read their features."
        sizes = " or ".join(map(str, sorted({recipe.data.image_size for recipe in recipes})))
        return (
            f"No recipe is for {height}x{width} images: prepare with --size {sizes}, "
            "or change model.decoder_strides and decoder_grid of one (`boqsa recipes`). "
            f"For frozen features: `{encode} --size {max(of_features)}`."
        )

    has_masks = any(".mask." in name for name in manifest.sha256)

    def fit(recipe: "Recipe") -> tuple[bool, bool]:
        # Masks of several objects serve instances too; without masks nothing is scored, and any task will do.
        serves = recipe.evaluate.task in (task, "instances") or not has_masks
        return recipe.data.name == manifest.name and serves, recipe.evaluate.task == task

    best = max(fitting, key=fit)
    options = ["--data.root", as_typed(target)]
    if best.data.image_size != height:
        options += ["--data.image-size", str(height)]
    for name in ("patch_size", "feature_size"):
        if features and getattr(best.model, name) != features.get(f"encoder_{name}"):
            options += [f"--model.{name.replace('_', '-')}", str(features.get(f"encoder_{name}"))]
    if best.data.name != manifest.name:
        options += ["--data.name", manifest.name]
    if has_masks and best.evaluate.task not in (task, "instances"):
        options += [
            "--evaluate.task",
            task,
            "--evaluate.select-by",
            "iou" if task == "foreground" else "ari_fg",
        ]
    return f"Next: `boqsa train {best.name} {' '.join(options)} --out RUN`."


@contextmanager
def _counting() -> Iterator[Callable[[str, int, int], None]]:
    """Yield the `progress` of `prepare`: a bar on a terminal, a line now and then elsewhere; on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}
        told = begun = time.monotonic()

        def advance(what: str, done: int, total: int) -> None:
            nonlocal told, begun
            if what not in tasks:
                begun = time.monotonic()
                tasks[what] = bar.add_task(what, total=total, amount="")
            in_bytes = what in _COUNTED_IN_BYTES
            amount = f"{done / 1e9:.2f} of {total / 1e9:.2f} GB" if in_bytes else f"{done} of {total}"
            bar.update(tasks[what], completed=done, total=total, amount=amount)
            if not console.is_terminal and time.monotonic() - told >= _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                left = (told - begun) * (total - done) / max(done, 1)
                console.print(f"{what}: {amount}, {left / 60:.0f} min left", highlight=False)

        yield advance


_COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "list": (_list, "List the data sets that are known."),
    "prepare": (_prepare, "Pack a data set, or your own images, once."),
    "features": (_features, "Pack a packed data set again, with the features of a frozen encoder."),
    "mimic": (_mimic, "Write a tiny stand-in for a data set, in its original layout."),
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
