"""What readers share: splits, limits, finding folders, and lists in messages."""

import pickle
from collections import Counter
from pathlib import Path

import pytest

from boqsa.data.readers.source import (
    Item,
    choose,
    find_root,
    held_out_by_hash,
    listed,
    some_of,
    split_by_hash,
    split_by_order,
    take,
)
from boqsa.errors import InputError


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


def test_hashes_split_as_they_always_did() -> None:
    # Fixed here: another rule would move images of everyone's folders between splits.
    splits = {"a": "train", "d": "test", "é/x": "train", "image_0007": "val", "image_0012": "val", "image_0016": "test"}
    assert {name: split_by_hash(name) for name in splits} == splits
    counts = Counter(split_by_hash(f"image_{index:04d}") for index in range(2000))
    assert 1540 < counts["train"] < 1660
    assert min(counts["val"], counts["test"]) > 150
    assert 60 < sum(held_out_by_hash(f"image_{index:04d}") for index in range(2000)) < 140
    assert held_out_by_hash("image_0001") == held_out_by_hash("image_0001")
    assert split_by_hash("\udcff") in ("train", "val", "test")  # a name that is no UTF-8


def test_take_is_of_each_split_in_order() -> None:
    items = [Item(str(index), "ab"[index % 2], ()) for index in range(6)]
    assert [item.name for item in take(items, 2)] == ["0", "1", "2", "3"]
    assert take(iter(items), None) == items
    source_items = listed(items)
    assert list(source_items()) == list(source_items()) == items
    assert pickle.loads(pickle.dumps(items)) == items


def test_roots_are_found_two_levels_down(tmp_path: Path) -> None:
    (tmp_path / "a/b/images").mkdir(parents=True)
    (tmp_path / "a/b/list.txt").touch()
    assert find_root(tmp_path, "images", "list.txt") == tmp_path / "a/b"
    assert find_root(tmp_path / "a/b", "images") == tmp_path / "a/b"
    (tmp_path / "a/c/images").mkdir(parents=True)
    assert find_root(tmp_path, "images", "list.txt") == tmp_path / "a/b"
    with pytest.raises(InputError, match=r"a/b.*a/c all hold images; name one"):
        find_root(tmp_path, "images")
    with pytest.raises(InputError, match="does not hold masks, nor do the folders in it"):
        find_root(tmp_path, "masks")
    with pytest.raises(InputError, match="is not a folder; give the folder that holds images and x"):
        find_root(tmp_path / "a/b/list.txt", "images", "x")
    with pytest.raises(InputError, match="does not exist"):
        find_root(tmp_path / "none", "images")


def test_choose() -> None:
    assert choose("crop", "none", ("none", "centre")) == "none"
    with pytest.raises(InputError, match="crop 'box' is unknown; choose one of none, centre"):
        choose("crop", "box", ("none", "centre"))
