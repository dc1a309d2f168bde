from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.data.packing import write_packed
from boqsa.data.scenes import SceneSettings, render_scenes
from boqsa.errors import InputError
from boqsa.reproduce.mask_errors import MaskError, builtin_masks, mask_errors, masks_of


def value(rows: list[MaskError], pixels: int | None, metric: str) -> float:
    (found,) = [row.value for row in rows if (row.pixels, row.metric) == (pixels, metric)]
    return found


def square_in_the_middle() -> Tensor:
    """A 3x3 object in 9x9 pixels."""
    mask = torch.zeros(1, 9, 9, dtype=torch.int64)
    mask[:, 3:6, 3:6] = 4
    return mask


def test_a_square_by_hand() -> None:
    rows = mask_errors(square_in_the_middle(), pixels=(0, 1))
    # 1 pixel adds a row of 3 on each side; corners are 1.41 away. 9 of 21 pixels, then 9 of 81.
    assert [value(rows, step, "msc_fg") for step in (0, 1, None)] == pytest.approx([1, 9 / 21, 9 / 81])
    assert [value(rows, step, "background_given") for step in (0, 1, None)] == pytest.approx([0, 12 / 72, 1])
    assert [value(rows, step, "ari_fg") for step in (0, 1, None)] == [1, 1, 1]
    assert value(rows, 0, "ari") == 1
    assert value(rows, None, "ari") == 0
    assert len(rows) == 3 * 4


def test_the_background_between_two_objects_goes_to_the_nearer_one() -> None:
    mask = torch.tensor([[[1, 0, 0, 0, 0, 2]]])
    rows = mask_errors(mask, pixels=(1, 2, 50))
    assert value(rows, 1, "msc_fg") == pytest.approx(1 / 2)
    for step in (2, 50, None):
        assert value(rows, step, "msc_fg") == pytest.approx(1 / 3)
        assert value(rows, step, "ari_fg") == 1


def test_ignored_pixels_are_not_given_to_objects() -> None:
    mask = square_in_the_middle()
    mask[:, :, 6:] = -1
    rows = mask_errors(mask, pixels=(1,))
    assert value(rows, 1, "msc_fg") == pytest.approx(9 / (9 + 9))
    assert value(rows, 1, "background_given") == pytest.approx(9 / (54 - 9))


def test_built_in_scenes_fall_in_msc_fg_alone() -> None:
    rows = mask_errors(builtin_masks(20, image_size=32))
    steps = [0, 1, 2, 3, 4, 6, 8, None]
    covering = [value(rows, step, "msc_fg") for step in steps]
    assert covering == sorted(covering, reverse=True)
    assert covering[0] == 1
    assert covering[-1] < 0.5
    assert {value(rows, step, "ari_fg") for step in steps} == {1.0}


def test_images_without_objects_are_left_out() -> None:
    mask = square_in_the_middle()
    both = torch.cat([mask, torch.zeros_like(mask)])
    assert mask_errors(both, pixels=(1,)) == mask_errors(mask, pixels=(1,))
    with pytest.raises(ValueError, match="no image has an object"):
        mask_errors(torch.zeros_like(mask))


def test_negative_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pixels are \(0, -1\)"):
        mask_errors(square_in_the_middle(), pixels=(0, -1))


def test_masks_come_from_the_renderer_or_from_a_packed_set(tmp_path: Path) -> None:
    scenes = render_scenes(4, seed=3, settings=SceneSettings(image_size=16))
    arrays = {"test": (scenes.image[:, 0], scenes.mask[:, 0]), "bare": (scenes.image[:, 0], None)}
    write_packed(tmp_path / "set", arrays, name="s", source="", licence="", task="multi-object", split_rule="")
    data = PackedDataset(tmp_path / "set", "test")
    assert torch.equal(masks_of(data), builtin_masks(4, image_size=16, seed=3))
    assert len(masks_of(data, 3)) == 3
    np.testing.assert_array_equal(masks_of(data).numpy(), scenes.mask[:, 0])
    with pytest.raises(InputError, match=r"\(bare\) has no masks"):
        masks_of(PackedDataset(tmp_path / "set", "bare"))
