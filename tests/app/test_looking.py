"""What the page shows, without the page: the bundled model on held-out scenes."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import boqsa
from boqsa.app.looking import (
    SHOWN_SIDE,
    Choices,
    annotations,
    cut_outs,
    edited,
    look,
    paintings,
    settling,
    table_rows,
    write_downloads,
)
from boqsa.app.serve import bundled_model
from boqsa.data.scenes import SceneSettings, render_scenes
from boqsa.errors import InputError
from boqsa.inference import Segmenter
from boqsa.inference.decode import decode_slots, with_slot_of, without_slots
from boqsa.metrics import adjusted_rand_index
from boqsa.models import TransformerModel

CHOICES = Choices(iterations=5, certainty=0.0, adaptive=False)


@pytest.fixture(scope="module")
def model():
    return boqsa.load(bundled_model())


@pytest.fixture(scope="module")
def scenes():
    return render_scenes(8, seed=0, settings=SceneSettings(image_size=96, min_objects=2, max_objects=4))


@pytest.fixture
def pictures(scenes, tmp_path) -> list[Path]:
    files = [tmp_path / f"{index}.png" for index in range(len(scenes.image))]
    for file, image in zip(files, scenes.image[:, 0], strict=True):
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file)
    return files


def test_bundled_model_finds_the_objects_of_scenes_it_never_saw(model, scenes, pictures):
    found = torch.from_numpy(np.stack([look(model, file, CHOICES).found.labels for file in pictures])).long()
    true = torch.from_numpy(scenes.mask[:, 0]).long()
    scores = adjusted_rand_index(found, true, foreground_only=True)
    assert scores.mean() > 0.7  # one label everywhere gives 0


def test_bundled_model_is_a_few_megabytes_at_most():
    assert sum(file.stat().st_size for file in bundled_model().iterdir()) < 1e6


def test_large_pictures_are_shown_smaller_and_saved_whole(model, tmp_path):
    file = tmp_path / "wide.png"
    Image.effect_noise((3 * SHOWN_SIDE, 200), 90).save(file)
    looked = look(model, file, CHOICES)
    assert looked.found.labels.shape == (67, SHOWN_SIDE)
    labels, overlay, arrays = write_downloads(model, looked, CHOICES, tmp_path)
    assert Image.open(labels).size == Image.open(overlay).size == (3 * SHOWN_SIDE, 200)
    with np.load(arrays, allow_pickle=False) as made:
        assert made["labels"].shape == (200, 3 * SHOWN_SIDE)
        np.testing.assert_array_equal(made["labels"], np.asarray(Image.open(labels)))


def test_boxes_are_in_pixels_of_the_picture_itself(model, pictures, tmp_path):
    file = tmp_path / "large.png"
    with Image.open(pictures[5]) as small:
        small.resize((4 * SHOWN_SIDE, 2 * SHOWN_SIDE), Image.Resampling.BILINEAR).save(file)
    boxes = [row[3] for row in table_rows(look(model, file, CHOICES), {})]
    expected = Segmenter(model, iterations=5).predict(file).xyxy
    assert boxes.count("-") == (expected[:, 2] == 0).sum()
    for box, edges in zip(boxes, expected, strict=True):
        if box != "-":  # a box is as fine as the picture that is shown: 4 pixels here
            np.testing.assert_allclose([int(edge) for edge in box.split()], edges, atol=8)


def test_regions_are_those_of_the_slots_that_are_shown(model, pictures):
    looked = look(model, pictures[5], CHOICES)
    picture, regions = annotations(looked, [0, 3], 0.0, {3: "cube"})
    np.testing.assert_array_equal(picture, looked.found.picture)
    assert set(regions) == {0, 3} & set(np.unique(looked.found.labels).tolist())
    assert [title for _, title in regions.values()] == ["slot 0", "cube"]
    for slot, (region, _) in regions.items():
        np.testing.assert_array_equal(region, looked.found.labels == slot)


def test_certainty_leaves_pixels_bare(model, pictures, tmp_path):
    looked = look(model, pictures[5], CHOICES)
    everything = range(model.num_slots)
    covered = [
        sum(region.sum() for region, _ in annotations(looked, everything, certainty, {})[1].values())
        for certainty in (0.0, 0.6, 0.9, 1.0)
    ]
    assert covered[0] == looked.found.labels.size
    assert covered[0] > covered[1] > covered[2] > covered[3]
    labels, _, arrays = write_downloads(model, looked, CHOICES._replace(certainty=0.9), tmp_path)
    assert (np.asarray(Image.open(labels)) == 255).sum() == covered[0] - covered[2]  # the picture is shown whole
    with np.load(arrays) as made:
        assert (made["labels"] == 255).any()
    with pytest.raises(InputError, match="0 to 1"):
        annotations(looked, everything, 2.0, {})


def test_slots_that_a_transformer_does_not_need_can_be_left_out(pictures):
    torch.manual_seed(0)
    sizes = {"image_size": 16, "num_slots": 3, "slot_size": 8, "mlp_size": 8, "vocab_size": 10, "width": 8}
    transformer = TransformerModel(**sizes, blocks=1, heads=2, encoder_channels=(4,), encoder_strides=(1,))
    choices = CHOICES._replace(adaptive=True)
    found = look(transformer, pictures[5], choices).found
    alone = Segmenter(transformer, iterations=5, adaptive=True).predict(pictures[5])
    np.testing.assert_array_equal(found.labels, alone.labels)
    assert (found.masks.reshape(3, -1).max(axis=1) == 0).any()  # one was left out


def test_table_and_pieces_tell_of_every_slot(model, pictures):
    looked = look(model, pictures[5], CHOICES)
    rows = table_rows(looked, {1: "ball"})
    assert [row[0] for row in rows] == ["slot 0", "ball", "slot 2", "slot 3", "slot 4"]
    assert sum(float(row[1].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.3)
    pieces = cut_outs(looked, {})
    assert len(pieces) == (looked.found.area > 0).sum()
    for picture, title in pieces:
        slot = int(title.split()[1])
        own = looked.found.labels == slot
        np.testing.assert_array_equal(picture[own], looked.found.picture[own])
        assert picture[~own].min() > 230  # pale checks


def test_what_slots_paint_together_is_the_reconstruction(model, pictures):
    looked = look(model, pictures[5], CHOICES)
    together, *alone = paintings(model, looked, {})
    small = together[0][::8, ::8].astype(int)
    expected = (looked.found.reconstruction.clip(0, 1) * 255).round().transpose(1, 2, 0).astype(int)
    assert np.abs(small - expected).max() <= 1
    assert [title for _, title in alone] == [f"slot {slot} alone" for slot in range(5)]


def test_a_slot_that_is_taken_away_takes_its_object_along_and_nothing_else(model, pictures):
    looked = look(model, pictures[5], CHOICES)  # four objects and a room, one slot each
    size = model.image_size
    labels = looked.found.masks.argmax(axis=0)
    away = 1
    (before, _), (after, _) = edited(model, looked, [away], None, None)
    factor = len(before) // size
    change = np.abs(before.astype(int) - after.astype(int))[::factor, ::factor].mean(axis=-1)
    assert change[labels == away].mean() > 30
    far = torch.nn.functional.max_pool2d(torch.from_numpy((labels == away)[None].astype(np.float32)), 5, 1, 2)[0] == 0
    assert change[far.numpy()].mean() < 3


def test_exchanged_slots_change_both_pictures_and_change_back(model, pictures):
    mine, theirs = (look(model, pictures[index], CHOICES) for index in (5, 6))
    four = edited(model, mine, [], theirs, (1, 3))
    back = edited(model, theirs, [], mine, (3, 1))
    assert [title for _, title in four] == ["before", "edited", "the other, before", "the other, edited"]
    np.testing.assert_array_equal(four[1][0], back[3][0])
    np.testing.assert_array_equal(four[3][0], back[1][0])
    assert (four[0][0] != four[1][0]).any()
    assert (four[2][0] != four[3][0]).any()


def test_editing_refuses_slots_that_do_not_exist_and_an_empty_picture():
    slots = torch.zeros(3, 4)
    with pytest.raises(InputError, match="slots are 0 to 2"):
        without_slots(slots, [3])
    with pytest.raises(InputError, match="slots are 0 to 2"):
        with_slot_of(slots, 0, slots, -1)
    model = boqsa.load(bundled_model())
    with pytest.raises(InputError, match="keep at least one"):
        decode_slots(model, torch.zeros(1, 0, model.slot_size))


def test_slots_settle(model, pictures):
    looked = look(model, pictures[5], CHOICES)
    film = settling(model, looked, CHOICES, 10)
    assert film[0][1] == "1 iteration"
    assert len(film) == 10
    moved = [(one[0] != next_[0]).mean() for one, next_ in pairwise(film)]
    assert moved[0] > 10 * moved[-1]
