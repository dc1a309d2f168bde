import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from boqsa.errors import InputError
from boqsa.models import MixtureModel
from boqsa.reproduce.separation import first_step, separation, slot_plane


def apart(images: int, slots: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Learned queries on the corners of a simplex, side 10, and updated slots around them."""
    generator = np.random.default_rng(seed)
    initial = np.tile(10 * np.eye(slots), (images, 1, 1))
    return initial, initial + noise * generator.standard_normal(initial.shape)


def test_one_iteration_is_run_whatever_was_trained(learned: MixtureModel, images: Tensor) -> None:
    initial, updated = first_step(learned, images, batch_size=4)
    assert initial.shape == updated.shape == (10, 3, 8)
    with torch.inference_mode():
        once, trained = learned(images, iterations=1).slots.numpy(), learned(images).slots.numpy()
    np.testing.assert_allclose(updated, once, atol=1e-5)
    assert np.abs(updated - trained).max() > 1e-3
    assert (initial == learned.slot_encoder.queries.weight.detach().numpy()).all()


def test_sampled_slots_are_the_same_each_time(sampled: MixtureModel, images: Tensor) -> None:
    first, again = first_step(sampled, images), first_step(sampled, images)
    assert (first.initial == again.initial).all()
    assert (first.initial[0] != first.initial[1]).any()


def test_slots_that_stay_near_their_query_are_separated() -> None:
    found = separation(*apart(20, 4, noise=0.1))
    assert found.nearest_query_accuracy == 1
    # Spread 0.1 around centres 14 apart: mean distances of about 0.28 inside and 14 outside, so 1 - 0.28 / 14.
    assert found.silhouette == pytest.approx(0.98, abs=0.01)
    assert (found.chance, found.images, found.slots) == (0.25, 20, 4)


def test_slots_without_an_index_are_at_chance() -> None:
    generator = np.random.default_rng(0)
    initial, updated = generator.standard_normal((2, 500, 5, 8))
    found = separation(initial, updated)
    assert found.nearest_query_accuracy == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 2500) ** 0.5)  # 4 deviations
    assert abs(found.silhouette) < 0.02


def test_shifted_indices_have_clear_groups_and_the_wrong_query() -> None:
    initial, updated = apart(20, 4, noise=0.1)
    found = separation(initial, np.roll(updated, 1, axis=1))
    assert found.nearest_query_accuracy == 0
    assert found.silhouette > 0.9


def test_queries_of_another_image_do_not_count() -> None:
    """Each image has its own initial slots; those of image 1 are image 0's, the other way round."""
    initial = np.array([[[0.0], [1.0]], [[1.0], [0.0]]])
    assert separation(initial, initial + 0.1).nearest_query_accuracy == 1


def test_both_sets_lie_in_one_plane_with_each_query_once() -> None:
    initial, updated = apart(15, 3, noise=0.1)
    plane = slot_plane(initial, updated, seed=3)
    assert plane.shape == (2, 15, 3, 2)
    assert (plane[0] == plane[0, :1]).all()
    assert len(np.unique(plane[1].reshape(-1, 2), axis=0)) == 45
    assert (slot_plane(initial, updated, seed=3) == plane).all()
    centres = plane[1].mean(axis=0)  # (K, 2)
    nearest = np.linalg.norm(plane[1][:, :, None] - centres, axis=-1).argmin(axis=-1)
    assert (nearest == np.arange(3)).all()


@pytest.mark.parametrize(("images", "slots"), [(1, 3), (3, 1)])
def test_too_little_to_separate_is_refused(images: int, slots: int) -> None:
    with pytest.raises(ValueError, match=f"got {images} images of {slots} slots"):
        separation(*apart(images, slots, noise=1))


def test_shapes_and_numbers_are_checked() -> None:
    initial, updated = apart(4, 3, noise=1)
    for function in (separation, slot_plane):
        with pytest.raises(ValueError, match=r"\(4, 3, 3\) and updated ones \(3, 3, 3\)"):
            function(initial, updated[:3])
        with pytest.raises(ValueError, match="not finite"):
            function(initial, updated * np.nan)
    with pytest.raises(ValueError, match="2 different slots"):
        slot_plane(initial[:, :2], initial[:, :2])


def test_without_scikit_learn_a_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sklearn", "sklearn.manifold", "sklearn.metrics"):
        monkeypatch.setitem(sys.modules, module, None)
    for function in (separation, slot_plane):
        with pytest.raises(InputError, match=r"pip install 'boqsa\[reproduce\]'"):
            function(*apart(4, 3, noise=1))
