"""What was found, in the formats of other tools: supervision, COCO instances, and a list of labels for PNG maps.

Slots have no class; where a format wants one, it is the slot, by its name if it has one (`boqsa.inference.names`). A
slot that owns no pixel is left out.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from boqsa.atomic import atomic_file
from boqsa.data.run_lengths import encode_run_lengths
from boqsa.errors import InputError
from boqsa.inference.files import Segmented, grey_path
from boqsa.inference.names import UNNAMED
from boqsa.inference.segment import IGNORE, Segmentation, area_of, boxes_of, confidence_of
from boqsa.reports import save_png, slot_colours

if TYPE_CHECKING:
    from supervision import Detections


COCO_START = b'{"info": {"description": "slots found by boqsa"}'
CVAT_START = b"PK"
"""What the files that are written here begin with."""


def to_supervision(found: Segmentation) -> "Detections":
    """As `supervision.Detections`, one for each slot that owns pixels, in the order of slots.

    Raises:
        InputError: if `supervision` is not installed.
    """
    try:
        from supervision import Detections
    except ImportError:
        raise InputError("supervision is not installed; type `pip install supervision`.") from None
    slots = np.flatnonzero(found.area)
    return Detections(
        xyxy=found.xyxy[slots],
        mask=found.labels[None] == slots[:, None, None],
        confidence=found.confidence[slots],
        class_id=slots,
        data={"class_name": np.array([slot_name(int(slot), found.names) for slot in slots])},
    )


def coco_annotations(
    labels: UInt8[np.ndarray, "H W"], masks: Float32[np.ndarray, "K h w"], *, image_id: int, first_id: int
) -> list[dict[str, Any]]:
    """Annotations of COCO instances, one for each slot that owns pixels, in the order of slots.

    `bbox` is x, y, width, height; `score` is the confidence, as result files have it.
    """
    slots = len(masks)
    boxes, areas, scores = boxes_of(labels, slots), area_of(labels, slots), confidence_of(masks)
    return [
        {
            "id": first_id + number,
            "image_id": image_id,
            "category_id": int(slot) + 1,
            "segmentation": {"size": list(labels.shape), "counts": encode_run_lengths(labels == slot)},
            "area": int(areas[slot]),
            "bbox": [float(side) for side in (*boxes[slot, :2], *(boxes[slot, 2:] - boxes[slot, :2]))],
            "iscrowd": 0,
            "score": round(float(scores[slot]), 6),
        }
        for number, slot in enumerate(np.flatnonzero(areas))
    ]


def coco_categories(num_slots: int, names: Mapping[int, str] = UNNAMED) -> list[dict[str, Any]]:
    """A category for each slot, numbered from 1, as 0 is taken for "no object" by some tools."""
    return [{"id": slot + 1, "name": slot_name(slot, names), "supercategory": "slot"} for slot in range(num_slots)]


def label_map_text(num_slots: int, names: Mapping[int, str] = UNNAMED, *, with_outside: bool = False) -> str:
    """The `labelmap.txt` that CVAT wants beside indexed label maps: name and colour of each slot, and, `with_outside`,
    of what lies outside the crop."""
    colours = slot_colours(IGNORE + 1)
    called = {slot_name(slot, names): colours[slot] for slot in range(num_slots)}
    if with_outside:
        called["outside"] = colours[IGNORE]
    lines = ["# label:color_rgb:parts:actions"]
    lines += [f"{name}:{','.join(map(str, colour))}::" for name, colour in called.items()]
    return "\n".join(lines) + "\n"


def write_coco(
    path: str | Path, entries: Sequence[Segmented], folder: Path, num_slots: int, names: Mapping[int, str] = UNNAMED
) -> None:
    """COCO instances of pictures that were segmented, written picture by picture.

    `file_name` is a picture's path below `folder`, the `boqsa.inference.files.common_folder` of what was given.
    """
    require_own(Path(path), COCO_START)
    with atomic_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(f'{COCO_START.decode()}, "images": [')
        for number, entry in enumerate(entries, start=1):
            with Image.open(entry.labels) as picture:
                width, height = picture.size
            name = os.path.relpath(entry.image, folder).replace(os.sep, "/")
            image = {"id": number, "file_name": name, "width": width, "height": height}
            file.write(f"{',' if number > 1 else ''}\n{json.dumps(image)}")
        file.write(f'\n], "categories": {json.dumps(coco_categories(num_slots, names))}, "annotations": [')
        first = 1
        for number, entry in enumerate(entries, start=1):
            with np.load(entry.arrays, allow_pickle=False) as arrays:
                found = coco_annotations(arrays["labels"], arrays["masks"], image_id=number, first_id=first)
            file.writelines(f"{',' if one['id'] > 1 else ''}\n{json.dumps(one)}" for one in found)
            first += len(found)
        file.write("\n]}\n")


def write_cvat(
    path: str | Path,
    entries: Sequence[Segmented],
    folder: Path,
    num_slots: int,
    names: Mapping[int, str] = UNNAMED,
    *,
    with_outside: bool = False,
) -> None:
    """An archive that CVAT imports as "Segmentation mask 1.1": label maps by the colours of `labelmap.txt`.

    Maps lie at their pictures' paths below `folder`, as in `write_coco`.
    """
    require_own(Path(path), CVAT_START)
    places = cvat_places([entry.image for entry in entries], folder)
    with atomic_file(path) as partial, ZipFile(partial, "w") as archive:
        archive.writestr("labelmap.txt", label_map_text(num_slots, names, with_outside=with_outside))
        archive.writestr("ImageSets/Segmentation/default.txt", "".join(f"{place}\n" for place in places))
        for entry, place in zip(entries, places, strict=True):
            archive.write(entry.labels, f"SegmentationClass/{place}.png")


def cvat_places(pictures: Iterable[Path], folder: Path) -> list[str]:
    """What CVAT calls pictures: their paths below `folder` without suffix.

    Raises:
        InputError: if two are called the same, or its list of pictures cannot hold a name.
    """
    places = [os.path.splitext(os.path.relpath(picture, folder))[0].replace(os.sep, "/") for picture in pictures]
    twice = [place for place, times in Counter(places).items() if times > 1]
    if twice:
        raise InputError(
            f"CVAT knows pictures by their names without suffix, and {twice[0]} is there twice; rename one of the two."
        )
    _require_lines(places)
    return places


def write_grey(entries: Sequence[Segmented]) -> None:
    """`a_grey.png` beside each `a_labels.png`: the same map without colours, for tools that would read those, as
    FiftyOne and OpenCV do. 255 is outside the crop."""
    for entry in entries:
        with Image.open(entry.labels) as picture:
            labels = np.asarray(picture)
        save_png(grey_path(entry.labels.with_name(entry.labels.name.removesuffix("_labels.png"))), labels)


def require_own(path: Path, start: bytes) -> None:
    """Go on if there is no such file, or one that begins as ours do.

    Raises:
        InputError: if there is another one.
    """
    if not path.is_file():
        return
    with open(path, "rb") as file:
        if file.read(len(start)) != start:
            raise InputError(f"{path} is there and was not made by boqsa; move it, or choose another --out.")


def _require_lines(names: Sequence[str]) -> None:
    """Go on if each name can be a line of CVAT's list: there, spaces at the ends do not count, # begins a comment, and
    a backslash is a slash. Datumaro, which reads the list, says nothing of a name that it finds no map for."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{name!a} is no UTF-8, which the archive needs; rename that picture.") from None
        if name != name.strip() or name.startswith("#") or re.search(r"[\r\n\\]", name):
            raise InputError(
                f"CVAT would not find {name!r}: it begins with #, has a space at an end, a backslash or a line break; "
                "rename that picture."
            )


def slot_name(slot: int, names: Mapping[int, str] = UNNAMED) -> str:
    """What a slot is called: the name that it was given, or its number."""
    return names.get(slot) or f"slot {slot}"
