"""Instances in COCO's JSON, of any data set that was exported so (spec/datasets.md 13).

    SOURCE           JSON: lists `images` (id, file_name, height, width)
                     and `annotations` (id, image_id, segmentation, iscrowd, area)
    images=FOLDER    the image files, by `file_name`

A segmentation is a list of polygons, or run lengths, as a list or compressed; each annotation says so by its type.

Notable choices:
 - Masks are painted at full size, then cropped and resized. Objects are numbered by annotation id; those that crop or
   resizing cut away vanish, and so do those below `min_area`, to background.
 - `paint="area"` puts small objects on top, ties by annotation id; `"last"` puts later ones of the file on top, as the
   COCO subset of Yang & Yang was made.
 - The class of an object is its `category_id`; a set has classes only if each of its objects has one.
 - Crowd regions lie below everything else and are ignore: they are many objects, or nobody knows how many.
 - A JSON of hundreds of megabytes is fine: coordinates become plain numbers while it is parsed.
 - A segmentation that is malformed is the error of its image alone; anything else wrong with the JSON refuses it.
"""

import json
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int32
from numpy.typing import NDArray

from boqsa.data.packing import CLASSES, IGNORE, class_extra
from boqsa.data.readers.picture import TURNED, read_rgb
from boqsa.data.readers.source import (
    Item,
    Sample,
    Source,
    choose,
    listed,
    split_by_hash,
    take,
)
from boqsa.data.resample import centre_square, resize_image, resize_mask
from boqsa.data.run_lengths import decode_run_lengths, rasterise_polygons
from boqsa.errors import InputError

SPLITS = ("hash", "train", "val", "test")
_HASH_RULE = "80/10/10 by a hash of the image id, stable when images are added"
_KEPT = ("id", "image_id", "category_id", "segmentation", "iscrowd", "area")
"""What is kept of an annotation."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, or one crowd region."""

    id: int
    segmentation: Any
    """As in the JSON, lists of numbers as `array`; not checked."""
    crowd: bool
    area: float | None
    category: int | None = None
    """None where the JSON says none, or no whole number from 0 to 2^31 - 1."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of the JSON."""

    id: int | str
    file_name: str
    size: tuple[int, int]
    """Height and width."""
    annotations: tuple[Annotation, ...]
    """In the order of the file."""


def read(
    source: Path,
    *,
    image_size: tuple[int, int] = (128, 128),
    images: str | Path | None = None,
    crop: Literal["centre", "none"] = "centre",
    paint: Literal["area", "last"] = "area",
    min_area: float = 0.0,
    split: Literal["hash", "train", "val", "test"] = "hash",
    limit: int | None = None,
) -> Source:
    """Open a JSON of COCO instances.

    Args:
        source: The JSON.
        image_size: Height and width.
        images: The folder of the image files; it must be given.
        crop: The largest central square, or none.
        paint: What lies on top where objects overlap: the smaller one by `area`, or the later one of the file.
        min_area: Leave out objects that cover less than this share of the packed image.
        split: `hash` deals the images out by their id; `train`, `val` or `test` puts all into that one.
        limit: At most this many images of each split, the first ones by file name.

    Raises:
        InputError: if the JSON is malformed, has no images or no segmentations, or the folder does not exist.
    """
    choose("crop", crop, ("centre", "none"))
    choose("paint", paint, ("area", "last"))
    choose("split", split, SPLITS)
    if isinstance(min_area, bool) or not isinstance(min_area, int | float) or not 0 <= min_area < 1:
        raise InputError(f"min_area is {min_area!r}; a share of the image from 0 to below 1 expected.")
    folder = _image_folder(images)
    pictures, unknown = read_instances(source)
    objects = [len(_objects_of(picture)) for picture in pictures]
    if max(objects) > np.iinfo(np.int16).max:
        raise InputError(f"{source}: an image has {max(objects)} annotations; at most 32767 can be numbered.")
    wide = max(objects) >= IGNORE
    masked = any(picture.annotations for picture in pictures)
    items = [
        Item(
            name=picture.file_name,
            split=split_by_hash(str(picture.id)) if split == "hash" else split,
            files=(folder / picture.file_name,),
            facts=picture,
        )
        for picture in pictures
    ]
    items = take(items, limit)
    notices = [f"{unknown} annotations belong to no image of the JSON and were left out"] if unknown else []
    if not masked:
        notices.append("the JSON has no annotations: packed without masks")
    known = [annotation.category is not None for picture in pictures for annotation in _objects_of(picture)]
    classed = masked and all(known)
    if masked and not classed:
        notices.append(f"{known.count(False)} annotations have no usable category_id: packed without classes")
    extras = {CLASSES: class_extra(max(objects))} if classed else {}
    return Source(
        items=listed(items),
        load=partial(
            _load,
            size=image_size,
            cropped=crop == "centre",
            paint=paint,
            min_area=min_area,
            wide=wide,
            masked=masked,
            highest=max(objects) if classed else None,
        ),
        total=len(items),
        image_size=image_size,
        split_rule=_HASH_RULE if split == "hash" else f"all images are {split}",
        partial=limit is not None,
        wide_labels=wide,
        extras=extras,
        options={
            "images": str(images),
            "crop": crop,
            "paint": paint,
            "min_area": str(min_area),
            "split": split,
        },
        notices=notices,
    )


