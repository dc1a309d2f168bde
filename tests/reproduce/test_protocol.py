"""What must be equal for two numbers to be compared, and what is known of the paper's numbers."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boqsa.errors import InputError
from boqsa.recipes import get_recipe
from boqsa.reproduce.paper import PaperCell
from boqsa.reproduce.protocol import (
    Protocol,
    differences,
    not_known,
    open_points,
    paper_protocol,
    parse,
    refusals,
)

FindCell = Callable[[int, str, str, str], PaperCell]

OURS = Protocol(
    data="scenes",
    variant="renderer 4",
    split="test",
    images=1000,
    image_size=32,
    slots=5,
    masks="decoder",
    metric="ari_fg",
    recipe="a1b2",
)
words = st.none() | st.from_regex(r"[a-zA-Z0-9_>\-][a-zA-Z0-9_ >\-.]{0,8}[a-z0-9]", fullmatch=True)
numbers = st.none() | st.integers(1, 10**12)
protocols = st.builds(
    Protocol,
    data=words,
    variant=words,
    split=words,
    images=numbers,
    image_size=numbers,
    slots=numbers,
    masks=st.sampled_from(["decoder", "attention", None]),
    metric=words,
)


@given(protocols)
def test_text_reads_back(protocol: Protocol) -> None:
    assert parse(protocol.text) == protocol
    assert "\n" not in protocol.text


def test_text_is_for_people() -> None:
    assert replace(OURS, slots=None).text == (
        "data=scenes; variant=renderer 4; split=test; images=1000; image_size=32; slots=?; masks=decoder; "
        "metric=ari_fg; recipe=a1b2"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no protocol; it must be data=...; variant=...; "),
        (OURS.text + "; more=1", "is no protocol"),
        (OURS.text.replace("slots=5", "slots=five"), "slots is 'five'; it must be a number or ?"),
        (OURS.text.replace("slots=5", "slots=05"), "slots is '05'"),
        (OURS.text.replace("decoder", "both"), "masks is 'both'; use decoder, attention or None"),
        (OURS.text.replace("data=scenes", "data="), "data is ''; it must be one line"),
        (OURS.text.replace("data=scenes; variant=renderer 4", "variant=renderer 4; data=scenes"), "in this order"),
    ],
)
def test_another_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    assert message in str(error.value)


@pytest.mark.parametrize("value", ["", "?", "?x", " test", "test ", "a;b", "a=b", "a\nb", "a\u2028b"])
def test_a_part_that_would_not_read_back_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="the protocol's split"):
        replace(OURS, split=value)


def test_a_number_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="image size is 0; it must be at least 1"):
        replace(OURS, image_size=0)


@given(protocols, protocols)
def test_every_part_is_equal_or_differs_or_is_not_known(one: Protocol, other: Protocol) -> None:
    names = [field.name for field in fields(Protocol) if field.name != "recipe"]  # it is no difference of two methods
    equal = [name for name in names if getattr(one, name) == getattr(other, name) and getattr(one, name) is not None]
    assert len(equal) + len(differences(one, other)) + len(not_known(one, other)) == len(names)
    assert not_known(one, other) == not_known(other, one)
    assert differences(one, one) == []


def test_differences_are_in_words() -> None:
    other = replace(OURS, data="shapestacks", image_size=128, slots=None)
    assert differences(OURS, other) == ["data: scenes -> shapestacks", "image size: 32 -> 128"]
    assert not_known(OURS, other) == ["slots"]


def test_methods_of_two_protocols_are_not_compared_but_for_slots_and_masks() -> None:
    assert refusals(OURS, OURS) == []
    assert refusals(OURS, replace(OURS, slots=12, masks="attention")) == []
    assert refusals(OURS, replace(OURS, split=None)) == [], "what nobody knows refuses nothing"
    other = replace(OURS, images=320, image_size=96, slots=12, masks="attention")
    assert refusals(OURS, other) == ["images: 1000 -> 320", "image size: 32 -> 96"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ((1, "shapestacks", "BO-QSA (mixture)", "ari_fg"), ("test", None, 128, 8, "decoder")),
        ((1, "shapestacks", "BO-QSA (transformer)", "ari_fg"), ("test", None, 128, 12, "attention")),
        ((1, "shapestacks", "SLATE", "msc_fg"), ("test", None, 96, 12, "attention")),
        ((1, "objectsroom", "SLATE", "msc_fg"), ("test", 10_000, 64, 6, "attention")),
        ((1, "objectsroom", "BO-QSA (mixture)", "msc_fg"), ("test", 10_000, 64, 5, "decoder")),
        ((1, "objectsroom", "Slot-Attention", "msc_fg"), (None, None, 64, 5, "decoder")),
        ((1, "objectsroom", "I-SA", "msc_fg"), ("test", 10_000, 64, None, None)),
        ((1, "objectsroom", "GENESIS-V2", "msc_fg"), (None, None, None, None, None)),
        ((2, "clevrtex_camo", "BO-QSA (mixture)", "mse"), ("test", 2_000, 128, 11, "decoder")),
        ((2, "clevrtex_camo", "DTI", "mse"), (None, None, None, None, None)),
        ((4, "coco", "BO-QSA (transformer)", "ap"), ("test", None, 128, 6, "attention")),
        ((5, "birds", "BO-QSA (mixture)", "iou"), ("test", 1_000, 128, 3, "decoder")),
        ((5, "flowers", "I-SA", "iou"), ("test", 1_020, 128, 2, None)),
        ((7, "dogs", "SA", "iou"), ("test", None, 128, 2, "attention")),
        ((7, "shapestacks", "QSA", "ari_fg"), ("test", None, 128, 8, "decoder")),
        ((8, "ycb->coco", "SA", "ap"), ("test", None, 128, 6, "attention")),
        ((15, "birds->cars", "I-SA", "iou"), ("test", None, 128, 3, None)),
        ((17, "shapestacks", "KMeans-M", "msc_fg"), ("test", None, 128, 8, "decoder")),
        ((18, "ptr", "BO-QSA (mixture)", "ari_fg"), ("test", None, None, None, "decoder")),
        ((19, "clevr567", "uORF (600 epochs)", "ari"), ("test", None, 128, 8, "decoder")),
    ],
)
def test_the_papers_protocols(
    find_cell: FindCell, cell: tuple[int, str, str, str], expected: tuple[object, ...]
) -> None:
    protocol = paper_protocol(find_cell(*cell))
    assert (protocol.split, protocol.images, protocol.image_size, protocol.slots, protocol.masks) == expected
    assert protocol.data == cell[1].rpartition("->")[2]


def test_every_number_of_the_paper_has_a_protocol_with_its_metric(all_cells: list[PaperCell]) -> None:
    for cell in all_cells:
        protocol = paper_protocol(cell)
        assert (protocol.metric, protocol.variant) == (cell.our_metric, None)
        assert parse(protocol.text) == protocol


@pytest.mark.parametrize(
    ("recipe", "cell"),
    [
        ("objectsroom_mixture", (1, "objectsroom", "BO-QSA (mixture)", "ari_fg")),
        ("shapestacks_mixture", (7, "shapestacks", "BO-QSA", "ari_fg")),
        ("shapestacks_transformer", (1, "shapestacks", "BO-QSA (transformer)", "ari_fg")),
        ("shapestacks_slate", (1, "shapestacks", "SLATE", "ari_fg")),
        ("clevrtex_mixture", (2, "clevrtex_full", "BO-QSA (mixture)", "ari_fg")),
        ("birds_transformer", (6, "birds", "BO-QSA (transformer)", "iou")),
        ("dogs_mixture", (5, "dogs", "BO-QSA (mixture)", "iou")),
        ("coco_transformer", (4, "coco", "BO-QSA (transformer)", "ap")),
    ],
)
def test_our_recipes_have_the_size_and_slots_of_the_paper(
    find_cell: FindCell, recipe: str, cell: tuple[int, str, str, str]
) -> None:
    made, protocol = get_recipe(recipe), paper_protocol(find_cell(*cell))
    assert (made.data.name, made.data.image_size) == (protocol.data, protocol.image_size)
    assert made.model.num_slots == protocol.slots
    assert (made.model.kind == "transformer") == (protocol.masks == "attention")


def test_what_the_paper_leaves_open_is_said(find_cell: FindCell) -> None:
    assert "batch means" in open_points(find_cell(7, "shapestacks", "SA", "msc_fg"))
    assert "inferred" in open_points(find_cell(3, "shapestacks", "BO-QSA (mixture)", "mse"))
    assert open_points(find_cell(4, "ycb", "AIR", "pq")) == ""
