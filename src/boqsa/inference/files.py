"""Segment picture files and folders: which files, what the outputs are called, and writing them.

For a picture `a.jpg` the folder gets `a_labels.png` (indexed PNG, pixel values are labels), `a_overlay.png` and `a.npz`
(`slots`, `masks`, `labels`, `areas`, `made_from`). Sub-folders of an input folder are mirrored. Pictures that would
share a name keep their suffix in it, `a_jpg_labels.png` beside `a_png_labels.png`, and a number if that is not enough.

Notable choices:
- Threads read pictures ahead and write results behind, while the model works: of a folder of any size no more than two
  batches are in memory.
- `a.npz` is written last and says what it was made from. A call that was cut off goes on where it stopped, and one with
  another model, other settings or a changed picture makes those results anew.
- Two calls at once would mix their results, so the command holds the folder: `alone_in`.
- Each name of a picture gets results, a link's too; a linked folder is entered once.
"""

import hashlib
import json
import os
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, count, islice
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import UInt8

from boqsa.atomic import DISK_IS_FULL, LONGEST_NAME, atomic_file, one_process, sweep_partial_files, write_text
from boqsa.data.readers.picture import SUFFIXES, UNREAD_SUFFIXES, why_unread
from boqsa.data.readers.source import files_below
from boqsa.errors import InputError
from boqsa.inference.picture import read_picture
from boqsa.inference.segment import Segmentation, Segmenter
from boqsa.models.adaptive import least_contrast_of, least_rise_of
from boqsa.plain import printable
from boqsa.reports import save_label_png, save_png

_BATCH_PIXELS = 2**25  # a batch ends here, however few its pictures are, so that a folder of panoramas fits memory
_READERS, _WRITERS = 2, 2
_SKIPPED = "# pictures that boqsa segment left out"
_LOCK = ".lock"
_AHEAD = 4
"""Pictures that are read before the model asks for them."""


class Segmented(NamedTuple):
    """One picture and the files that were written for it."""

    image: Path
    labels: Path
    overlay: Path
    arrays: Path
    areas: list[float]
    """Share of the labelled pixels that each slot owns."""
    is_new: bool
    """Whether this call made it, and not an earlier one."""


class Skipped(NamedTuple):
    """One picture that could not be read."""

    image: Path
    reason: str


class _Decoded(NamedTuple):
    path: Path
    output: Path
    pixels: UInt8[np.ndarray, "H W 3"]
    identity: dict[str, str | int]
    """Of the file that the pixels are from."""


def segment_files(
    segmenter: Segmenter,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    batch_size: int = 16,
    again: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Segmented], list[Skipped]]:
    """Segment pictures and write the results; what an earlier call of the same settings finished is left as it is.

    It does not look whether another process writes to `out` too: `alone_in` does.

    Args:
        segmenter: The model.
        inputs: Picture files, and folders that are searched with their sub-folders.
        out: Folder for the results; made when the first one is written.
        batch_size: At most so many pictures in one pass of the model; large pictures make smaller batches.
        again: Make all results anew.
        progress: Called with (pictures done, pictures in all).

    Returns:
        What there is now, in the order of the input; and what was skipped, first files of formats that are not read,
        then what is not a whole picture.

    Raises:
        InputError: if an input does not exist, a folder cannot be listed, no picture is found or can be read, or `out`
            cannot be written.
    """
    out = Path(out)
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    skipped: list[Skipped] = []
    pictures = find_pictures(inputs, out, skipped)
    total = len(skipped) + len(pictures)
    settings = _settings(segmenter)
    done: dict[Path, Segmented] = {}
    for path, name in {} if again else pictures.items():
        before = _earlier(path, name, settings)
        if before is not None:
            done[path] = before
            if progress is not None:
                progress(len(done) + len(skipped), total)
    left = {path: output for path, output in pictures.items() if path not in done}
    for batch in _results(segmenter, left, settings, batch_size, skipped):
        done |= {entry.image: entry for entry in batch}
        if progress is not None:
            progress(len(done) + len(skipped), total)
    if not done:
        raise _nothing_of(skipped)
    return [done[path] for path in pictures if path in done], skipped


@contextmanager
def alone_in(out: str | Path, outputs: Iterable[Path] = ()) -> Iterator[None]:
    """Keep other processes that ask for it from writing results into `out` while the body runs; ask `find_pictures`
    first whether `out` can be it.

    The folder is made where there is none, and goes again where the body has put nothing into it. Half-written files
    of calls that were killed are removed, from `out` and from the folders of `outputs`, which `find_pictures` gives.

    Raises:
        BusyError: if another process has it.
        InputError: if it cannot be made or written to.
        OSError: if the disk is full.
    """
    out = Path(out)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]  # deepest first
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_IS_FULL:
            raise
        raise InputError(f"cannot make {out}: {error.strerror}; choose another folder.") from None
    busy = f"another call is writing to {out}; let it end and give the command again, or choose another --out."
    with one_process(out / _LOCK, wait=False, busy=busy):
        for folder in {out, *(output.parent for output in outputs)}:
            sweep_partial_files(folder)
        try:
            yield
        finally:
            with suppress(OSError):  # someone may have put something there meanwhile, or taken it away
                if made and os.listdir(out) == [_LOCK]:
                    (out / _LOCK).unlink()
                    for folder in made:
                        folder.rmdir()


