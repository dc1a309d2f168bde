"""Run lengths and polygons: vectors of spec/datasets.md 19.2, random masks, the reference tool, hostile input."""

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from boqsa.data.run_lengths import decode_run_lengths, encode_run_lengths, rasterise_polygons

VECTORS = [
    ([6, 1, 40, 4, 5, 4, 5, 4, 21], "61X13mN000`0", (9, 10)),
    ([0, 3, 1000, 17, 983, 17, 980], "03Xo0>_O0M", (1000, 3)),
    ([92593, 3, 597, 15, 585], "a]j23eb0<D", (93793, 1)),
]


@pytest.mark.parametrize(("counts", "text", "size"), VECTORS)
def test_vectors_of_the_reference_tool(counts: list[int], text: str, size: tuple[int, int]) -> None:
    expected = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[1], size[0]).T
    for given in (counts, text, text.encode()):
        mask = decode_run_lengths(given, size)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected)
    assert encode_run_lengths(expected) == text
    assert encode_run_lengths(expected, compressed=False) == counts


def test_runs_go_down_the_columns() -> None:
    mask = decode_run_lengths([1, 1, 4], (2, 3))
    np.testing.assert_array_equal(mask, [[False, False, False], [True, False, False]])


def test_a_first_run_of_zero_and_empty_runs_are_legal() -> None:
    np.testing.assert_array_equal(decode_run_lengths([0, 2, 0, 1, 3], (3, 2)), [[True, False]] * 3)


def _random_masks() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    masks = [draw.random(tuple(draw.integers(1, 40, 2))) < draw.random() for _ in range(200)]
    masks += [np.full((5, 7), value) for value in (False, True)]
    masks += [draw.random((1, 300)) < 0.5, draw.random((300, 1)) < 0.5, np.ones((1, 1), bool)]
    big = np.zeros((400, 700), bool)
    big[3:390, 200:650] = True
    return [*masks, big]


def test_decoding_undoes_encoding() -> None:
    for mask in _random_masks():
        for compressed in (True, False):
            np.testing.assert_array_equal(decode_run_lengths(encode_run_lengths(mask, compressed), mask.shape), mask)


