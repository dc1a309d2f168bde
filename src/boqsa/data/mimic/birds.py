"""CUB-200-2011, its segmentations and ReDO's split file, as they lie when both archives are unpacked in one folder."""

from pathlib import Path

import numpy as np
from PIL import Image

from boqsa.data.mimic.content import Content

_SIZES = ((120, 160), (160, 120))


def write_birds(target: Path, content: Content) -> Path:
    """Write photographs of all objects of a scene as if they were one bird; every sixth is val, every sixth test."""
    lines: dict[str, list[str]] = {
        "images": [],
        "bounding_boxes": [],
        "train_test_split": [],
        "train_val_test_split": [],
    }
    for index in range(content.count):
        image, mask = content.scene(index, _SIZES[index % 2])
        kind = f"{index % 3 + 1:03d}.Scene"
        stem = f"{kind}/Scene_{index:04d}_{1000 + index}"
        code = {4: 1, 5: 2}.get(index % 6, 0)
        _save(target / "CUB_200_2011" / "images" / f"{stem}.jpg", image)
        _save(target / "segmentations" / f"{stem}.png", (mask > 0).astype(np.uint8) * 255)
        rows, columns = np.nonzero(mask) if mask.any() else np.indices(mask.shape).reshape(2, -1)
        left, top = int(columns.min()), int(rows.min())
        box = (left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top)
        lines["images"].append(f"{index + 1} {stem}.jpg")
        lines["bounding_boxes"].append(f"{index + 1} " + " ".join(f"{value}.0" for value in box))
        lines["train_test_split"].append(f"{index + 1} {int(code < 2)}")
        lines["train_val_test_split"].append(f"{index + 1} {code}")
    for name, content_lines in lines.items():
        folder = target if name == "train_val_test_split" else target / "CUB_200_2011"
        (folder / f"{name}.txt").write_text("\n".join(content_lines) + "\n", encoding="utf-8")
    return target


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)  # which a PNG does not heed
