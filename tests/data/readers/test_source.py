"""The 80/10/10 split in file order."""

import pytest

from boqsa.data.readers.source import some_of, split_by_order


@pytest.mark.parametrize(
    ("total", "counts"),
    [
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (1, 1, 1)),
        (10, (8, 1, 1)),
        (25, (21, 2, 2)),
        (5000, (4000, 500, 500)),
    ],
)
def test_counts_and_order(total: int, counts: tuple[int, int, int]) -> None:
    splits = [split_by_order(index, total) for index in range(total)]
    assert splits == ["train"] * counts[0] + ["val"] * counts[1] + ["test"] * counts[2]


def test_some_of() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(list("abcdefg")) == "a, b, c, d, e and 2 more"
