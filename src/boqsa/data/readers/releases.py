"""The YCB, ScanNet and COCO subsets of Yang & Yang (2022), made from the releases (spec/datasets.md 12.2).

    YCB       SOURCE/image_sets/{train,val}.txt                 lines <video>/<frame>
              SOURCE/data/<video>/<frame>-{color,label}.png
    ScanNet   SOURCE/scannetv2_{train,val}.txt                  one scene a line; `validation` for val is fine
              SOURCE/[scans/]<scene>/<scene>.sens               or color/<n>.{png,jpg}, as exported
              SOURCE/[scans/]<scene>/<scene>_2d-instance-filt.zip  or instance-filt/<n>.png, unpacked
    COCO      SOURCE/{train2017,val2017}/*.jpg
              SOURCE/[annotations/]instances_{train,val}2017.json

A picture is cropped to its central square, resized to its nearest pixels, made black outside of the objects that are
kept, and the objects are numbered by ascending id. Test comes from the validation split.

Notable choices:
 - Only pictures with two to six objects are kept. How many these are must be known before packing starts, so `read`
   looks at every label map once ("surveying"); images are not decoded for it.
 - Objects are chosen at the published 128x128 for any size that is asked for, so that the pictures are the same ones.
 - The part of train that is held out as val is the last 5 % of the list before pictures are chosen, so that a `limit`
   does not have to survey all of it.
 - `cv2-nearest` is reproduced to the last bit: OpenCV multiplies by a rounded step, and its pixel differs from
   floor(i * in / out) for one side in forty.
 - A label map that is broken keeps its picture in the list, whose reading then says so.
"""

import io
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from boqsa.data.readers.coco_instances import broken, check_size, draw, read_instances
from boqsa.data.readers.picture import FORMATS, MOST_PIXELS, TURNED, decoding, open_picture, read_rgb
from boqsa.data.readers.source import Item, Progress, Sample, Source, listed, some_of
from boqsa.errors import InputError

FEWEST, MOST = 2, 6
"""Objects of a picture."""
SHARES = (0.007, 0.2)
"""Smallest and largest share of the picture that an object may cover, both inclusive; not for YCB."""
PUBLISHED = (128, 128)
STEP = 20
"""Of YCB and ScanNet every 20th frame is taken."""
LEAK = "selected on the test set"
_PIECE = 64
"""Label maps surveyed together."""
_MOST_BYTES = 64 << 20
"""Of one encoded picture."""
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)
_SENS_FRAME = struct.Struct("<16fQQQQ")


def has(dataset: str, folder: Path) -> bool:
    """Whether `folder` holds the release that the subset `dataset` is made from."""
    if dataset == "ycb":
        return (folder / "image_sets" / "train.txt").is_file() and (folder / "data").is_dir()
    if dataset == "scannet":
        return (folder / "scannetv2_train.txt").is_file()
    return (folder / "train2017").is_dir() and (folder / "val2017").is_dir()


def read(
    dataset: str,
    root: Path,
    *,
    image_size: tuple[int, int],
    split: str,
    limit: int | None,
    progress: Progress,
) -> Source:
    """Make the subset `dataset` (`ycb`, `scannet`, `coco`) of the release at `root`.

    Args:
        dataset: Which one.
        root: The folder that `has` accepts.
        image_size: Height and width.
        split: `clean` or `published`.
        limit: At most this many images of each split.
        progress: Told about the survey.

    Raises:
        InputError: if lists, annotations or `.sens` files are missing or malformed, or no picture can be kept.
    """
    kind = _KINDS[dataset]
    listing = kind.listing(root)
    if not listing.train or not listing.test:
        raise InputError(f"{root} has none of the pictures that its list of train, or of val, names.")
    items, rule = arrange(listing.train, listing.test, split, train_name="the list of train")
    notices = list(listing.notices)
    kept, seen = _survey(items, partial(_is_kept, kind=kind), limit, progress)
    if not kept:
        raise InputError(f"{root}: none of {seen} pictures shows {FEWEST} to {MOST} objects that can be kept.")
    if len(kept) < seen:
        notices.append(f"{seen - len(kept)} of {seen} pictures do not show {FEWEST} to {MOST} objects: left out")
    return Source(
        items=listed(kept),
        load=partial(_load, kind=kind, size=image_size),
        total=len(kept),
        image_size=image_size,
        split_rule=rule,
        partial=listing.partial or limit is not None,
        leak=LEAK if split == "published" else "",
        options={"made_from": "release", "split": split, "variant": "default"},
        notices=notices,
    )


