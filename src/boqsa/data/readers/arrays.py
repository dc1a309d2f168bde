"""Images that are arrays already: an `.npz` with `image` and perhaps `mask` and `split`, or `.npy` images.

    image (or images)   uint8 (N, H, W, 3) or (N, 3, H, W)
    mask (or masks)     integers or booleans (N, H, W): 0 background, 1..254 objects, -1 or 255 ignore
    split               N strings, for example train, val, test; without it 80/10/10 in file order

Such a source has no published size, so it is never called partial.
"""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from boqsa.data.manifest import valid_split_name
from boqsa.data.packed import IGNORE
from boqsa.data.readers.source import ORDER_RULE, Sample, Source, split_by_order
from boqsa.data.resample import centre_square, resize_image, resize_mask
from boqsa.errors import InputError


def read(source: str | Path, *, image_size: int | None = None, limit: int | None = None) -> Source:
    """Open an `.npz` or `.npy` file.

    Args:
        source: the file; an `.npy` holds images alone.
        image_size: side in pixels; the stored size if not given. Images that are not square are cropped to
            their central square first.
        limit: at most this many images, the first ones.

    Raises:
        InputError: if the file cannot be read, holds pickled objects, or arrays of wrong names or types.
    """
    path = Path(source)
    arrays = _load(path)
    image_key, images = _pick(arrays, ("image", "images"))
    if images is None:
        raise InputError(f"{path} has no array 'image'; it has {', '.join(sorted(arrays)) or 'none'}.")
    images = _channels_last(images, f"{path}: '{image_key}'")
    mask_key, masks = _pick(arrays, ("mask", "masks"))
    notices: list[str] = []
    if masks is not None:
        masks = _labels(masks, images.shape[:3], f"{path}: '{mask_key}'", notices)[:limit]
    images = images[:limit]
    splits = _splits(arrays.get("split"), len(images), limit, path)
    height, width = images.shape[1:3]
    side = image_size or min(height, width)
    if height != width:
        notices.append(f"images of {height}x{width} were cropped to their central square")
    objects = 0 if masks is None else int(masks[masks != IGNORE].max(initial=0))
    return Source(
        samples=_samples(images, masks, splits, side),
        total=len(images),
        image_size=(side, side),
        split_rule="as the array 'split' says" if "split" in arrays else ORDER_RULE,
        task="foreground" if objects == 1 else "multi-object",
        notices=notices,
    )


def _samples(
    images: UInt8[np.ndarray, "n h w 3"],
    masks: UInt8[np.ndarray, "n h w"] | None,
    splits: list[str],
    side: int,
) -> Iterator[Sample]:
    for index, (image, split) in enumerate(zip(images, splits, strict=True)):
        mask = None if masks is None else resize_mask(centre_square(masks[index]), (side, side))
        yield Sample(resize_image(centre_square(image), (side, side)), mask, split, f"image {index}")


def _load(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {state}; give an .npz or .npy file.")
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if isinstance(loaded, np.ndarray):
            return {"image": loaded}
        with loaded:
            return {key: loaded[key] for key in loaded.files}
    except ValueError as error:
        if "pickle" in str(error):
            raise InputError(
                f"{path} holds pickled Python objects, which are not read; save plain numeric arrays."
            ) from None
        raise InputError(f"cannot read {path}: {error}.") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}; an .npz or .npy file was expected.") from None


def _pick(arrays: dict[str, NDArray[Any]], names: tuple[str, ...]) -> tuple[str, NDArray[Any] | None]:
    for name in names:
        if name in arrays:
            return name, arrays[name]
    return names[0], None


def _channels_last(images: NDArray[Any], where: str) -> UInt8[np.ndarray, "n h w 3"]:
    found = f"{where} is {images.dtype} {images.shape}"
    expected = "uint8 (N, H, W, 3) or (N, 3, H, W) expected"
    if images.dtype != np.uint8:
        hint = "; multiply [0, 1] images by 255 and round" if images.dtype.kind == "f" else ""
        raise InputError(f"{found}; {expected}{hint}.")
    if images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]) or 0 in images.shape:
        raise InputError(f"{found}; {expected}.")
    return images if images.shape[3] == 3 else images.transpose(0, 2, 3, 1)


def _labels(masks: NDArray[Any], shape: tuple[int, ...], where: str, notices: list[str]) -> UInt8[np.ndarray, "n h w"]:
    if masks.dtype.kind not in "iub":
        raise InputError(f"{where} is {masks.dtype}; integer labels expected.")
    if masks.shape != shape:
        raise InputError(f"{where} has shape {masks.shape}; {shape} expected, one label for each pixel of 'image'.")
    if masks.dtype == np.bool_:
        return masks.astype(np.uint8)
    lowest, highest = int(masks.min()), int(masks.max())
    if lowest < -1 or highest > IGNORE:
        raise InputError(f"{where} has labels from {lowest} to {highest}; -1 (ignore) to 254 expected.")
    labels = masks.astype(np.uint8)  # -1 becomes 255
    if lowest >= 0 and highest == IGNORE and np.isin(labels, (0, IGNORE)).all():
        notices.append("mask values 0 and 255 alone: 255 was read as foreground, not as ignore")
        labels[labels == IGNORE] = 1
    return labels


def _splits(names: NDArray[Any] | None, total: int, limit: int | None, path: Path) -> list[str]:
    if names is None:
        return [split_by_order(index, total) for index in range(total)]
    splits = [str(name) for name in names[:limit]] if names.ndim == 1 and names.dtype.kind == "U" else []
    if len(splits) != total or (limit is None and len(names) != total):
        raise InputError(f"{path}: 'split' is {names.dtype} {names.shape}; one string for each image expected.")
    if wrong := sorted({name for name in splits if not valid_split_name(name)}):
        raise InputError(f"{path}: 'split' has {wrong[0]!r}; letters, digits and underscores expected.")
    return splits