def _image_folder(images: str | Path | None) -> Path:
    if images is None:
        raise InputError("coco_instances needs the folder of the image files; give --images DIR.")
    folder = Path(images)
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"the folder of the image files, {folder}, {state}; give another --images DIR.")
    return folder


# The JSON.


def read_instances(path: Path) -> tuple[list[Picture], int]:
    """The images of a COCO JSON in the order of their file names, and how many annotations belong to none.

    Raises:
        InputError: if the file is not such a JSON, or has no images, or annotations that are boxes alone.
    """
    content = _parse(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise InputError(f"{path} is not a JSON of COCO instances: lists 'images' and 'annotations' expected.")
    annotations = content.get("annotations", [])
    if not isinstance(annotations, list):
        raise InputError(f"{path}: 'annotations' is not a list.")
    if not content["images"]:
        raise InputError(f"{path} lists no images; give the JSON of another split.")
    known: dict[int | str, tuple[str, tuple[int, int]]] = {}
    for index, entry in enumerate(content["images"]):
        identity, name, size = _image(entry, f"{path}: image {index}")
        if identity in known:
            raise InputError(f"{path}: image id {_short(identity)} occurs twice.")
        known[identity] = (name, size)
    of_image: dict[int | str, list[Annotation]] = {}
    outlined = unknown = 0
    for index, entry in enumerate(annotations):
        identity, annotation = _annotation(entry, f"{path}: annotation {index}")
        annotations[index] = None  # frees what was parsed
        outlined += annotation.segmentation is not None
        if identity in known:
            of_image.setdefault(identity, []).append(annotation)
        else:
            unknown += 1
    if annotations and not outlined:
        raise InputError(f"{path} has boxes alone, no segmentation; export it with polygons or run lengths.")
    pictures = [
        Picture(identity, name, size, tuple(of_image.get(identity, ()))) for identity, (name, size) in known.items()
    ]
    pictures.sort(key=lambda picture: (os.fsencode(picture.file_name), str(picture.id)))
    return pictures, unknown


def _parse(path: Path) -> Any:
    if not path.is_file():
        if path.is_dir():
            inside = ", ".join(sorted(entry.name for entry in path.glob("*.json"))[:5])
            raise InputError(f"{path} is a folder; give the JSON of the annotations{f' ({inside})' if inside else ''}.")
        raise InputError(f"{path} {'is not a file' if path.exists() else 'does not exist'}.")
    try:
        return json.loads(path.read_bytes(), object_hook=_compact, parse_constant=_refuse_constant)
    except RecursionError:
        raise InputError(f"{path} is not a JSON of COCO instances: it is nested too deep.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise InputError(f"{path} is not a JSON file: {error}; download or export it again.") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _compact(parsed: dict[str, Any]) -> dict[str, Any]:
    """Called with every object as it is parsed: only what is needed stays, and numbers in eight bytes each."""
    if "counts" in parsed:
        return parsed | {"counts": _numbers("q", parsed["counts"])}
    if "image_id" not in parsed or "file_name" in parsed:
        return parsed
    kept = {key: parsed[key] for key in _KEPT if key in parsed}
    if isinstance(kept.get("segmentation"), list):
        kept["segmentation"] = [_numbers("d", polygon) for polygon in kept["segmentation"]]
    return kept


def _numbers(kind: Literal["q", "d"], values: Any) -> Any:
    if isinstance(values, list):
        try:
            return array(kind, values)
        except (TypeError, OverflowError):
            pass  # malformed: told when the image is read
    return values


def _image(entry: Any, where: str) -> tuple[int | str, str, tuple[int, int]]:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not an object with id, file_name, height and width.")
    name = entry.get("file_name")
    height, width = entry.get("height"), entry.get("width")
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise InputError(f"{where} has height {_short(height)} and width {_short(width)}; whole numbers expected.")
    return _identity(entry.get("id"), f"{where} has the id"), _safe_name(name, where), (height, width)


def _annotation(entry: Any, where: str) -> tuple[int | str, Annotation]:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not an object with id, image_id and segmentation.")
    identity = _identity(entry.get("image_id"), f"{where} has the image_id")
    own, crowd, area = entry.get("id"), entry.get("iscrowd", 0), entry.get("area")
    if type(own) is not int:
        raise InputError(f"{where} has the id {_short(own)}; a whole number expected.")
    if crowd not in (0, 1):
        raise InputError(f"{where} has iscrowd {_short(crowd)}; 0 or 1 expected.")
    if area is not None:
        sound = isinstance(area, int | float) and not isinstance(area, bool) and abs(area) < 2**63
        if not sound:  # infinite ones and NaN as well
            raise InputError(f"{where} has the area {_short(area)}; a number expected.")
        area = float(area)
    category = entry.get("category_id")
    if type(category) is not int or not 0 <= category < 2**31:
        category = None
    return identity, Annotation(own, entry.get("segmentation"), bool(crowd), area, category)


def _identity(value: Any, what: str) -> int | str:
    if type(value) is int or (isinstance(value, str) and _is_text(value)):
        return value
    raise InputError(f"{what} {_short(value)}; a whole number or a string expected.")


def _safe_name(name: Any, where: str) -> str:
    """The name of an image file, if it stays inside the folder and is one at all."""
    if isinstance(name, str) and "\0" not in name and _is_text(name):
        paths = (PurePosixPath(name), PureWindowsPath(name))
        if not any(path.anchor or ".." in path.parts or not path.parts for path in paths):
            return name
    raise InputError(f"{where} has the file_name {_short(name)}; a path inside the folder of the images expected.")


def _is_text(text: str) -> bool:
    """JSON can write halves of characters that no file name, and no file, can hold."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


# One image.


def draw(annotation: Annotation, size: tuple[int, int], notices: set[str]) -> Bool[np.ndarray, "h w"]:
    """The pixels of an annotation in an image of `size`; parts that are no area are left out and told to `notices`.

    Raises:
        ValueError: if the segmentation is malformed, or made for another size.
    """
    segmentation = annotation.segmentation
    if segmentation is None:
        notices.add("annotations without a segmentation left out")
        return np.zeros(size, bool)
    if isinstance(segmentation, dict):
        found = segmentation.get("size")
        if not isinstance(found, list) or found != list(size):
            raise ValueError(f"its run lengths are of size {_short(found)}, the image is {size[0]}x{size[1]}")
        counts = segmentation.get("counts")
        return decode_run_lengths(counts.tolist() if isinstance(counts, array) else counts, size)  # type: ignore[arg-type]
    if not isinstance(segmentation, list) or not all(isinstance(polygon, array) for polygon in segmentation):
        raise ValueError("its segmentation is neither a list of polygons nor run lengths")
    whole = [polygon.tolist() for polygon in segmentation if len(polygon) >= 6]
    if len(whole) < len(segmentation) or not segmentation:
        notices.add("polygons of fewer than three points left out")
    return rasterise_polygons(whole, size)


def broken(item: Item, annotation: Annotation, error: ValueError) -> InputError:
    """What to raise for a segmentation that cannot be drawn."""
    return InputError(f"{item.name}: annotation {annotation.id} is malformed: {str(error).rstrip('.')}.")


def check_size(image: NDArray[np.uint8], item: Item, turned: bool) -> None:
    """Compare an image with what the JSON says of it.

    Raises:
        InputError: if height or width differ.
    """
    picture: Picture = item.facts
    if image.shape[:2] != picture.size:
        advice = (
            "it was turned by its EXIF orientation; save it upright, as the annotations see it"
            if turned
            else "is it the right folder?"
        )
        raise InputError(
            f"{item.files[0]} is {image.shape[0]}x{image.shape[1]}, "
            f"the JSON says {picture.size[0]}x{picture.size[1]} (height x width); {advice}."
        )


def _load(
    item: Item,
    *,
    size: tuple[int, int],
    cropped: bool,
    paint: str,
    min_area: float,
    wide: bool,
    masked: bool,
    highest: int | None,
) -> Sample:
    """A sample; with the class of each label up to `highest`, if that is given."""
    told: list[str] = []
    image = read_rgb(item.files[0], told.append)
    check_size(image, item, TURNED in told)
    notices = set(told)
    packed = resize_image(centre_square(image) if cropped else image, size)
    if not masked:
        return Sample(packed, None, tuple(sorted(notices)))
    labels = _paint(item, paint, notices)
    visible = _count(labels)
    labels = resize_mask(centre_square(labels) if cropped else labels, size)
    if _count(labels) < visible:
        notices.add("objects cut away by crop or resizing")
    labels, kept = _numbered(labels, min_area, notices)
    if not item.facts.annotations:
        notices.add("no annotations")
    mask = labels.astype(np.int16) if wide else np.where(labels < 0, IGNORE, labels).astype(np.uint8)
    if highest is None:
        return Sample(packed, mask, tuple(sorted(notices)))
    categories = [annotation.category for annotation in _objects_of(item.facts)]
    classes = np.full(highest + 1, -1, np.int32)
    classes[1 : len(kept) + 1] = [categories[label - 1] for label in kept]
    return Sample(packed, mask, tuple(sorted(notices)), {CLASSES: classes})


def _objects_of(picture: Picture) -> list[Annotation]:
    """The annotations that are no crowd, by id: the k-th is label k at full size."""
    return sorted((one for one in picture.annotations if not one.crowd), key=lambda one: one.id)


def _paint(item: Item, paint: str, notices: set[str]) -> Int32[np.ndarray, "h w"]:
    """The label map at full size: -1 = ignore, 0 = background, k = the k-th annotation by id that is no crowd."""
    picture: Picture = item.facts
    labels = np.zeros(picture.size, np.int32)
    objects = [annotation for annotation in picture.annotations if not annotation.crowd]
    by_id = sorted(range(len(objects)), key=lambda index: objects[index].id)  # as `_objects_of`
    number = {index: label for label, index in enumerate(by_id, 1)}

    def drawn(annotation: Annotation) -> Bool[np.ndarray, "h w"]:
        try:
            return draw(annotation, picture.size, notices)
        except ValueError as error:
            raise broken(item, annotation, error) from None

    for annotation in picture.annotations:
        if annotation.crowd:
            labels[drawn(annotation)] = -1
            notices.add("crowd regions are ignored by scores")
    order: Sequence[int] = range(len(objects))
    if paint == "area":
        areas = [
            annotation.area if annotation.area is not None else float(drawn(annotation).sum()) for annotation in objects
        ]
        order = sorted(by_id, key=lambda index: -areas[index])
    without_pixel = 0
    for index in order:
        mask = drawn(objects[index])
        without_pixel += not mask.any()
        if (labels[mask] > 0).any():
            notices.add("annotations overlap")
        labels[mask] = number[index]
    if without_pixel:
        notices.add("annotations without a pixel left out")
    if _count(labels) < len(objects) - without_pixel:
        notices.add("annotations hidden by others")
    return labels


def _count(labels: NDArray[np.int32]) -> int:
    return len(np.unique(labels[labels > 0]))


def _numbered(
    labels: Int32[np.ndarray, "h w"], min_area: float, notices: set[str]
) -> tuple[Int32[np.ndarray, "h w"], Int32[np.ndarray, "kept"]]:
    """Labels 1, 2, ... without gaps, in the same order, and what each was before; objects that are too small become
    background."""
    found, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    kept = (found > 0) & (counts / labels.size >= min_area)
    if kept.sum() < (found > 0).sum():
        notices.add("objects below min_area left out")
    new = np.where(kept, np.cumsum(kept), np.minimum(found, 0)).astype(np.int32)  # -1 stays
    return new[position.reshape(labels.shape)], found[kept]
