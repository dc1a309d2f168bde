"""First, or within one standard deviation of first; and what a lead is worth."""

from collections.abc import Callable

import pytest

from boqsa.reproduce.layout import Layout, layout_of
from boqsa.reproduce.paper import paper_cells
from boqsa.reproduce.rows import Row
from boqsa.reproduce.standing import claims, comparison_lines

MakeRows = Callable[..., list[Row]]


def lines(make_rows: MakeRows, values: dict[str, list[float]], metric: str = "ari_fg") -> list[str]:
    rows = make_rows(values, metric=metric)
    return comparison_lines(rows, layout_of(rows, first="BO-QSA"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"SA": [0.4, 0.5, 0.6], "I-SA": [0.6, 0.7, 0.8], "BO-QSA": [0.8, 0.9, 0.85]},
            "BO-QSA is first, 0.850 ± 0.050; I-SA follows with 0.700 ± 0.100, over 3 and 3 seeds.",
        ),
        (
            {"SA": [0.7, 0.8, 0.9], "BO-QSA": [0.65, 0.70, 0.75, 0.74]},
            "SA is first, 0.800 ± 0.100; BO-QSA has 0.710 ± 0.045, over 4 and 3 seeds: within one "
            "standard deviation of it.",
        ),
        (
            {"SA": [0.7, 0.8, 0.9], "BO-QSA": [0.4, 0.6, 0.8]},
            "SA is first, 0.800 ± 0.100; BO-QSA has 0.600 ± 0.200, over 3 and 3 seeds: not within one "
            "standard deviation of it.",
        ),
        (
            {"SA": [0.8], "BO-QSA": [0.6, 0.8]},
            "SA is first, 0.800; BO-QSA has 0.700 ± 0.141, over 2 and 1 seeds: one run of the first has no spread to "
            "compare with.",
        ),
        (
            {"SA": [0.5, 0.75], "BO-QSA": [0.75, 0.5]},
            "BO-QSA is level with SA, 0.625 ± 0.177 and 0.625 ± 0.177 over 2 and 2 seeds.",
        ),
        ({"BO-QSA": [0.5, 0.75]}, "no other method to compare BO-QSA with, 0.625 ± 0.177 over 2 seeds."),
    ],
)
def test_standings(make_rows: MakeRows, values: dict[str, list[float]], expected: str) -> None:
    assert lines(make_rows, values) == [f"scenes ari_fg: {expected}"]


def test_of_an_error_the_lowest_is_first(make_rows: MakeRows) -> None:
    (line,) = lines(make_rows, {"SA": [20.0, 30.0], "BO-QSA": [10.0, 12.0]}, metric="mse_per_image")
    assert line.startswith("scenes mse_per_image: BO-QSA is first, 11.00 ± 1.41; SA follows")


def test_a_metric_without_a_better_end_and_a_method_without_scores_have_no_standing(make_rows: MakeRows) -> None:
    assert lines(make_rows, {"SA": [1.0], "BO-QSA": [2.0]}, metric="update_spectral_norm") == []
    assert lines(make_rows, {"SA": [1.0]}) == []
    rows = make_rows({"SA": [0.5], "BO-QSA": [0.6]})
    assert comparison_lines(rows, layout_of(rows)) == []
    assert claims(rows, layout_of(rows)) == []


def test_scores_of_another_size_are_not_compared_and_other_slots_are_told(make_rows: MakeRows) -> None:
    rows = [
        *make_rows({"BO-QSA": [0.6, 0.7]}),
        *make_rows({"SLATE": [0.9, 0.9]}, image_size=96, slots=12, masks="attention"),
        *make_rows({"SA": [0.5, 0.4]}, slots=12, masks="attention"),
    ]
    layout = layout_of(rows, first="BO-QSA")
    assert comparison_lines(rows, layout) == [
        "scenes ari_fg: BO-QSA is first, 0.650 ± 0.071; SA follows with 0.450 ± 0.071, over 2 and 2 seeds; "
        "SLATE is not compared (image size: 32 -> 96); SA has other slots and masks."
    ]
    assert [claim.other for claim in claims(rows, layout)] == ["SA"]


def test_a_claim_has_its_difference_and_the_seeds_it_needs(make_rows: MakeRows) -> None:
    cells = paper_cells(7)
    rows = make_rows({"SA": [0.5, 0.6, 0.7], "BO-QSA": [0.6, 0.7, 0.8]})
    (claim,) = claims(rows, layout_of(rows, cells, stand_ins={"scenes": "shapestacks"}, first="BO-QSA"), cells)
    assert (claim.other, claim.found.mean, claim.found.seeds) == ("SA", pytest.approx(0.1), (0, 1, 2))
    assert claim.seeds == 17  # one standard deviation: Cohen's d = 1
    assert claim.in_paper == pytest.approx(0.929 - 0.867)
    assert claim.seeds_in_paper is not None
    assert claim.seeds_in_paper > 17


def test_a_lower_error_is_a_claim_above_zero(make_rows: MakeRows) -> None:
    cells = paper_cells(3)
    rows = make_rows(
        {"Slot-Attention (mixture)": [20.0, 21.0, 20.5], "BO-QSA (mixture)": [8.0, 8.5, 8.8]},
        dataset="objectsroom",
        metric="mse_per_image",
    )
    (claim,) = claims(rows, layout_of(rows, cells, first="BO-QSA (mixture)"), cells)
    assert claim.found.mean == pytest.approx(20.5 - 25.3 / 3)
    assert claim.found.verdict == "seen"
    assert claim.in_paper == pytest.approx(0.75 * (20.4 - 8.1))


def test_the_selection_that_is_asked_counts(make_rows: MakeRows) -> None:
    rows = make_rows({"SA": [0.9, 0.9], "BO-QSA": [0.5, 0.6]}) + make_rows(
        {"SA": [0.1, 0.2], "BO-QSA": [0.5, 0.6]}, selection="best_ari_fg"
    )
    layout = layout_of(rows, first="BO-QSA")
    assert isinstance(layout, Layout)
    assert "SA is first" in comparison_lines(rows, layout)[0]
    assert "BO-QSA is first" in comparison_lines(rows, layout, way="labels")[0]
