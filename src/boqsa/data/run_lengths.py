"""Masks as COCO writes them: run lengths, plain and compressed, and polygons (spec/datasets.md 1.5 and 1.6).

Run lengths alternate between pixels outside and inside, starting outside, and go down the columns: pixel (row, column)
comes at column * height + row.

Notable choices:
 - Malformed input is refused before anything of the picture's size is allocated. The errors are `ValueError`: the
   reader that catches them knows the file and the annotation.
 - Runs of length zero are legal anywhere, as in the reference tool.
 - A polygon is rasterised pixel for pixel as by the reference tool, which works on a grid five times as fine. Its
   numbers are cut off towards zero, so left of and above the picture "round half up" is not the floor.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike, NDArray

LARGEST_AREA = 2**27
"""Most pixels of a mask."""
_FINER = 5
_MOST_STEPS = 2**22
"""Longest outline of a polygon, in steps of the finer grid: 800,000 pixels and more."""
_MOST_GROUPS = 12
"""Groups of five bits that fit into 64 bits; no count of a legal mask needs more than six."""


def decode_run_lengths(counts: list[int] | str | bytes, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask that run lengths describe.

    Args:
        counts: The run lengths as a list, or compressed as a string.
        size: Height and width.

    Raises:
        ValueError: if `counts` is malformed, or does not sum to height * width.
    """
    area = _area(size)
    runs = _expand(counts) if isinstance(counts, str | bytes) else _checked(counts)
    if runs.size and (runs.min() < 0 or runs.max() > area):
        raise ValueError(f"run lengths from 0 to {area} expected, {runs.min()} to {runs.max()} found")
    if (total := int(runs.sum())) != area:
        raise ValueError(f"run lengths sum to {total}, {size[0]} x {size[1]} = {area} expected")
    return _fill(runs, size)


def encode_run_lengths(mask: Bool[np.ndarray, "h w"], compressed: bool = True) -> str | list[int]:
    """The run lengths of a mask: as a string, or as a list if not `compressed`.

    Raises:
        ValueError: if the mask is not a picture with at least one pixel.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"a mask of shape (height, width) expected, {mask.shape} found")
    pixels = np.concatenate([[False], mask.T.ravel() != 0])  # runs start outside
    borders = np.flatnonzero(pixels[1:] != pixels[:-1])
    runs: list[int] = np.diff(borders, prepend=0, append=mask.size).tolist()
    return _compress(runs) if compressed else runs


def rasterise_polygons(polygons: list[list[float]], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The union of polygons, each a flat list x0, y0, x1, y1, ... in pixels, as a mask.

    Args:
        polygons: At least three points each; they may reach out of the picture.
        size: Height and width.

    Raises:
        ValueError: if a polygon has fewer than three points, or a coordinate that is not a finite number, or if
            its outline is absurdly long.
    """
    _area(size)
    mask = np.zeros(size, bool)
    for polygon in polygons:
        mask |= _rasterise(_points(polygon), size)
    return mask


def _area(size: tuple[int, int]) -> int:
    if len(size) != 2 or not all(isinstance(side, int | np.integer) and 0 < side <= LARGEST_AREA for side in size):
        raise ValueError(f"size {str(size)[:50]}: height and width expected")
    area = int(size[0]) * int(size[1])
    if area > LARGEST_AREA:
        raise ValueError(f"a mask of {size[0]} x {size[1]} pixels is too large")
    return area