def arrange(
    train: Sequence[Item], test: Sequence[Item], split: str, *, train_name: str = "train"
) -> tuple[list[Item], str]:
    """Deal out train and test for `clean` or `published`; the items and the rule as a sentence."""
    if split == "published":
        items = [_in(item, "train") for item in train] + [_in(item, "val") for item in test]
        return items + [_in(item, "test") for item in test], "published train and test; val is test"
    held_out = min(max(2, len(train) // 20), len(train) // 2)  # so that even a handful has a val
    first = _start_of_folder(train, len(train) - held_out)
    items = [_in(item, "train" if index < first else "val") for index, item in enumerate(train)]
    rule = f"published train and test; the last 5 % of {train_name} are val, whole videos where there are some"
    return items + [_in(item, "test") for item in test], rule


def _start_of_folder(items: Sequence[Item], index: int) -> int:
    """The start of the video, or scene, that `index` lies in: its frames look alike. `index` if there is but one."""
    start = index
    while 0 < start < len(items) and items[start - 1].files[0].parent == items[index].files[0].parent:
        start -= 1
    return start or index


def _in(item: Item, split: str) -> Item:
    return Item(item.name, split, item.files, item.facts)


def nearest(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize (H, W, ...) to (height, width) by `cv2-nearest`, to the same pixels as OpenCV's INTER_NEAREST."""
    rows, columns = (
        np.minimum(np.floor(np.arange(out) * (1 / (out / side))).astype(np.int64), side - 1)
        for out, side in zip(size, pixels.shape, strict=False)
    )
    picked: NDArray[Any] = pixels[rows[:, None], columns]
    return picked


def numbered(labels: NDArray[Any], kept: NDArray[Any]) -> UInt8[np.ndarray, "h w"]:
    """The ids of `kept` that occur, numbered 1, 2, ... in ascending order; all others are 0."""
    found, position = np.unique(labels, return_inverse=True)
    of_kept = np.isin(found, kept) & (found != 0)
    return np.where(of_kept, np.cumsum(of_kept), 0).astype(np.uint8)[position.reshape(labels.shape)]


def _survey(
    items: list[Item], keep: Callable[[Item], bool], limit: int | None, progress: Progress
) -> tuple[list[Item], int]:
    """The items to keep, at most `limit` of each split, and how many were looked at."""
    kept: list[Item] = []
    count: Counter[str] = Counter()
    seen = 0
    verdicts: dict[str, bool] = {}  # published val and test are the same pictures
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # decoding does not hold the interpreter's lock
        for start in range(0, len(items), _PIECE):
            piece = items[start : start + _PIECE]
            wanted = [item for item in piece if limit is None or count[item.split] < limit]
            new = [item for item in wanted if item.name not in verdicts]
            verdicts.update(zip([item.name for item in new], pool.map(keep, new), strict=True))
            for item in wanted:
                if limit is None or count[item.split] < limit:
                    seen += 1
                    if verdicts[item.name]:
                        count[item.split] += 1
                        kept.append(item)
            progress("surveying", start + len(piece), len(items))
    return kept, seen


@dataclass(frozen=True)
class _Listing:
    train: list[Item]
    """Its items, and those of test, get their splits later."""
    test: list[Item]
    notices: tuple[str, ...]
    partial: bool


@dataclass(frozen=True)
class _Kind:
    """How one of the releases is read. Its functions belong to the module, so that it can be sent to a process."""

    listing: Callable[[Path], _Listing]
    ids: Callable[[Item], NDArray[Any]]
    """The label map of the release at full size, 0 = no object."""
    image: Callable[[Item, Callable[[str], None]], UInt8[np.ndarray, "h w 3"]]
    side: int | None
    """Of the central square; None = the largest."""
    by_share: bool
    """Whether objects are chosen by `SHARES`."""


def _is_kept(item: Item, kind: _Kind) -> bool:
    try:
        return FEWEST <= len(_chosen(_square(kind.ids(item), kind, item), kind)) <= MOST
    except InputError:
        return True  # reading it will say what is wrong


def _chosen(square: NDArray[Any], kind: _Kind) -> NDArray[Any]:
    """The ids that are kept, ascending."""
    found, counts = np.unique(nearest(square, PUBLISHED), return_counts=True)
    kept = found != 0
    if kind.by_share:
        share = counts / (PUBLISHED[0] * PUBLISHED[1])
        kept &= (share >= SHARES[0]) & (share <= SHARES[1])
    ids: NDArray[Any] = found[kept]
    return ids


def _square(pixels: NDArray[Any], kind: _Kind, item: Item) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    side = kind.side or min(height, width)
    if min(height, width) < side:
        raise InputError(f"{item.name} is {height}x{width}; at least {side}x{side} expected.")
    top, left = height // 2 - side // 2, width // 2 - side // 2
    return pixels[top : top + side, left : left + side]


def _load(item: Item, *, kind: _Kind, size: tuple[int, int]) -> Sample:
    notices: list[str] = []
    image = kind.image(item, notices.append)
    ids = kind.ids(item)
    if image.shape[:2] != ids.shape:
        raise InputError(
            f"{item.name}: the image is {image.shape[0]}x{image.shape[1]}, "
            f"its label map {ids.shape[0]}x{ids.shape[1]}; they must agree."
        )
    square = _square(ids, kind, item)
    chosen = _chosen(square, kind)
    if not FEWEST <= len(chosen) <= MOST:
        raise InputError(f"{item.name} shows {len(chosen)} objects, but was surveyed otherwise; start again.")
    mask = numbered(nearest(square, size), chosen)
    pixels = nearest(_square(image, kind, item), size) * (mask != 0)[..., None]
    return Sample(pixels.astype(np.uint8), mask, tuple(notices))


def _label_map(picture: Image.Image, path: Path) -> NDArray[Any]:
    with decoding(path):
        ids = np.asarray(picture)
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise InputError(f"{path} has {picture.mode} pixels; a grey label map expected.")
    return ids


def _lines(path: Path) -> list[str]:
    """The entries of a list, all of them paths that lead nowhere else."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list {path}: {error}.") from None
    for line in lines:
        if not re.fullmatch(r"[\w./-]+", line) or line.startswith("/") or ".." in PurePosixPath(line).parts:
            raise InputError(f"{path} is not a list of names: it has the line {line[:60]!a}.")
    if not lines:
        raise InputError(f"{path} is empty; download it again.")
    return lines


def _absent(what: str, names: list[str]) -> tuple[str, ...]:
    """The notice about `names`, which the lists have and the folders have not."""
    return (f"{len(names)} {what} of the lists are missing: {some_of(names)}",) if names else ()


# YCB-Video.


def _list_ycb(root: Path) -> _Listing:
    absent: dict[str, None] = {}
    splits: list[list[Item]] = []
    for name in ("train", "val"):
        items = []
        for line in _lines(root / "image_sets" / f"{name}.txt")[::STEP]:
            video, _, frame = line.rpartition("/")
            folder = root / "data" / video
            if not folder.is_dir():
                absent[video] = None
                continue
            items.append(Item(line, name, (folder / f"{frame}-color.png", folder / f"{frame}-label.png")))
        splits.append(items)
    return _Listing(splits[0], splits[1], _absent("videos", sorted(absent)), bool(absent))


def _ycb_ids(item: Item) -> NDArray[Any]:
    return _label_map(open_picture(item.files[1]), item.files[1])


def _first_file(item: Item, notice: Callable[[str], None]) -> UInt8[np.ndarray, "h w 3"]:
    return read_rgb(item.files[0], notice)


# ScanNet.


@dataclass(frozen=True, slots=True)
class _Part:
    """Where the bytes of a picture are: a file, an entry of a zip, or a piece of a file."""

    path: Path
    entry: str = ""
    offset: int = 0
    length: int | None = None


def _list_scannet(root: Path) -> _Listing:
    absent: list[str] = []
    splits: list[list[Item]] = []
    for names in (("train",), ("val", "validation")):
        lists = [root / f"scannetv2_{name}.txt" for name in names]
        path = next((path for path in lists if path.is_file()), lists[0])
        items: list[Item] = []
        for scene in _lines(path):
            folder = next((f for f in (root / "scans" / scene, root / scene) if f.is_dir()), None)
            if folder is None:
                absent.append(scene)
            else:
                items += _list_scene(folder, scene)
        splits.append(items)
    return _Listing(splits[0], splits[1], _absent("scenes", absent), bool(absent))


def _list_scene(folder: Path, scene: str) -> Iterable[Item]:
    label_folder, archive = folder / "instance-filt", folder / f"{scene}_2d-instance-filt.zip"
    if not label_folder.is_dir() and not archive.is_file():
        raise InputError(f"{folder} has neither instance-filt nor {archive.name}; download that file of the scene.")
    colour, recording = folder / "color", folder / f"{scene}.sens"
    if colour.is_dir():
        frames = sorted(
            (int(path.stem), path.name)
            for path in colour.iterdir()
            if path.suffix.lower() in (".png", ".jpg") and re.fullmatch(r"[0-9]{1,9}", path.stem)
        )
        images = [(number, _Part(colour / name)) for number, name in frames[::STEP]]
    elif recording.is_file():
        images = sens_frames(recording)
    else:
        raise InputError(f"{folder} has neither color nor {recording.name}; download that file of the scene.")
    for number, image in images:
        labels = (
            _Part(label_folder / f"{number}.png")
            if label_folder.is_dir()
            else _Part(archive, entry=f"instance-filt/{number}.png")
        )
        yield Item(f"{scene}/{number}", "", (image.path, labels.path), (image, labels))


def sens_frames(path: Path) -> list[tuple[int, _Part]]:
    """The number and place of the JPEG of every 20th frame of a `.sens` recording.

    Raises:
        InputError: if it is not such a recording, is truncated, or its colour frames are not JPEG.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            return _walk_sens(file, size, path)
    except struct.error:
        raise InputError(f"{path} ends in its header; download it again.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None


def _walk_sens(file: BinaryIO, size: int, path: Path) -> list[tuple[int, _Part]]:
    def unpack(form: str) -> tuple[Any, ...]:
        return struct.unpack(form, file.read(struct.calcsize(form)))

    version, name_length = unpack("<IQ")
    if version != 4 or name_length > 4096:
        raise InputError(f"{path} is not a .sens file of version 4.")
    file.seek(name_length + 4 * 64, os.SEEK_CUR)  # the sensor's name and four matrices
    colour_coding, _, _, _, _, _, _, count = unpack("<iiIIIIfQ")
    if colour_coding != 2:
        raise InputError(f"{path} has colour coding {colour_coding}; 2 (jpeg) expected.")
    frames = []
    position = file.tell()
    for number in range(count):
        file.seek(position)
        header = file.read(_SENS_FRAME.size)
        colour_bytes, depth_bytes = _SENS_FRAME.unpack(header)[-2:] if len(header) == _SENS_FRAME.size else (size, 0)
        start = position + _SENS_FRAME.size
        position = start + colour_bytes + depth_bytes
        if position > size:
            raise InputError(f"{path} is truncated after {number} of {count} frames; download it again.")
        if number % STEP == 0:
            frames.append((number, _Part(path, offset=start, length=colour_bytes)))
    return frames


def _scannet_ids(item: Item) -> NDArray[Any]:
    part: _Part = item.facts[1]
    return _label_map(_decoded(part), part.path / part.entry)


def _scannet_image(item: Item, notice: Callable[[str], None]) -> UInt8[np.ndarray, "h w 3"]:
    part: _Part = item.facts[0]
    picture = _decoded(part)
    with decoding(part.path):
        return np.asarray(picture.convert("RGB"))
    raise AssertionError  # for mypy, which believes that `decoding` swallows what it replaces


def _decoded(part: _Part) -> Image.Image:
    """A picture as stored; label maps know nothing of an EXIF orientation."""
    if not part.entry and part.length is None:
        return open_picture(part.path, upright=False)
    content = _entry_bytes(part) if part.entry else _piece_bytes(part)
    where = part.path / part.entry if part.entry else part.path
    with decoding(where):
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        if picture.width * picture.height > MOST_PIXELS:
            raise InputError(f"{where} has {picture.height}x{picture.width} pixels; that is no ScanNet picture.")
        picture.load()
    return picture


def _piece_bytes(part: _Part) -> bytes:
    if part.length is None or part.length > _MOST_BYTES:
        raise InputError(f"{part.path} has a frame of {part.length} bytes; that is no ScanNet picture.")
    try:
        with open(part.path, "rb") as file:
            file.seek(part.offset)
            return file.read(part.length)
    except OSError as error:
        raise InputError(f"cannot read {part.path}: {error.strerror}.") from None


def _entry_bytes(part: _Part) -> bytes:
    try:
        archive = _opened_zip(part.path, part.path.stat().st_mtime_ns)
        if archive.getinfo(part.entry).file_size > _MOST_BYTES:
            raise InputError(f"{part.path} has a huge entry {part.entry}; that is no ScanNet picture.")
        return archive.read(part.entry)
    except KeyError:
        raise InputError(f"{part.path} has no {part.entry}; download it again.") from None
    except OSError as error:
        raise InputError(f"cannot read {part.path}: {error.strerror or error}.") from None
    except _BROKEN_ZIP as error:
        raise InputError(f"{part.path} is not a whole zip file ({error}); download it again.") from None


@lru_cache(maxsize=4)
def _opened_zip(path: Path, _: int) -> zipfile.ZipFile:
    """Kept open, as a scene has hundreds of frames and reading the directory of a zip costs more than one of them."""
    return zipfile.ZipFile(path)


# COCO.


def _list_coco(root: Path) -> _Listing:
    splits: list[list[Item]] = []
    notices: list[str] = []
    for name in ("train2017", "val2017"):
        file_name = f"instances_{name}.json"
        inside = root / "annotations" / file_name
        path = inside if inside.is_file() or not (root / file_name).is_file() else root / file_name
        pictures, unknown = read_instances(path)
        if unknown:
            notices.append(f"{unknown} annotations of {file_name} belong to no image and were left out")
        splits.append(
            [
                Item(f"{name}/{picture.file_name}", "", (root / name / picture.file_name,), picture)
                for picture in pictures
            ]
        )
    return _Listing(splits[0], splits[1], tuple(notices), False)


def _coco_ids(item: Item) -> NDArray[Any]:
    """The intermediate label map: 1-based position of the annotation, crowd or not, the later one on top."""
    picture = item.facts
    if picture.size[0] * picture.size[1] > MOST_PIXELS:
        raise InputError(f"{item.name}: the JSON says {picture.size[0]}x{picture.size[1]}; that is too large.")
    ids = np.zeros(picture.size, np.uint8)
    if len(picture.annotations) < FEWEST:
        return ids
    for number, annotation in enumerate(picture.annotations, 1):
        try:
            ids[draw(annotation, picture.size, set())] = min(number, 255)  # it was saved in eight bits
        except ValueError as error:
            raise broken(item, annotation, error) from None
    return ids


def _coco_image(item: Item, notice: Callable[[str], None]) -> UInt8[np.ndarray, "h w 3"]:
    told: list[str] = []
    image = read_rgb(item.files[0], told.append)
    check_size(image, item, TURNED in told)
    for phrase in told:
        notice(phrase)
    return image


_KINDS = {
    "ycb": _Kind(_list_ycb, _ycb_ids, _first_file, side=480, by_share=False),
    "scannet": _Kind(_list_scannet, _scannet_ids, _scannet_image, side=800, by_share=True),
    "coco": _Kind(_list_coco, _coco_ids, _coco_image, side=None, by_share=True),
}
