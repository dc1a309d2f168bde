import numpy as np
import pytest

from boqsa.reports.palette import as_seen, slot_colours


def test_colour_of_a_slot_does_not_depend_on_how_many_there_are() -> None:
    longest = slot_colours(256)
    assert longest.dtype == np.uint8
    for count in (0, 1, 5, 11, 64):
        np.testing.assert_array_equal(slot_colours(count), longest[:count])


def test_first_colours_are_those_of_okabe_and_ito() -> None:
    assert slot_colours(2).tolist() == [[0, 114, 178], [230, 159, 0]]


def test_all_colours_differ() -> None:
    assert len(np.unique(slot_colours(256), axis=0)) == 256


@pytest.mark.parametrize("sight", [0, 1, 2], ids=["normal", "protanopia", "deuteranopia"])
def test_eleven_slots_can_be_told_apart_by_every_eye(sight: int) -> None:
    seen = as_seen(slot_colours(11))[:, sight]
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert distance[np.triu_indices(11, k=1)].min() > 0.07  # about 0.02 is just visible


def test_oklab_of_white_and_black() -> None:
    white, black = as_seen(np.array([[255, 255, 255], [0, 0, 0]]))[:, 0]
    np.testing.assert_allclose(white, [1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(black, [0, 0, 0], atol=1e-4)


def test_callers_cannot_change_the_palette() -> None:
    slot_colours(3)[:] = 0
    assert slot_colours(1).tolist() == [[0, 114, 178]]


@pytest.mark.parametrize("count", [-1, 257])
def test_refuses_a_count_out_of_range(count: int) -> None:
    with pytest.raises(ValueError, match="0 to 256"):
        slot_colours(count)