def _fill(runs: Int64[np.ndarray, " n"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(pixels.reshape(size[1], size[0]).T)  # column-major


def _checked(counts: list[int]) -> Int64[np.ndarray, " n"]:
    if not isinstance(counts, list | tuple) or not all(
        type(count) is int and 0 <= count <= LARGEST_AREA for count in counts
    ):
        raise ValueError("run lengths: a list of whole numbers from 0, or a compressed string expected")
    return np.array(counts, np.int64)


def _expand(counts: str | bytes) -> Int64[np.ndarray, " n"]:
    """The run lengths of a compressed string; they may be negative still."""
    try:
        text = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    except UnicodeEncodeError:
        raise ValueError("compressed run lengths: ASCII characters expected") from None
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return codes
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("compressed run lengths: characters from '0' to 'o' expected")
    last = codes < 32  # of a number's groups; bit 5 says that more follow
    if not last[-1]:
        raise ValueError("compressed run lengths end in the middle of a number")
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    lengths = np.diff(starts, append=codes.size)
    if lengths.max() > _MOST_GROUPS:
        raise ValueError("compressed run lengths have a number that is too long")
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    numbers: Int64[np.ndarray, " n"] = np.add.reduceat((codes & 31) << shifts, starts)
    negative = codes[last] & 16 != 0
    numbers = numbers - np.where(negative, np.int64(1) << 5 * lengths, 0)
    if np.abs(numbers).max() > LARGEST_AREA:  # so that the sums below stay within 64 bits
        raise ValueError("compressed run lengths have a number that is too large")
    # From the fourth on, a number is the difference to the one two places earlier.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _compress(runs: list[int]) -> str:
    text = []
    for index, run in enumerate(runs):
        rest = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            group, rest = rest & 31, rest >> 5
            more = rest != (-1 if group & 16 else 0)
            text.append(chr(48 + group + 32 * more))
    return "".join(text)


def _points(polygon: list[float]) -> Float64[np.ndarray, "points 2"]:
    numbers = isinstance(polygon, list | tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_STEPS for value in polygon
    )  # NaN is not below anything
    if not numbers:
        raise ValueError("polygon: a flat list of coordinates x0, y0, x1, y1, ... in pixels expected")
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"polygon: at least three points x, y expected, {len(polygon)} numbers found")
    return np.array(polygon, np.float64).reshape(-1, 2)


def _rasterise(points: Float64[np.ndarray, "points 2"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    height, width = size
    corners = _rounded(_FINER * points)
    x, y = _walk(corners)
    crossed = np.flatnonzero(x[1:] != x[:-1])
    column, rest = np.divmod(np.minimum(x[crossed], x[crossed + 1]) - _FINER // 2, _FINER)
    row = np.ceil((np.minimum(y[crossed], y[crossed + 1]) + 0.5) / _FINER - 0.5).clip(0, height).astype(np.int64)
    kept = (rest == 0) & (column >= 0) & (column < width)
    borders = np.sort(column[kept] * height + row[kept])
    return _fill(np.diff(borders, prepend=0, append=height * width), size)


def _walk(corners: Int64[np.ndarray, "points 2"]) -> tuple[Int64[np.ndarray, " steps"], Int64[np.ndarray, " steps"]]:
    """The points of the closed outline, one step along the longer axis of an edge at a time."""
    start, end = corners, np.roll(corners, -1, axis=0)
    span = np.abs(end - start)
    length = span.max(axis=1)
    if length.sum() > _MOST_STEPS:
        raise ValueError(f"polygon: its outline is longer than {_MOST_STEPS // _FINER} pixels")
    wide = span[:, 0] >= span[:, 1]
    edge = np.repeat(np.arange(len(corners)), length + 1)
    step = np.arange(edge.size) - np.repeat(np.cumsum(length + 1) - (length + 1), length + 1)

    # An edge is walked from its lower end along the longer axis, whichever way the outline runs, so that an edge that
    # two polygons share rounds to the same pixels in both.
    longer = np.where(wide, 0, 1)
    each = np.arange(len(corners))
    turned = start[each, longer] > end[each, longer]
    low = np.where(turned[:, None], end, start)
    high = np.where(turned[:, None], start, end)
    slope = (high - low)[each, 1 - longer] / np.maximum(length, 1)
    step = np.where(turned[edge], length[edge] - step, step)

    along = low[each, longer][edge] + step
    across = _rounded(low[each, 1 - longer][edge] + slope[edge] * step)
    wide_edge = wide[edge]
    return np.where(wide_edge, along, across), np.where(wide_edge, across, along)


def _rounded(values: ArrayLike) -> NDArray[np.int64]:
    """Half up, cut off towards zero."""
    return (np.asarray(values, np.float64) + 0.5).astype(np.int64)
