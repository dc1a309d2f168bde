"""Pack a source once: check everything, stream it through its reader, let the packed folder appear whole."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from boqsa.atomic import atomic_folder
from boqsa.data.catalog import CATALOG, DatasetEntry, entry
from boqsa.data.manifest import Manifest
from boqsa.data.packed import PackedWriter
from boqsa.data.readers import READERS, Source
from boqsa.errors import InputError

LARGEST_SIDE = 4096

Progress = Callable[[int, int], None]


def prepare(
    name: str,
    source: str | Path,
    target: str | Path,
    *,
    image_size: int | None = None,
    masks: str | Path | None = None,
    crop: str | None = None,
    mask_resample: str | None = None,
    mask_threshold: int | None = None,
    split: str | None = None,
    skip_broken: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Read `source` as the data set `name` and pack it at `target`; nothing is left there if it fails.

    Args:
        name: a data set of `boqsa.data.catalog` that has a reader.
        source: its files; the readers say which.
        target: the folder to make; it must not exist, or be empty.
        image_size: side in pixels; the data set's own if not given.
        masks: folder: where the masks are.
        crop: folder: `centre` or `none`.
        mask_resample: shapestacks: `pil-nearest` or `published`.
        mask_threshold: folder: masks are foreground where grey is above this.
        split: shapestacks: `default`, `blocks_all` or `ccs_all`.
        skip_broken: folder: leave unreadable images out. The manifest lists them in `skipped`; whoever asked
            for this should look: the command exits with 1 if there are any.
        limit: at most this many images: the first of the source, or of each split where the source has them.
        progress: called with (images read, images in all).

    Returns:
        The manifest of the packed folder.

    Raises:
        InputError: if anything about the names, options, files or folders is wrong.
    """
    options = {
        "image_size": image_size,
        "masks": masks,
        "crop": crop,
        "mask_resample": mask_resample,
        "mask_threshold": mask_threshold,
        "split": split,
        "skip_broken": skip_broken or None,
        "limit": limit,
    }
    given = {option: value for option, value in options.items() if value is not None}
    dataset = entry(name)
    read = _reader(dataset)
    _check_options(name, read, given)
    folder = _check_target(target)
    opened = read(source, **given)
    return _pack(dataset, opened, folder, source=str(source), limit=limit, progress=progress)


def _reader(dataset: DatasetEntry) -> Callable[..., Source]:
    if dataset.status == "built in":
        raise InputError(f"'{dataset.name}' is built in and needs no preparing; train on it by its name.")
    if dataset.name not in READERS:
        ready = ", ".join(name for name, known in CATALOG.items() if known.status == "ready")
        raise InputError(f"'{dataset.name}' has no reader yet; it arrives later. Ready: {ready}.")
    return READERS[dataset.name]


def _check_options(name: str, read: Callable[..., Source], given: dict[str, Any]) -> None:
    known = [option for option in inspect.signature(read).parameters if option != "source"]
    if unknown := [option for option in given if option not in known]:
        raise InputError(f"'{name}' has no option '{unknown[0]}'; it has {', '.join(known)}.")
    bounds = {"image_size": (1, LARGEST_SIDE), "limit": (1, None), "mask_threshold": (0, 254)}
    for option, (lowest, highest) in bounds.items():
        value = given.get(option)
        if value is None:
            continue
        if type(value) is not int or value < lowest or (highest is not None and value > highest):
            upper = "" if highest is None else f" to {highest}"
            raise InputError(f"{option} is {value!r}; a whole number from {lowest}{upper} expected.")


def _check_target(target: str | Path) -> Path:
    folder = Path(target)
    if folder.name in ("", ".."):
        raise InputError(f"the target '{target}' has no name of its own; name the folder to make.")
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"the target {folder} is a file; name a folder that does not exist yet.")
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"the target {folder} is not empty; delete it or name another folder.")
    except OSError as error:
        raise InputError(f"cannot write to the target {folder}: {error.strerror}.") from None
    return folder


def _pack(
    dataset: DatasetEntry,
    opened: Source,
    target: Path,
    *,
    source: str,
    limit: int | None,
    progress: Progress | None,
) -> Manifest:
    with atomic_folder(target) as folder, PackedWriter(folder, opened.image_size) as writer:
        for done, sample in enumerate(opened.samples, start=1):
            image = np.moveaxis(sample.image, 2, 0)  # (H, W, 3) -> (3, H, W)
            masks = None if sample.mask is None else sample.mask[None]
            writer.append(sample.split, image[None], masks)
            if progress is not None:
                progress(done, opened.total)
        if not writer.counts:
            raise InputError(f"no image of {source} can be used: {'; '.join(opened.skipped[:3])}.")
        return writer.finish(
            name=dataset.name,
            source=source,
            licence=dataset.licence,
            task=opened.task or dataset.task,
            foreground=dataset.foreground,
            split_rule=opened.split_rule,
            partial=opened.partial,
            options=opened.options | {"limit": limit},
            notices=opened.notices,
            skipped=opened.skipped,
        )
