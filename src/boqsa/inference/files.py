"""Segment picture files and folders: which files, what the outputs are called, and writing them.

For a picture `a.jpg` the folder gets `a_labels.png` (indexed PNG, pixel values are labels), `a_overlay.png`
and `a.npz` (`slots`, `masks`, `labels`). Sub-folders of an input folder are mirrored. Pictures that would
share a name keep their suffix in it, `a_jpg_labels.png` beside `a_png_labels.png`, and a number if that is
not enough.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from boqsa.atomic import atomic_file
from boqsa.errors import InputError
from boqsa.inference.picture import SUFFIXES, read_picture
from boqsa.inference.segment import Segmentation, Segmenter
from boqsa.reports import save_label_png, save_png

_BATCH_PIXELS = 2**25  # a batch ends here, however few its pictures are, so that a folder of panoramas fits memory


class Segmented(NamedTuple):
    """One picture and the files that were written for it."""

    image: Path
    labels: Path
    overlay: Path
    arrays: Path
    areas: list[float]
    """Share of the labelled pixels that each slot owns."""


class Skipped(NamedTuple):
    """One picture that could not be read."""

    image: Path
    reason: str


class _Decoded(NamedTuple):
    path: Path
    output: Path
    pixels: UInt8[np.ndarray, "H W 3"]


def segment_files(
    segmenter: Segmenter, inputs: Sequence[str | Path], out: str | Path, *, batch_size: int = 16
) -> tuple[list[Segmented], list[Skipped]]:
    """Segment pictures and write the results; files of an earlier call with the same names are replaced.

    Args:
        segmenter: The model.
        inputs: Picture files, and folders that are searched with their sub-folders.
        out: Folder for the results; made when the first one is written.
        batch_size: At most so many pictures in one pass of the model; large pictures make smaller batches.

    Returns:
        What was written, and what was skipped because it is not a whole picture, both in the order of the
        input.

    Raises:
        InputError: if an input does not exist, no picture is found or can be read, or `out` cannot be
            written.
    """
    out = Path(out)
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a folder for the results.")
    done: list[Segmented] = []
    skipped: list[Skipped] = []
    for batch in _batches(find_pictures(inputs, out), batch_size, skipped):
        found = segmenter.segment_batch([picture.pixels for picture in batch])
        done += [_write(picture, segmentation) for picture, segmentation in zip(batch, found, strict=True)]
    if not done:
        more = f" ({len(skipped) - 1} more were skipped)" if len(skipped) > 1 else ""
        raise InputError(f"nothing could be segmented: {skipped[0].reason}{more}")
    return done, skipped


def find_pictures(inputs: Sequence[str | Path], out: Path) -> dict[Path, Path]:
    """The picture files of the inputs, each once, with the path in `out` that its output names start with.

    Folders give their files with a picture's suffix, sorted; hidden ones and what lies in `out` are left out.

    Raises:
        InputError: if an input does not exist, a folder is `out` itself, or there are no pictures.
    """
    places: dict[Path, Path] = {}  # file -> its place below the output folder, with the suffix
    known: set[Path] = set()
    for path in map(Path, inputs):
        for file, place in _files(path, out):
            if file.resolve() not in known:
                known.add(file.resolve())
                places[file] = place
    if not places:
        raise InputError(
            f"there are no pictures in {', '.join(map(str, inputs)) or 'an empty list'}; "
            f"name files, or a folder that holds some ({' '.join(SUFFIXES)})."
        )
    names = _unique_names(list(places.values()))
    pictures = {file: out / name for file, name in zip(places, names, strict=True)}
    overwritten = known & {path.resolve() for output in pictures.values() for path in output_paths(output)}
    if overwritten:
        raise InputError(f"the results would overwrite the picture {min(overwritten)}; choose another folder for them.")
    return pictures


def output_paths(output: Path) -> tuple[Path, Path, Path]:
    """Label map, overlay and arrays of a picture whose output names start with `output`."""
    name = output.name
    return (
        output.with_name(f"{name}_labels.png"),
        output.with_name(f"{name}_overlay.png"),
        output.with_name(f"{name}.npz"),
    )


def _files(path: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """The files that an input stands for, and their place below it."""
    if not path.exists():
        raise InputError(f"{path} does not exist; name a picture or a folder of pictures.")
    if not path.is_dir():
        yield path, Path(path.name)
        return
    if path.resolve() == out.resolve():
        raise InputError(f"{path} is the folder of pictures; choose another one for the results.")
    results = out.resolve() if out.resolve().is_relative_to(path.resolve()) else None
    for file in sorted(path.rglob("*")):
        place = file.relative_to(path)
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            continue
        if any(part.startswith(".") for part in place.parts):
            continue
        if results is None or not file.resolve().is_relative_to(results):
            yield file, place


def _unique_names(places: Sequence[Path]) -> list[Path]:
    """`sub/a.jpg` becomes `sub/a`; if another picture wants that too, `sub/a_jpg`, then `sub/a_jpg_2`, ..."""
    stems = [place.with_suffix("") for place in places]
    wanted = Counter(_same_on_disk(stem) for stem in stems)
    taken = {name for name, times in wanted.items() if times == 1}
    names = []
    for place, stem in zip(places, stems, strict=True):
        name = stem
        if wanted[_same_on_disk(stem)] > 1:
            longer = place.with_name(place.name.replace(".", "_"))
            numbered = chain([longer], (longer.with_name(f"{longer.name}_{number}") for number in count(2)))
            name = next(name for name in numbered if _same_on_disk(name) not in taken)
            taken.add(_same_on_disk(name))
        names.append(name)
    return names


def _same_on_disk(path: Path) -> str:
    """Equal for names that some file systems do not tell apart."""
    return str(path).casefold()


def _batches(pictures: dict[Path, Path], batch_size: int, skipped: list[Skipped]) -> Iterator[list[_Decoded]]:
    """Decoded pictures in groups; those that cannot be read go to `skipped`."""
    batch: list[_Decoded] = []
    pixels = 0
    for path, output in pictures.items():
        try:
            decoded = _Decoded(path, output, read_picture(path))
        except InputError as error:
            skipped.append(Skipped(path, str(error)))
            continue
        batch.append(decoded)
        pixels += decoded.pixels.shape[0] * decoded.pixels.shape[1]
        if len(batch) == batch_size or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _write(picture: _Decoded, found: Segmentation) -> Segmented:
    labels, overlay, arrays = output_paths(picture.output)
    try:
        labels.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {labels.parent}: {error.strerror}; choose another folder.") from None
    save_label_png(labels, found.labels)
    save_png(overlay, found.overlay())
    with atomic_file(arrays) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, slots=found.slots, masks=found.masks, labels=found.labels)
    return Segmented(picture.path, labels, overlay, arrays, found.areas())