def write_skipped(out: str | Path, skipped: Sequence[Skipped]) -> None:
    """`skipped.txt` in the folder of the results: a line for each picture that is left out, and why. Without any, the
    list of an earlier call goes; a file of that name that is not such a list stays as it is."""
    path = Path(out) / "skipped.txt"
    if path.exists() and not path.read_bytes().startswith(_SKIPPED.encode()):
        return
    if not skipped:
        path.unlink(missing_ok=True)
        return
    lines = [printable(f"{image}: {reason}") for image, reason in skipped]  # a line each, whatever the name
    write_text(path, "\n".join([_SKIPPED, *lines, ""]))


def find_pictures(inputs: Sequence[str | Path], out: Path, unread: list[Skipped] | None = None) -> dict[Path, Path]:
    """The picture files of the inputs, each once, with the path in `out` that its output names start with.

    Folders give their files with a picture's suffix, sorted, those of linked folders too; hidden ones and what lies in
    `out` are left out.

    Args:
        inputs: Files and folders.
        out: Folder for the results.
        unread: Gets the pictures in folders whose formats are not read.

    Raises:
        InputError: if an input does not exist, a folder cannot be listed or is `out` itself, `out` is a file, or there
            are no pictures.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a folder for the results.")
    places: dict[Path, Path] = {}  # file -> its place below the output folder, with the suffix
    known: set[str] = set()
    unread = [] if unread is None else unread
    for path in map(Path, inputs):
        is_folder = path.is_dir()
        for file, place in _files(path, out):
            name = os.path.abspath(file)
            if name in known:
                continue
            known.add(name)
            if is_folder and file.suffix.lower() in UNREAD_SUFFIXES and (reason := why_unread(file)):
                unread.append(Skipped(file, reason))
            else:
                places[file] = place
    if unread and not places:
        raise _nothing_of(unread)
    if not places:
        raise InputError(
            f"there are no pictures in {', '.join(map(str, inputs)) or 'an empty list'}; "
            f"name files, or a folder that holds some ({' '.join(SUFFIXES)})."
        )
    names = _unique_names(list(places.values()))
    pictures = {file: out / name for file, name in zip(places, names, strict=True)}
    overwritten = {file.resolve() for file in places} & {
        path.resolve() for output in pictures.values() for path in (*output_paths(output), grey_path(output))
    }
    if overwritten:
        raise InputError(f"the results would overwrite the picture {min(overwritten)}; choose another folder for them.")
    return pictures


def common_folder(inputs: Sequence[str | Path]) -> Path:
    """The folder that holds all inputs, whatever is found in them: other tools get pictures' paths below it."""
    above = [os.path.abspath(path if Path(path).is_dir() else Path(path).parent) for path in inputs]
    return Path(os.path.commonpath(above))


def output_paths(output: Path) -> tuple[Path, Path, Path]:
    """Label map, overlay and arrays of a picture whose output names start with `output`."""
    name = output.name
    return (
        output.with_name(f"{name}_labels.png"),
        output.with_name(f"{name}_overlay.png"),
        output.with_name(f"{name}.npz"),
    )


def grey_path(output: Path) -> Path:
    """Label map without colours of a picture whose output names start with `output`."""
    return output.with_name(f"{output.name}_grey.png")


