import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.data.attributes import Objects
from boqsa.data.packing import write_packed
from boqsa.data.scenes import SceneSettings, render_scenes, sample_scenes
from boqsa.errors import InputError
from boqsa.models import MixtureModel
from boqsa.reproduce.binding import binding, bindings, covering_slots

SETTINGS = SceneSettings(image_size=16)


def quarters(order: list[list[int]]) -> Tensor:
    """Label maps (N, 8, 8) whose quarters, row by row, have these labels."""
    cells = torch.tensor(order).view(-1, 2, 2)
    return cells.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)


def four_objects(images: int) -> tuple[Tensor, Objects]:
    """An object in each quarter; its attribute is the quarter."""
    mask = quarters([[1, 2, 3, 4]] * images)
    image, label = np.repeat(np.arange(images), 4), np.tile([1, 2, 3, 4], images)
    return mask, Objects(image, label, {"quarter": label - 1})


def test_slots_bound_to_the_attribute_score_1_and_far_above_permuted_ones() -> None:
    mask, objects = four_objects(50)
    (found,) = bindings(quarters([[3, 1, 0, 2]] * 50), mask, objects, num_slots=4)
    assert found.mutual_information == pytest.approx(1)
    assert found.baseline_low <= found.baseline <= found.baseline_high < 0.1
    assert (found.pairs, found.objects, found.classes, found.slots) == (200, 200, 4, 4)


def test_slots_without_an_index_score_as_the_baseline() -> None:
    mask, objects = four_objects(100)
    generator = np.random.default_rng(5)
    segmentation = quarters([generator.permutation(4).tolist() for _ in range(100)])
    (found,) = bindings(segmentation, mask, objects, num_slots=4, permutations=200)
    # It is one more permutation like the others: twice their 97.5th percentile would be another distribution.
    assert 0 < found.mutual_information < 2 * found.baseline_high
    assert found.baseline_high < 0.05


def test_the_value_is_mutual_information_over_the_mean_entropy() -> None:
    """Two slots, two classes, pairs (0,0) three times, (1,1) twice, (1,0) once; by hand, in nats."""
    slot, classes = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    mask = torch.zeros(6, 4, 4, dtype=torch.int64)
    mask[:, :2] = 1
    segmentation = torch.where(mask == 1, torch.from_numpy(slot)[:, None, None], 2)
    objects = Objects(np.arange(6), np.ones(6, dtype=np.int64), {"class": classes})
    (found,) = bindings(segmentation, mask, objects, num_slots=3)
    slot_entropy = math.log(2)
    class_entropy = -(4 / 6 * math.log(4 / 6) + 2 / 6 * math.log(2 / 6))
    joint = -(3 / 6 * math.log(3 / 6) + 2 / 6 * math.log(2 / 6) + 1 / 6 * math.log(1 / 6))
    information = slot_entropy + class_entropy - joint
    assert found.mutual_information == pytest.approx(information / ((slot_entropy + class_entropy) / 2))


def test_permutations_repeat_with_their_seed() -> None:
    mask, objects = four_objects(10)
    segmentation = quarters([[3, 1, 0, 2]] * 10)
    first, again, other = (bindings(segmentation, mask, objects, num_slots=4, seed=seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert first.baseline != other.baseline


def test_one_class_or_no_pair_has_no_value() -> None:
    mask, objects = four_objects(3)
    alike = objects._replace(attributes={"same": np.zeros(12, dtype=np.int64)})
    (found,) = bindings(quarters([[3, 1, 0, 2]] * 3), mask, alike, num_slots=4)
    assert math.isnan(found.mutual_information)
    assert (found.pairs, found.classes) == (12, 1)
    (found,) = bindings(torch.zeros_like(mask), mask, objects, num_slots=4)
    assert math.isnan(found.mutual_information)
    assert math.isnan(found.baseline_high)
    assert (found.pairs, found.objects, found.slots) == (0, 12, 0)


def test_the_slot_of_the_largest_iou_covers_an_object_if_it_is_at_least_half() -> None:
    mask = torch.zeros(1, 2, 8, dtype=torch.int64)
    mask[:, :, :4] = 1  # 8 pixels
    mask[:, 0, 4:] = 5  # 4 pixels
    segmentation = torch.zeros_like(mask)  # slot 0: 4 pixels of object 1 and 8 others
    segmentation[:, :, :2] = 2  # slot 2: half of object 1, nothing else
    segmentation[:, 0, 4:] = 1  # slot 1: object 5 whole
    objects = Objects(np.array([0, 0]), np.array([1, 5]), {})
    assert covering_slots(segmentation, mask, objects).tolist() == [2, 1]
    segmentation[:, 1, 1] = 0  # three eighths are too few
    assert covering_slots(segmentation, mask, objects).tolist() == [-1, 1]


def test_ignored_pixels_do_not_count_in_the_iou() -> None:
    mask = torch.full((1, 2, 8), -1)
    mask[:, :, :2] = 1
    segmentation = torch.ones_like(mask)
    assert covering_slots(segmentation, mask, Objects(np.array([0]), np.array([1]), {})).tolist() == [1]


@pytest.fixture
def data(tmp_path: Path) -> PackedDataset:
    scenes = render_scenes(12, seed=0, settings=SETTINGS)
    arrays = {"test": (scenes.image[:, 0], scenes.mask[:, 0]), "bare": (scenes.image[:, 0], None)}
    write_packed(
        tmp_path / "packed", arrays, name="scenes", source="drawn", licence="none", task="multi-object", split_rule=""
    )
    return PackedDataset(tmp_path / "packed", "test")


def test_a_model_on_a_split(sampled: MixtureModel, data: PackedDataset) -> None:
    scenes = sample_scenes(10, seed=0, settings=SETTINGS)
    found = binding(sampled, data, count=10, scenes=scenes, permutations=3, batch_size=4)
    names = ["position", "size", "colour", "kind", "true_colour", "true_position"]
    assert [entry.attribute for entry in found] == names
    assert found[0].objects == (scenes.kind >= 0).sum()
    again = binding(sampled, data, count=10, scenes=scenes, permutations=3, batch_size=10)
    np.testing.assert_equal([entry[1:] for entry in found], [entry[1:] for entry in again])
    with pytest.raises(InputError, match=r"\(bare\) has no masks"):
        binding(sampled, PackedDataset(data.path, "bare"))


def test_bad_numbers_and_a_missing_package_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, objects = four_objects(2)
    with pytest.raises(ValueError, match="permutations is 0"):
        bindings(mask - 1, mask, objects, num_slots=4, permutations=0)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(InputError, match=r"pip install 'boqsa\[reproduce\]'"):
        bindings(mask - 1, mask, objects, num_slots=4)