def test_equal_to_the_reference_tool() -> None:
    reference = pytest.importorskip("pycocotools.mask")
    for mask in _random_masks():
        expected = reference.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
        assert encode_run_lengths(mask) == expected


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 3, 5], "sum to 11, 3 x 4 = 12 expected"),
        ([], "sum to 0"),
        ("", "sum to 0"),
        ([13, -1], "whole numbers"),
        ([6.0, 6], "whole numbers"),
        ([True, 11], "whole numbers"),
        ([[12]], "whole numbers"),
        ([10**30, 1], "whole numbers"),
        ({"a": 1}, "whole numbers"),
        (None, "whole numbers"),
        (12, "whole numbers"),
        ("61X", "middle of a number"),
        ("6 6", "characters"),
        ("6\x00", "characters"),
        ("6p", "characters"),
        ("6é", "ASCII"),
        ("o" * 40 + "0", "too long"),
        ("ooooooooo0", "too large"),
        ("O=", "from 0 to"),
    ],
)
def test_malformed_run_lengths(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_run_lengths(counts, (3, 4))


@pytest.mark.parametrize("size", [(0, 4), (-1, 4), (10**6, 10**6), (10**30, 1), (3,), (3.0, 4), ("3", 4), (3, 4, 1)])
def test_a_size_that_is_none(size: Any) -> None:
    with pytest.raises(ValueError, match=r"size|too large"):
        decode_run_lengths([12], size)
    with pytest.raises(ValueError, match=r"size|too large"):
        rasterise_polygons([[0.0, 0, 1, 0, 1, 1]], size)


def test_hostile_run_lengths_cost_neither_memory_nor_time() -> None:
    """A few bytes that promise a picture of 10 GB; sums that would overflow; and any string of legal characters."""
    draw = np.random.default_rng(1)
    tracemalloc.start()
    began = time.perf_counter()
    for given in ([2**26, 2**26 - 12], encode_run_lengths(np.ones((2000, 2000), bool)), "_oooo0" * 2000):
        with pytest.raises(ValueError, match="run lengths"):
            decode_run_lengths(given, (3, 4))
    good = 0
    for _ in range(2000):
        text = bytes(draw.integers(48, 112, draw.integers(1, 12)).astype(np.uint8))
        try:
            good += decode_run_lengths(text, (3, 4)).shape == (3, 4)
        except ValueError:
            continue
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert time.perf_counter() - began < 5


def test_an_encoded_mask_has_two_sides() -> None:
    for shape in ((3,), (0, 3), (1, 2, 3)):
        with pytest.raises(ValueError, match="shape"):
            encode_run_lengths(np.zeros(shape, bool))


def test_a_rectangle_by_hand() -> None:
    mask = rasterise_polygons([[1, 2, 4, 2, 4, 7, 1, 7]], (10, 6))  # x from 1 to 4, y from 2 to 7
    expected = np.zeros((10, 6), bool)
    expected[2:7, 1:4] = True
    np.testing.assert_array_equal(mask, expected)


def test_polygons_are_united_and_a_polygon_toggles() -> None:
    square = [1.0, 1, 5, 1, 5, 5, 1, 5]
    shifted = [3.0, 3, 7, 3, 7, 7, 3, 7]
    both = rasterise_polygons([square, shifted], (9, 9))
    np.testing.assert_array_equal(both, rasterise_polygons([square], (9, 9)) | rasterise_polygons([shifted], (9, 9)))
    assert both.sum() == 16 + 16 - 4
    assert not rasterise_polygons([], (9, 9)).any()
    assert not rasterise_polygons([[0, 0, 9, 0, 9, 9, 0, 9, 0, 0, 9, 0, 9, 9, 0, 9]], (9, 9)).any()  # round twice


@pytest.mark.parametrize("grid", ["any", "half", "whole with repeated points"])
def test_polygons_equal_to_the_reference_tool(grid: str) -> None:
    reference = pytest.importorskip("pycocotools.mask")
    draw = np.random.default_rng(2)
    filled = 0
    for _ in range(300):
        height, width = (int(side) for side in draw.integers(1, 60, 2))
        values = (draw.random(2 * int(draw.integers(3, 9))) * 1.6 - 0.3) * max(height, width)  # beyond all borders
        if grid == "half":
            values = np.round(2 * values) / 2
        elif grid == "whole with repeated points":
            values = np.round(values)
            values[2:4] = values[:2]
        polygon = values.tolist()
        expected = reference.decode(reference.frPyObjects([polygon], height, width))[..., 0]
        mask = rasterise_polygons([polygon], (height, width))
        np.testing.assert_array_equal(mask, expected != 0)
        filled += int(mask.sum())
    assert filled > 10_000


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([0.0, 0, 5, 5], "at least three points"),
        ([], "at least three points"),
        ([0.0, 0, 5, 5, 1, 2, 3], "at least three points"),
        ([0.0, 0, 5, 5, 1, float("nan")], "flat list"),
        ([0.0, 0, 5, 5, 1, float("inf")], "flat list"),
        ([0.0, 0, 5, 5, 1, 1e12], "flat list"),
        ([0.0, 0, 5, 5, 1, 10**400], "flat list"),
        ([0.0, 0, 5, 5, 1, "2"], "flat list"),
        ([0.0, 0, 5, 5, 1, True], "flat list"),
        ([[0.0, 0], [5, 5], [1, 2]], "flat list"),
        ({"x": 1}, "flat list"),
        ([0.0, 0, 4e6, 0, 0, 4e6], "outline is longer"),
        ([0.0, 0, 1e5, 0] * 50, "outline is longer"),
    ],
)
def test_malformed_polygons(polygon: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rasterise_polygons([polygon], (10, 10))
