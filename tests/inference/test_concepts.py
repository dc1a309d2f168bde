"""Concepts of made-up segmentations, where everything can be counted by hand."""

import math

import numpy as np
import pytest

from boqsa.data.attributes import Objects
from boqsa.inference.concepts import ConceptFinder, Region
from boqsa.inference.segment import Segmentation

SIZE = 16
CORNER = slice(0, 4), slice(4, 8)  # touches the border, a sixteenth wide, with 4 of its 60 pixels
CENTRE = slice(6, 10), slice(6, 10)


def seen(
    places: dict[int, tuple[slice, slice]],
    *,
    slots: np.ndarray,
    sure: float = 1.0,
    colours: dict[int, tuple[int, int, int]] | None = None,
) -> Segmentation:
    """Slot 0 everywhere but at `places`; masks are `sure` there and share the rest evenly."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    for slot, place in places.items():
        labels[place] = slot
    for slot, colour in (colours or {}).items():
        picture[labels == slot] = colour
    count = len(slots)
    masks = np.full((count, SIZE, SIZE), (1 - sure) / (count - 1), np.float32)
    np.put_along_axis(masks, labels[None].astype(np.int64), sure, axis=0)
    window = slice(0, SIZE), slice(0, SIZE)
    return Segmentation(picture, labels, masks, slots.astype(np.float32), np.zeros((3, SIZE, SIZE), np.float32), window)


def vectors(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


ALIKE = vectors((1, 0), (0, 1), (0, 1))


def test_how_often_how_large_and_where() -> None:
    finder = ConceptFinder()
    finder.update(seen({1: CORNER}, slots=ALIKE, sure=0.8))
    finder.update(seen({1: CENTRE}, slots=ALIKE, sure=0.6))
    finder.update(seen({1: (slice(0, 1), slice(0, 1))}, slots=ALIKE))  # one pixel of 256 is no region
    found = finder.compute()
    assert found.images == 3
    background, thing, unused = found.slots
    assert (background.images, thing.images, unused.images) == (3, 2, 0)
    assert background.is_background
    assert not thing.is_background
    assert thing.area == pytest.approx(16 / 256)
    assert thing.border == pytest.approx((4 + 0 + 1) / 60 / 3)
    assert background.border == pytest.approx(1 - thing.border)
    assert thing.confidence == pytest.approx(0.7)
    expected = np.full((SIZE, SIZE), (0.1 + 0.2) / 2)
    expected[CORNER] = (0.8 + 0.2) / 2
    expected[CENTRE] = (0.1 + 0.6) / 2
    np.testing.assert_allclose(thing.mean_mask, expected, rtol=1e-6)
    assert math.isnan(unused.area)
    assert math.isnan(unused.confidence)
    assert not unused.mean_mask.any()
    # That of the thing is even but for squares at (2, 6) and (8, 8) of 16: the middle holds its centre.
    assert (background.place, thing.place, unused.place) == (4, 4, -1)
    assert unused.strongest == unused.spread == unused.nearest == unused.neighbours == []


@pytest.mark.parametrize(("place", "cell"), [((0, 0), 0), ((0, 6), 1), ((6, 12), 5), ((12, 0), 6), ((12, 12), 8)])
def test_the_place_of_a_slot_is_a_cell_row_by_row(place: tuple[int, int], cell: int) -> None:
    finder = ConceptFinder()
    down, across = place
    finder.update(seen({1: (slice(down, down + 4), slice(across, across + 4))}, slots=ALIKE))
    assert finder.compute().slots[1].place == cell


def test_strength_is_confidence_times_likeness_to_the_mean() -> None:
    """Three regions of slot 1 at (1, 0), (1, 0) and (0, 1): the mean is (2, 1) / 3, so the cosines are 2 and 1 over
    the root of 5."""
    finder = ConceptFinder()
    for vector, sure in (((1, 0), 0.6), ((0, 1), 1.0), ((1, 0), 0.9)):
        finder.update(seen({1: CENTRE}, slots=vectors((0, -1), vector), sure=sure))
    found = finder.compute(examples=2).slots[1]
    assert [region.image for region in found.strongest] == [2, 0]
    assert [region.value for region in found.strongest] == pytest.approx([0.9 * 2 / 5**0.5, 0.6 * 2 / 5**0.5])
    assert [(region.image, region.value) for region in found.spread] == [(1, pytest.approx(1 / 5**0.5))]


def test_a_region_unlike_its_slot_is_not_bound_at_all() -> None:
    finder = ConceptFinder()
    for vector in ((1, 0), (1, 0), (-1, 0)):
        finder.update(seen({1: CENTRE}, slots=vectors((0, 1), vector)))
    assert [(one.image, one.value) for one in finder.compute().slots[1].strongest] == [(0, 1), (1, 1), (2, 0)]


def test_what_the_strongest_do_not_show_is_spread_evenly_to_the_weakest() -> None:
    finder = ConceptFinder()
    for step in range(12):
        finder.update(seen({1: CENTRE}, slots=vectors((0, 1), (1, 0)), sure=0.99 - step / 100))
    found = finder.compute(examples=3).slots[1]
    assert [region.image for region in found.strongest] == [0, 1, 2]
    assert [region.image for region in found.spread] == [5, 8, 11]


def test_neighbours_are_slots_of_like_means_and_regions_of_others() -> None:
    finder = ConceptFinder()
    left, right = (slice(4, 8), slice(2, 6)), (slice(4, 8), slice(10, 14))
    finder.update(seen({1: left, 2: right}, slots=vectors((0, 1), (1, 0), (1, 1))))
    finder.update(seen({2: right}, slots=vectors((0, 1), (1, 0), (1, 0))))  # slot 1 owns nothing here
    found = finder.compute().slots
    # The mean of slot 2 is (1, 1/2).
    assert [(other.slot, other.similarity) for other in found[1].neighbours] == [
        (2, pytest.approx(2 / 5**0.5)),
        (0, pytest.approx(0)),
    ]
    assert found[1].nearest == [Region(1, 2, 1.0), Region(0, 2, pytest.approx(0.5**0.5))]
    # At most one an image: in the first, slot 1 is nearer to the mean of slot 2 than slot 0 is; the second has slot 0.
    assert [(region.image, region.slot) for region in found[2].nearest] == [(0, 1), (1, 0)]


def test_colours_and_truth_of_pixels_are_counted_by_slot() -> None:
    finder = ConceptFinder()
    true = np.zeros((SIZE, SIZE), np.int64)
    true[CENTRE] = 7
    true[0] = -1  # a row to ignore
    colours = {0: (0, 200, 0), 1: (200, 0, 0)}
    finder.update(seen({1: (slice(6, 10), slice(5, 10))}, slots=ALIKE[:2], colours=colours), true)
    found = finder.compute()
    assert found.slots[1].pixels["pixel_colour"].tolist() == [20, 0, 0, 0, 0, 0, 0]
    assert found.slots[1].pixels["truth"].tolist() == [4, 16]
    assert found.slots[0].pixels["truth"].tolist() == [240 - 20, 0]
    assert found.pixels["pixel_colour"].tolist() == [20, 0, 236, 0, 0, 0, 0]
    assert found.pixels["truth"].tolist() == [224, 16]


def kinds_by_slot(images: int) -> tuple[ConceptFinder, Objects]:
    """In each image three objects: of class 0 under slot 1, of class 1 under slot 2, of class 0 under none."""
    finder = ConceptFinder()
    true = np.zeros((SIZE, SIZE), np.int64)
    left, right, missed = (slice(4, 8), slice(2, 6)), (slice(4, 8), slice(10, 14)), (slice(12, 14), slice(7, 9))
    true[left], true[right], true[missed] = 1, 3, 4
    half_missed = slice(4, 8), slice(4, 6)
    for _ in range(images):
        finder.update(seen({1: half_missed, 2: right}, slots=ALIKE), true)
    index = np.repeat(np.arange(images), 3)
    return finder, Objects(index, np.tile([1, 3, 4], images), {"kind": np.tile([0, 1, 0], images), "other": index * 0})


def test_attributes_are_those_of_the_object_that_a_region_lies_on() -> None:
    finder, objects = kinds_by_slot(30)
    found = finder.compute(objects, classes={"kind": ("cat", "dog")})
    assert found.objects == 90
    assert found.attributes["kind"].tolist() == [60, 30]
    assert list(found.attributes) == ["kind"], "an attribute without names of classes is left out"
    background, first, second = found.slots
    assert first.attributes["kind"].tolist() == [30, 0]
    assert second.attributes["kind"].tolist() == [0, 30]
    assert (background.on_objects, first.on_objects, second.on_objects) == (0, 30, 30)
    assert (first.iou, second.iou) == (pytest.approx(0.5), pytest.approx(1))
    assert math.isnan(background.iou)
    assert found.information["kind"] == pytest.approx(1), "the slot tells the class"
    (notable,) = second.notable
    assert notable == ("kind", 1, 1.0, pytest.approx(1 / 3))


def test_a_slot_that_mostly_takes_no_object_is_not_told_by_the_few() -> None:
    """30 dogs of 90 images stand out by far; but two thirds of its regions are a wall."""
    finder = ConceptFinder()
    true = np.zeros((SIZE, SIZE), np.int64)
    true[CENTRE] = 1
    for image in range(90):
        finder.update(seen({1 if image < 30 else 2: CENTRE, 3 - (1 if image < 30 else 2): CORNER}, slots=ALIKE), true)
    kinds = np.where(np.arange(90) < 30, 1, 0)
    objects = Objects(np.arange(90), np.ones(90, np.int64), {"kind": kinds})
    found = finder.compute(objects, classes={"kind": ("cat", "dog")}).slots
    assert found[1].on_objects == 30
    assert all(one.attribute == "truth" for one in found[1].notable)
    assert [one.attribute for one in found[2].notable] == ["kind"]


def test_few_objects_are_no_evidence_and_pixels_stand_in() -> None:
    """One dog more than expected of one is chance; a slot all of whose 64 pixels are object where 14% are is not, with
    30 images."""
    finder, objects = kinds_by_slot(1)
    assert finder.compute(objects, classes={"kind": ("cat", "dog")}).slots[2].notable == []
    finder, _ = kinds_by_slot(30)
    (notable,) = finder.compute().slots[2].notable
    assert notable == ("truth", 1, 1.0, pytest.approx((16 + 16 + 4) / 256))


def test_a_slot_s_number_that_says_nothing_has_no_information() -> None:
    finder = ConceptFinder()
    true = np.zeros((SIZE, SIZE), np.int64)
    true[CENTRE] = 1
    for image in range(40):
        finder.update(seen({1 + image % 2: CENTRE}, slots=ALIKE), true)
    objects = Objects(
        np.arange(40), np.ones(40, np.int64), {"kind": np.arange(40) // 2 % 2, "one": np.zeros(40, np.int64)}
    )
    found = finder.compute(objects, classes={"kind": ("cat", "dog"), "one": ("only",)})
    assert found.information["kind"] == pytest.approx(0)
    assert math.isnan(found.information["one"])
    assert found.slots[1].notable == [("truth", 1, 1.0, pytest.approx(16 / 256))]


def test_information_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    kind, taker = generator.integers(0, 3, 200), generator.integers(1, 3, 200)
    taker[kind == 2] = 2
    finder = ConceptFinder()
    true = np.zeros((SIZE, SIZE), np.int64)
    true[CENTRE] = 1
    for slot in taker:
        finder.update(seen({int(slot): CENTRE}, slots=ALIKE), true)
    objects = Objects(np.arange(200), np.ones(200, np.int64), {"kind": kind})
    found = finder.compute(objects, classes={"kind": ("a", "b", "c")})
    assert found.information["kind"] == pytest.approx(sklearn.normalized_mutual_info_score(taker, kind))


def test_information_of_few_objects_is_chance_and_not_told() -> None:
    """Two slots, two classes: 1 / 2n over the entropy of log 2 is 0.02 at n = 36."""
    for images, is_told in ((35, False), (38, True)):
        finder = ConceptFinder()
        true = np.zeros((SIZE, SIZE), np.int64)
        true[CENTRE] = 1
        for image in range(images):
            finder.update(seen({1 + image % 2: CENTRE}, slots=ALIKE), true)
        objects = Objects(np.arange(images), np.ones(images, np.int64), {"kind": np.arange(images) % 2})
        found = finder.compute(objects, classes={"kind": ("cat", "dog")}).information["kind"]
        assert found == pytest.approx(1) if is_told else math.isnan(found)


def test_a_slot_that_has_much_of_everything_is_not_the_background_s() -> None:
    """Nine columns of sixteen and no edge but theirs: 30% of the border, and 56% of the image."""
    finder = ConceptFinder()
    finder.update(seen({1: (slice(0, 16), slice(1, 10))}, slots=ALIKE))
    found = finder.compute().slots[1]
    assert found.border == pytest.approx(18 / 60)
    assert found.area == pytest.approx(144 / 256)
    assert not found.is_background


def test_nothing_to_look_at_is_said() -> None:
    with pytest.raises(ValueError, match="no image"):
        ConceptFinder().compute()


def test_an_image_that_is_ignored_whole_has_no_truth() -> None:
    finder = ConceptFinder()
    finder.update(seen({1: CENTRE}, slots=ALIKE), np.full((SIZE, SIZE), -1))
    none = np.zeros(0, np.int64)
    found = finder.compute(Objects(none, none, {"kind": none}), classes={"kind": ("cat", "dog")})
    assert math.isnan(found.information["kind"])
    assert [one.on_objects for one in found.slots] == [0, 0, 0]
    assert found.pixels["truth"].sum() == 0
