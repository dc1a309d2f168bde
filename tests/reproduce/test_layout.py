"""Columns of a table, and what is averaged in one."""

from collections.abc import Callable

import pytest

from boqsa.errors import InputError
from boqsa.reproduce.items import build
from boqsa.reproduce.layout import Column, direction, layout_of, scores_in, ways_to_choose
from boqsa.reproduce.paper import paper_cells
from boqsa.reproduce.rows import Row
from boqsa.reproduce.scales import SMALL
from boqsa.reproduce.write_up import write_up
from boqsa.training.sweep import Spread

MakeRows = Callable[..., list[Row]]

SCENES = Column("scenes", "ari_fg")


def test_scores_are_by_method_and_seed(make_rows: MakeRows) -> None:
    rows = make_rows({"SA": [0.4, 0.6], "BO-QSA": [0.7]}) + make_rows({"SA": [0.1]}, metric="msc_fg")
    scores = scores_in(SCENES, "last", rows)
    assert list(scores) == ["SA", "BO-QSA"]
    assert scores["SA"].by_seed == {0: 0.4, 1: 0.6}
    assert scores["SA"].spread == Spread.of([0.4, 0.6])
    assert (scores["SA"].best(1), scores["SA"].best(-1)) == (0.6, 0.4)


def test_seeds_of_two_protocols_are_not_averaged(make_rows: MakeRows) -> None:
    rows = make_rows({"SA": [0.4]}) + [
        row._replace(seed=1) for row in make_rows({"SA": [0.5]}, images=320, masks="attention")
    ]
    with pytest.raises(
        InputError, match=r"SA on scenes ari_fg has seeds 0 and 1 of two protocols \(images: 1000 -> 320"
    ):
        scores_in(SCENES, "last", rows)


def test_a_part_that_one_seed_alone_states_is_another_protocol(make_rows: MakeRows) -> None:
    rows = make_rows({"SA": [0.4]}) + [row._replace(seed=1) for row in make_rows({"SA": [0.5]}, variant=None)]
    with pytest.raises(InputError, match="other recipes, or a part is known of one alone"):
        scores_in(SCENES, "last", rows)


def test_two_selections_and_a_seed_twice_are_not_averaged(make_rows: MakeRows) -> None:
    rows = make_rows({"SA": [0.4]}, selection="best_iou")
    others = [row._replace(seed=1) for row in make_rows({"SA": [0.4]}, selection="best_dice")]
    with pytest.raises(InputError, match="chosen by best_iou and by best_dice"):
        scores_in(SCENES, "labels", rows + others)
    with pytest.raises(InputError, match="has seed 0 twice"):
        scores_in(SCENES, "labels", rows + rows)


def test_ways_to_choose_have_one_order(make_rows: MakeRows) -> None:
    rows = [row for name in ("best_ap", "best_loss", "last") for row in make_rows({"SA": [0.4]}, selection=name)]
    assert ways_to_choose(rows) == ["last", "best_loss", "labels"]
    assert scores_in(SCENES, "best_loss", rows)["SA"].by_seed == {0: 0.4}


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("ari_fg", 1),
        ("border_iou", 1),
        ("mse_per_image_generated", -1),
        ("mse", -1),
        ("loss", -1),
        ("failed", -1),
        ("update_spectral_norm", 0),
        ("lossless", 0),
    ],
)
def test_directions(metric: str, expected: int) -> None:
    assert direction(metric) == expected


def test_directions_are_the_papers() -> None:
    for table in (1, 2, 3, 4, 5, 16, 19):
        for cell in paper_cells(table):
            assert direction(cell.our_metric) == (1 if cell.higher_is_better else -1)


def test_a_stand_in_stands_beside_the_papers_set(make_rows: MakeRows) -> None:
    rows = [
        *make_rows({"SA": [0.5]}, dataset="flowers17", metric="iou"),
        *make_rows({"SA": [0.5]}, dataset="weizmann_horses", metric="iou"),
        *make_rows({"SA": [0.5]}, metric="mse"),
    ]
    layout = layout_of(rows, paper_cells(7), stand_ins={"flowers17": "dogs", "weizmann_horses": "dogs"})
    assert layout.columns == (
        Column("flowers17", "iou", "", "dogs"),
        Column("weizmann_horses", "iou", "", "dogs"),
        Column("dogs", "dice", "", "dogs"),
        Column("shapestacks", "ari_fg", "", "shapestacks"),
        Column("shapestacks", "msc_fg", "", "shapestacks"),
    )


