"""Segmenting: every pixel of any picture gets the slot whose enlarged mask is largest there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from boqsa.errors import InputError
from boqsa.inference import Segmenter, segment
from boqsa.inference.load import build_model
from boqsa.inference.segment import IGNORE, enlarged_labels
from boqsa.models import MixtureModel
from boqsa.models.adaptive import needed_slots
from boqsa.models.radiance import RadianceModel


def random_picture(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_every_pixel_of_every_picture_gets_a_slot(model, zoo):
    segmenter = Segmenter(model)
    for path in zoo.values():
        found = segmenter.predict(path)
        assert found.labels.shape == found.picture.shape[:2]
        assert found.labels.dtype == np.uint8
        assert found.labels.max() < 4, path.name
        assert found.masks.shape == (4, 16, 16)
        np.testing.assert_allclose(found.masks.sum(axis=0), 1, atol=1e-5)
        assert found.slots.shape == (4, 8)
        assert found.reconstruction.shape == (3, 16, 16)
        assert found.overlay().shape == found.picture.shape
        assert found.share.sum() == pytest.approx(1)


def test_a_picture_of_the_model_s_size_is_what_the_model_says(model):
    picture = random_picture(16, 16)
    found = Segmenter(model).predict(picture)
    with torch.no_grad():
        output = model(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])
    np.testing.assert_array_equal(found.labels, output.segmentation()[0].numpy())
    np.testing.assert_array_equal(found.masks, output.masks[0, :, 0].numpy())
    np.testing.assert_array_equal(found.slots, output.slots[0].numpy())
    np.testing.assert_array_equal(found.reconstruction, output.reconstruction[0].numpy())
    assert len(np.unique(found.labels)) > 1  # or the labels would prove nothing


def test_a_picture_is_squeezed_as_a_whole(model):
    """The model sees the picture resized by Pillow, and its masks are stretched back."""
    picture = random_picture(40, 90)
    squeezed = picture.resize((16, 16), Image.Resampling.BILINEAR)
    found, small = Segmenter(model).predict(picture), Segmenter(model).predict(squeezed)
    np.testing.assert_array_equal(found.masks, small.masks)
    stretched = interpolate(torch.from_numpy(found.masks)[None], (40, 90), mode="bilinear")[0]
    assert (stretched.argmax(dim=0).numpy() == found.labels).mean() > 0.999  # ties may round otherwise


def test_crop_sees_the_centre_and_ignores_the_rest(model):
    picture = random_picture(21, 50)
    found = Segmenter(model, crop=True).predict(picture)
    centre = Segmenter(model).predict(picture.crop((14, 0, 35, 21)))
    np.testing.assert_array_equal(found.labels[:, 14:35], centre.labels)
    assert (found.labels[:, :14] == IGNORE).all()
    assert (found.labels[:, 35:] == IGNORE).all()
    np.testing.assert_array_equal(found.slots, centre.slots)
    np.testing.assert_array_equal(found.area, centre.area)
    np.testing.assert_array_equal(found.overlay()[:, :13], np.asarray(picture)[:, :13])


def triangle_filter(size, new_size):
    """Bilinear weights (new_size, size); where the size shrinks, the triangles are wider."""
    step = size / new_size
    centre = (np.arange(new_size)[:, None] + 0.5) * step
    distance = np.abs(np.arange(size) + 0.5 - centre) / max(step, 1)
    weights = (1 - distance).clip(0)
    return weights / weights.sum(axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(
    slots=st.integers(1, 6),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_strips_change_nothing(slots, height, width, seed):
    """Against the triangle filter written out as matrices, away from ties."""
    masks = torch.rand(slots, 12, 12, generator=torch.Generator().manual_seed(seed)).softmax(dim=0)
    enlarged = triangle_filter(12, height) @ masks.double().numpy() @ triangle_filter(12, width).T
    first, *second = np.sort(enlarged, axis=0)[::-1][:2]
    clear = first - second[0] > 1e-5 if second else np.full((height, width), True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "_STRIP", slots * width * 5)
        labels = enlarged_labels(masks, height, width)
    assert labels.shape == (height, width)
    np.testing.assert_array_equal(labels[clear], enlarged.argmax(axis=0)[clear])


def test_a_batch_gives_each_picture_its_own_result(model):
    pictures = [np.asarray(random_picture(9 + 7 * seed, 30, seed)) for seed in range(3)]
    together = list(Segmenter(model).predict_batch(pictures))
    for picture, found in zip(pictures, together, strict=True):
        alone = Segmenter(model).predict(Image.fromarray(picture))
        np.testing.assert_allclose(found.masks, alone.masks, atol=1e-5)
        assert (found.labels == alone.labels).mean() > 0.99


def test_a_batch_takes_whatever_predict_takes(model, tmp_path):
    picture = random_picture(16, 16)
    picture.save(tmp_path / "a.png")
    pixels = np.array(picture)
    grey = pixels[..., 0]
    kinds = [tmp_path / "a.png", picture, pixels, pixels / 255, torch.from_numpy(pixels).permute(2, 0, 1), grey]
    segmenter = Segmenter(model)
    for pictures in (kinds, iter(kinds)):
        found = list(segmenter.predict_batch(pictures))
        for kind, one in zip(kinds, found, strict=True):
            np.testing.assert_array_equal(one.picture, segmenter.predict(kind).picture)
    assert list(segmenter.predict_batch([])) == []
    with pytest.raises(InputError, match="floating-point pixels must lie in 0 to 1"):
        list(segmenter.predict_batch([pixels, pixels * 1.5]))


def test_iterations_reach_the_model(model):
    picture = random_picture(16, 16)
    by_default = Segmenter(model).predict(picture).slots
    np.testing.assert_array_equal(Segmenter(model, iterations=3).predict(picture).slots, by_default)
    assert np.abs(Segmenter(model, iterations=1).predict(picture).slots - by_default).max() > 1e-3


@pytest.mark.parametrize("queries", ["shared_gaussian", "independent_gaussians"])
def test_sampled_queries_give_the_same_result_again(recipe, queries):
    sampled = MixtureModel(**{**build_model(recipe)._hub_mixin_config, "queries": queries})
    pictures = [np.asarray(random_picture(16, 16, seed)) for seed in range(2)]
    first = list(Segmenter(sampled).predict_batch(pictures))
    again = Segmenter(sampled).predict(Image.fromarray(pictures[1]))
    np.testing.assert_allclose(first[1].slots, again.slots, atol=1e-5)


def test_other_dtypes_come_out_as_float32(recipe):
    found = Segmenter(build_model(recipe).double()).predict(random_picture(5, 5))
    assert {found.masks.dtype, found.slots.dtype, found.reconstruction.dtype} == {np.dtype(np.float32)}


def test_impossible_settings_are_refused(model, recipe):
    for iterations in (0, 2.5, 2.0, "2", float("nan")):
        with pytest.raises(InputError, match=f"iterations is {iterations}; it must be a whole number of at least 1"):
            Segmenter(model, iterations=iterations)
    assert Segmenter(model, iterations=np.int64(2)).iterations == 2
    crowded = MixtureModel(**{**build_model(recipe)._hub_mixin_config, "num_slots": 256})
    with pytest.raises(InputError, match="256 slots"):
        Segmenter(crowded)


def test_adaptive_labels_are_those_of_the_needed_slots(model, recipe):
    picture = random_picture(16, 16)
    found = Segmenter(model, adaptive=True).predict(picture)
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    with torch.no_grad():
        needed = needed_slots(model(image), image.float() / 255)
    np.testing.assert_array_equal(found.labels, needed.segmentation()[0].numpy())
    assert set(np.unique(found.labels)) <= set(needed.is_needed[0].nonzero().flatten().tolist())


def test_adaptive_labels_of_a_transformer(transformer):
    """Its segmenter leaves the logits out, which `needed_slots` does not want."""
    picture = random_picture(16, 16)
    found = Segmenter(transformer, adaptive=True).predict(picture)
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    with torch.no_grad():
        needed = needed_slots(transformer(image), image.float() / 255, transformer)
    assert not needed.is_needed.all()  # or it would prove nothing
    np.testing.assert_array_equal(found.masks, needed.masks[0, :, 0].numpy())
    np.testing.assert_array_equal(found.labels, needed.segmentation()[0].numpy())


def test_a_radiance_model_has_no_adaptive_slots():
    with pytest.raises(InputError, match="for mixture, transformer and features models"):
        Segmenter(RadianceModel(input_size=16, num_slots=3, slot_size=8), adaptive=True)
