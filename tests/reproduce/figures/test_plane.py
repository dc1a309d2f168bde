import numpy as np
import pytest

from boqsa.reports import slot_colours
from boqsa.reproduce.figures import Panel, plane_figure
from boqsa.reproduce.separation import Separation

NUMBERS = Separation(1.0, 0.5, 0.75, 1 / 3, 8, 3)


def panel(*, learned: bool, slots: int = 3) -> Panel:
    """Slots of eight images on a line each, initial ones above it."""
    generator = np.random.default_rng(0)
    plane = generator.random((2, 8, slots, 2)) + 10 * np.arange(slots)[:, None]
    plane[0, ..., 1] += 5
    if learned:
        plane[0] = plane[0, 0]
    return Panel(plane, NUMBERS)


def count(picture: np.ndarray, slot: int) -> int:
    return int((picture == slot_colours(4)[slot]).all(axis=-1).sum())


@pytest.mark.parametrize("learned", [True, False])
def test_slots_wear_their_colours(learned: bool) -> None:
    picture = plane_figure({"BO-QSA": panel(learned=learned)})
    assert picture.dtype == np.uint8
    assert min(count(picture, slot) for slot in range(3)) > 150
    assert count(picture, 3) == 0


def test_a_learned_query_is_one_large_cross() -> None:
    """300 square points are 1,480 pixels at 160 an inch; more than a fifth is in a cross and within its edge."""
    learned, sampled = (count(plane_figure({"method": panel(learned=kind)}), 0) for kind in (True, False))
    assert learned - sampled > 300  # the crosses of sampled slots are translucent, so none of them counts


def test_panels_stand_in_rows_of_three_or_two() -> None:
    shapes = [plane_figure({str(index): panel(learned=True) for index in range(count)}).shape for count in (1, 3, 4, 5)]
    widths = [shape[1] / shapes[0][1] for shape in shapes]
    assert widths == pytest.approx([1, 3, 2, 3], abs=0.01)
    assert shapes[2][0] == shapes[3][0] > 1.5 * shapes[0][0]


def test_the_legend_is_not_cut() -> None:
    """The outermost pixels are white, also in the narrowest picture with many slots."""
    picture = plane_figure({"BO-QSA": panel(learned=True, slots=11)})
    assert (picture[:, :2] == 255).all()
    assert (picture[:, -2:] == 255).all()
    assert (picture[:2] == 255).all()


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        plane_figure({})
