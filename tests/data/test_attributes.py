"""Attributes of true objects: by hand, against the standard library, and against the renderer."""

import colorsys

import numpy as np
import pytest
import torch

from boqsa.data.attributes import (
    CLASSES,
    classified_objects,
    hue_class,
    measured_objects,
    seen_objects,
    with_true_attributes,
)
from boqsa.data.scenes import SceneSettings, render_scenes, sample_scenes

SETTINGS = SceneSettings(image_size=16)


def test_seen_attributes_of_an_object_by_hand() -> None:
    mask = torch.zeros(3, 9, 9, dtype=torch.int64)
    mask[0, :3, :3] = 7  # top left, 9 pixels
    mask[0, 7:, 7:] = 3  # bottom right, 4 pixels
    mask[2, 3:6, 0:9] = 1  # centre, 27 pixels
    mask[1] = -1
    image = torch.zeros(3, 3, 9, 9, dtype=torch.uint8)
    image[0, 2, :3, :3] = 200  # blue
    image[0, :, 7:, 7:] = 90  # grey
    image[2, :2] = 150  # yellow
    found = seen_objects(image, mask)
    assert found.image.tolist() == [0, 0, 2]
    assert found.label.tolist() == [3, 7, 1]
    assert found.attributes["position"].tolist() == [8, 0, 4]
    assert found.attributes["size"].tolist() == [0, 1, 2]
    assert found.attributes["colour"].tolist() == [6, 4, 1]


def test_hues_are_those_of_the_standard_library() -> None:
    colours = np.random.default_rng(0).random((500, 3))
    colours[:3] = [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.45]]
    for colour, found in zip(colours, hue_class(colours), strict=True):
        hue, saturation, _ = colorsys.rgb_to_hsv(*colour)
        assert found == (6 if saturation < 0.15 else round(hue * 6) % 6)


def test_true_attributes_are_those_of_the_same_object() -> None:
    rendered, scenes = (draw(40, seed=2, settings=SETTINGS) for draw in (render_scenes, sample_scenes))
    mask = torch.from_numpy(rendered.mask[:, 0].astype(np.int64))
    objects = with_true_attributes(seen_objects(torch.from_numpy(rendered.image[:, 0]), mask), scenes)
    assert len(objects.image) == (scenes.kind >= 0).sum()
    assert (objects.attributes["kind"] == scenes.kind[scenes.kind >= 0]).all()
    # Light and neighbours change colours and hide parts, but rarely as far as another class, or beyond the next one.
    assert (objects.attributes["true_colour"] == objects.attributes["colour"]).mean() > 0.8
    seen, true = objects.attributes["position"], objects.attributes["true_position"]
    assert np.corrcoef(seen % 3, true % 3)[0, 1] > 0.7
    assert np.corrcoef(seen // 3, true // 3)[0, 1] > 0.5


def test_scenes_of_other_images_are_refused() -> None:
    mask = torch.ones(1, 8, 8, dtype=torch.int64)
    mask[0, :4] = 4
    objects = seen_objects(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), mask)
    two_objects = SceneSettings(image_size=16, max_objects=2)
    with pytest.raises(ValueError, match="objects that the scenes do not have"):
        with_true_attributes(objects, sample_scenes(1, seed=0, settings=two_objects))


def test_batches_give_what_the_whole_set_gives() -> None:
    """Thirds of the size are those of all objects, not of a batch."""
    rendered = render_scenes(10, seed=3, settings=SETTINGS)
    image, mask = torch.from_numpy(rendered.image[:, 0]), torch.from_numpy(rendered.mask[:, 0].astype(np.int64))
    whole = seen_objects(image, mask)
    parts = [measured_objects(image[i : i + 4], mask[i : i + 4], first=i) for i in (0, 4, 8)]
    np.testing.assert_equal(classified_objects(np.concatenate(parts), (16, 16)), whole)


def test_every_class_has_a_name() -> None:
    rendered, scenes = (draw(60, seed=1, settings=SETTINGS) for draw in (render_scenes, sample_scenes))
    mask = torch.from_numpy(rendered.mask[:, 0].astype(np.int64))
    objects = with_true_attributes(seen_objects(torch.from_numpy(rendered.image[:, 0]), mask), scenes)
    assert set(objects.attributes) == set(CLASSES)
    for name, classes in objects.attributes.items():
        assert classes.max() < len(CLASSES[name])
