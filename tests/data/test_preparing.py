"""Preparing: the whole way for arrays, and refusals that leave nothing behind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boqsa.data import PackedDataset, prepare
from boqsa.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
MASKS = np.random.default_rng(1).integers(0, 4, (20, 8, 8))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.savez(tmp_path / "source.npz", image=IMAGES, mask=MASKS)
    return tmp_path / "source.npz"


def test_the_whole_way(source: Path, tmp_path: Path) -> None:
    seen = []
    target = tmp_path / "new" / "packed"
    manifest = prepare("arrays", source, target, progress=lambda done, total: seen.append((done, total)))
    assert manifest.counts == {"train": 16, "val": 2, "test": 2}
    assert seen == [(index, 20) for index in range(1, 21)]
    val = PackedDataset(target, "val")
    np.testing.assert_array_equal(val.batch([0, 1])["image"].permute(0, 2, 3, 1), IMAGES[16:18])
    np.testing.assert_array_equal(val.batch([0, 1])["mask"], MASKS[16:18])
    assert manifest.source == str(source)
    assert manifest.options == {"limit": None}


def test_twice_the_same(source: Path, tmp_path: Path) -> None:
    first = prepare("arrays", source, tmp_path / "a", image_size=4)
    second = prepare("arrays", source, tmp_path / "b", image_size=4)
    assert first == second
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_an_empty_target_is_taken(source: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    prepare("arrays", source, tmp_path / "packed")
    with pytest.raises(InputError, match="not empty"):
        prepare("arrays", source, tmp_path / "packed")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("array", {}, "did you mean arrays"),
        ("clevrtex", {}, "no reader yet; it arrives later"),
        ("scenes", {}, "built in"),
        ("arrays", {"masks": "m"}, "'arrays' has no option 'masks'; it has image_size, limit"),
        ("arrays", {"skip_broken": True}, "no option 'skip_broken'"),
        ("arrays", {"image_size": 0}, "image_size is 0; a whole number from 1 to 4096"),
        ("arrays", {"image_size": 5000}, "image_size is 5000"),
        ("arrays", {"limit": -1}, "limit is -1; a whole number from 1 expected"),
        ("folder", {}, "not a folder"),
        ("objectsroom", {}, "not a TFRecord file"),
        ("shapestacks", {}, "not a folder"),
    ],
)
def test_refusals_leave_nothing(name: str, options: dict[str, Any], message: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        prepare(name, source, tmp_path / "new" / "packed", **options)
    assert list(tmp_path.iterdir()) == [source]


def test_targets_that_cannot_be(source: Path) -> None:
    for target, message in (("", "no name of its own"), ("..", "no name"), (source, "is a file")):
        with pytest.raises(InputError, match=message):
            prepare("arrays", source, target)
    for target in (source / "inside", source.parent / ("x" * 300)):
        with pytest.raises(InputError, match="cannot write"):
            prepare("arrays", source, target)
    assert list(source.parent.iterdir()) == [source]


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(IMAGES[0].repeat(20, axis=0).repeat(20, axis=1)).save(tmp_path / "images" / name)
    content = (tmp_path / "images/b.png").read_bytes()
    (tmp_path / "images/b.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="--skip-broken"):
        prepare("folder", tmp_path / "images", tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    manifest = prepare("folder", tmp_path / "images", tmp_path / "packed", skip_broken=True)
    assert sum(manifest.counts.values()) == 1
    assert "b.png" in manifest.skipped[0]
    (tmp_path / "images/a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"no image of .* can be used"):
        prepare("folder", tmp_path / "images", tmp_path / "none", skip_broken=True)
    assert not (tmp_path / "none").exists()


def test_leaks_between_splits_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.concatenate([IMAGES[:10], IMAGES[:10]]))
    manifest = prepare("arrays", tmp_path / "a.npz", tmp_path / "packed")
    assert set(manifest.notices) == {
        "2 images occur both in train and in val",
        "2 images occur both in train and in test",
    }