@pytest.mark.parametrize(
    ("item", "dataset", "metric", "theirs"),
    [
        ("table1", "scenes", "ari_fg", "paper, shapestacks"),
        ("table3", "scenes", "mse_per_image", "paper, shapestacks"),
        ("table7", "scenes", "ari_fg", "paper, shapestacks"),
        ("table7", "flowers17", "iou", "paper, dogs"),
        ("table16", "weizmann_horses", "iou", "paper, dogs"),
        ("table17", "scenes", "ari_fg", "paper, shapestacks"),
        ("table19", "scenes", "nv_ari", "paper, room_diverse"),
    ],
)
def test_what_stands_in_at_the_small_scale_stands_beside_the_papers_number(
    make_rows: MakeRows, item: str, dataset: str, metric: str, theirs: str
) -> None:
    experiment = build(item, SMALL)
    methods = {arm.method: [0.5, 0.6] for arm in experiment.arms if arm.recipe.data.name == dataset}
    text = write_up(experiment, make_rows(methods, dataset=dataset, metric=metric))
    head = next(line for line in text.split("\n") if line.startswith("| method") and f"{dataset} {metric}" in line)
    cells = [cell.strip() for cell in head.split("|")]
    place = next(place for place, cell in enumerate(cells) if cell.startswith(f"{dataset} {metric}"))
    assert cells[place + 1] == theirs


def test_columns_of_one_set_stand_together(make_rows: MakeRows) -> None:
    rows = [
        row
        for metric in ("iou", "dice")
        for dataset in ("flowers17", "weizmann_horses")
        for row in make_rows({"SA": [0.5]}, dataset=dataset, metric=metric)
    ]
    layout = layout_of(rows)
    assert [column[:2] for column in layout.columns] == [
        ("flowers17", "iou"),
        ("flowers17", "dice"),
        ("weizmann_horses", "iou"),
        ("weizmann_horses", "dice"),
    ]


def test_transfers_find_their_column(make_rows: MakeRows) -> None:
    rows = [
        *make_rows({"SA": [0.5]}, dataset="cars", metric="iou", condition="trained_on=dogs"),
        *make_rows({"SA": [0.5]}, dataset="dogs", metric="iou"),
    ]
    columns = layout_of(rows, paper_cells(15)).columns
    assert columns[0] == Column("cars", "iou", "trained_on=dogs", "dogs->cars")
    assert columns[1] == Column("flowers", "iou", "trained_on=dogs", "dogs->flowers")  # the paper's alone
    assert columns[-1] == Column("dogs", "iou", "", None)
    assert len(columns) == 7


def test_a_model_of_another_set_does_not_stand_beside_one_of_the_set_itself(make_rows: MakeRows) -> None:
    rows = [
        *make_rows({"SA": [0.5]}, dataset="clevrtex_outd", condition="trained_on=clevrtex_full"),
        *make_rows({"SA": [0.5]}, dataset="clevrtex_full", condition="trained_on=scenes"),
        *make_rows({"SA": [0.5]}, dataset="clevrtex_full", condition="test_iterations=5"),
    ]
    papers = {column[:3]: column.paper for column in layout_of(rows, paper_cells(2)).columns}
    assert papers["clevrtex_outd", "ari_fg", "trained_on=clevrtex_full"] == "clevrtex_outd"
    assert papers["clevrtex_full", "ari_fg", "trained_on=scenes"] is None
    assert papers["clevrtex_full", "ari_fg", "test_iterations=5"] is None


def test_titles_say_condition_and_direction() -> None:
    column = Column("cars", "mse", "test_iterations=5;trained_on=dogs")
    assert column.title == "cars mse (test_iterations=5, trained_on=dogs) ↓"
    assert column.name == "cars mse (test_iterations=5, trained_on=dogs)"