def _files(path: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """The files that an input stands for, and their place below it."""
    if not path.exists():
        raise InputError(f"{path} does not exist; name a picture or a folder of pictures.")
    if not path.is_dir():
        yield path, Path(path.name)
        return
    if path.resolve() == out.resolve():
        raise InputError(f"{path} is the folder of pictures; choose another one for the results.")
    results = out.resolve()
    holds_inputs = path.resolve().is_relative_to(results)
    for file in sorted(files_below(path)):
        if file.suffix.lower() not in (*SUFFIXES, *UNREAD_SUFFIXES) or not file.is_file():
            continue
        if holds_inputs or not file.resolve().is_relative_to(results):
            yield file, file.relative_to(path)


def _nothing_of(skipped: Sequence[Skipped]) -> InputError:
    more = f" ({len(skipped) - 1} more were skipped)" if len(skipped) > 1 else ""
    return InputError(f"nothing could be segmented: {skipped[0].reason}{more}")


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


def _results(
    segmenter: Segmenter,
    pictures: Mapping[Path, Path],
    settings: Mapping[str, str],
    batch_size: int,
    skipped: list[Skipped],
) -> Iterator[list[Segmented]]:
    """Written results, batch by batch: one is written while the model looks at the next."""
    with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(_WRITERS) as writers:
        in_work: list[Future[Segmented]] = []
        try:
            for batch in _batches(_read_ahead(readers, pictures), batch_size, skipped):
                found = segmenter.predict_batch([picture.pixels for picture in batch])
                begun = [
                    writers.submit(_write, picture, segmentation, settings)
                    for picture, segmentation in zip(batch, found, strict=True)
                ]
                yield [future.result() for future in in_work]
                in_work = begun
            yield [future.result() for future in in_work]
        finally:
            for pool in (readers, writers):
                pool.shutdown(cancel_futures=True)


def _read_ahead(readers: ThreadPoolExecutor, pictures: Mapping[Path, Path]) -> Iterator[_Decoded | Skipped]:
    """The pictures in their order, some of them read before they are asked for."""
    to_come = iter(pictures.items())
    ahead = deque(readers.submit(_read, *item) for item in islice(to_come, _AHEAD))
    while ahead:
        yield ahead.popleft().result()
        ahead += [readers.submit(_read, *item) for item in islice(to_come, 1)]


def _read(path: Path, output: Path) -> _Decoded | Skipped:
    longest = max((result.name for result in (*output_paths(output), grey_path(output))), key=len)
    if len(os.fsencode(longest)) > LONGEST_NAME:
        return Skipped(path, f"{path} has too long a name for {longest[-12:]} behind it; shorten it.")
    try:
        before = _identity(path)
        pixels = read_picture(path)
        if _identity(path) != before:
            return Skipped(path, f"{path} changed while it was read; segment it again.")
    except InputError as error:
        return Skipped(path, str(error))
    except OSError as error:
        return Skipped(path, f"{path} cannot be read: {error.strerror}.")
    return _Decoded(path, output, pixels, before)


def _batches(
    pictures: Iterable[_Decoded | Skipped], batch_size: int, skipped: list[Skipped]
) -> Iterator[list[_Decoded]]:
    """Decoded pictures in groups; those that could not be read go to `skipped`."""
    batch: list[_Decoded] = []
    pixels = 0
    for picture in pictures:
        if isinstance(picture, Skipped):
            skipped.append(picture)
            continue
        batch.append(picture)
        pixels += picture.pixels.shape[0] * picture.pixels.shape[1]
        if len(batch) == batch_size or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _write(picture: _Decoded, found: Segmentation, settings: Mapping[str, str]) -> Segmented:
    labels, overlay, arrays = output_paths(picture.output)
    try:
        labels.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {labels.parent}: {error.strerror}; choose another folder.") from None
    arrays.unlink(missing_ok=True)  # or, if this is cut off, it would vouch for pictures of other settings
    save_label_png(labels, found.labels)
    save_png(overlay, found.overlay(), quickly=True)
    made_from = json.dumps({**settings, **picture.identity})
    with atomic_file(arrays) as partial, open(partial, "wb") as file:
        np.savez_compressed(
            file,
            slots=found.slots,
            masks=found.masks,
            labels=found.labels,
            areas=found.share,  # for `_earlier`, which would else have to unpack the labels of ten thousand pictures
            made_from=made_from,
        )
    return Segmented(picture.path, labels, overlay, arrays, found.share.tolist(), is_new=True)


def _settings(segmenter: Segmenter) -> dict[str, str]:
    """What a result depends on beside the picture."""
    model = segmenter.model
    weights = hashlib.sha256(repr(model._hub_mixin_config).encode())
    for name, value in model.state_dict().items():
        weights.update(name.encode())
        weights.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {
        "model": weights.hexdigest(),
        "crop": str(segmenter.crop),
        "iterations": str(segmenter.iterations or model.slot_encoder.iterations),
        "adaptive": str((least_rise_of(model), least_contrast_of(model)) if segmenter.adaptive else None),
    }


def _identity(path: Path) -> dict[str, str | int]:
    """Place, size and time of change of a picture's file."""
    facts = path.stat()
    return {"path": os.fsencode(path.resolve()).hex(), "bytes": facts.st_size, "changed": facts.st_mtime_ns}


def _earlier(path: Path, output: Path, settings: Mapping[str, str]) -> Segmented | None:
    """What an earlier call made of the same picture with the same settings; None if that is not whole."""
    labels, overlay, arrays = output_paths(output)
    if not (labels.is_file() and overlay.is_file() and arrays.is_file()):
        return None
    try:
        with np.load(arrays, allow_pickle=False) as made:
            if json.loads(str(made["made_from"])) != {**settings, **_identity(path)}:
                return None
            share = made["areas"]
    except (OSError, ValueError, KeyError, TypeError, BadZipFile, EOFError, zlib.error):
        return None
    return Segmented(path, labels, overlay, arrays, share.tolist(), is_new=False)
