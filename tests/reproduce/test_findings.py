"""Sentences under tables: pairs, interaction, shares kept; each against numbers made up for it."""

from collections.abc import Callable

from boqsa.reproduce.experiment import Experiment
from boqsa.reproduce.findings import finding_lines, pairs_table
from boqsa.reproduce.layout import layout_of
from boqsa.reproduce.rows import Row

Make = Callable[..., list[Row]]


def experiment(**fields: object) -> Experiment:
    return Experiment(item="table7", title="made up", arms=(), **fields)  # type: ignore[arg-type]


def test_a_pair_is_told_with_its_interval_and_verdict(make_rows: Make) -> None:
    rows = make_rows({"A": [0.50, 0.52, 0.51], "B": [0.40, 0.43, 0.41]})
    _, _, line = pairs_table([("A", "B"), ("A", "C")], rows, layout_of(rows)).strip().split("\n")
    assert line == "| A | B | scenes ari_fg | +0.097 | +0.082 to +0.111 | 3 paired | seen | 2 |"
    turned = pairs_table([("B", "A")], rows, layout_of(rows))
    assert "| B | A | scenes ari_fg | -0.097 | -0.111 to -0.082 | 3 paired | not seen |" in turned
    assert not pairs_table([("A", "C")], rows, layout_of(rows))


def test_scores_of_two_protocols_are_not_compared(make_rows: Make) -> None:
    methods = ["SA", "I-SA", "BO-SA", "QSA", "I-QSA", "BO-QSA"]
    rows = [
        row
        for condition in ("test_iterations=1", "test_iterations=3")
        for row in make_rows({method: [0.5, 0.6] for method in methods[:-1]}, condition=condition)
        + make_rows({"BO-QSA": [0.7, 0.8]}, condition=condition, images=17)
    ]
    layout = layout_of(rows)
    table = pairs_table([("BO-QSA", "SA"), ("QSA", "SA")], rows, layout)
    refused, told = (line for line in table.split("\n") if "(test_iterations=1)" in line)
    assert "not compared (images: 17 -> 1000)" in refused
    assert "+0.2" not in refused
    assert "+0.000" in told
    found = " ".join(finding_lines(experiment(is_grid=True), rows, layout))
    assert "the interaction is not told, as protocols differ (images: 1000 -> 17)" in found
    assert "What is kept of scenes ari_fg is not told" in found
    assert "gain more" not in found
    assert "BO-QSA keeps" not in found


def test_lower_errors_are_better(make_rows: Make) -> None:
    rows = make_rows({"A": [0.10, 0.11, 0.10], "B": [0.30, 0.31, 0.30]}, metric="mse")
    assert "| +0.200 |" in pairs_table([("A", "B")], rows, layout_of(rows))


def test_the_interaction_is_what_bilevel_gains_on_queries_less_what_it_gains_on_samples(make_rows: Make) -> None:
    rows = make_rows(
        {
            "SA": [0.5, 0.51],
            "I-SA": [0.0, 0.0],
            "BO-SA": [0.6, 0.60],
            "QSA": [0.3, 0.31],
            "I-QSA": [0.0, 0.0],
            "BO-QSA": [0.9, 0.92],
        }
    )
    unrolled, implicit = finding_lines(experiment(is_grid=True), rows, layout_of(rows))
    assert "+0.510" in unrolled  # (0.91 - 0.305) - (0.60 - 0.505)
    assert "in place of implicit ones" in implicit
    assert "+0.310" in implicit  # (0.91 - 0) - (0.60 - 0)
    without_one = [row for row in rows if row.method != "I-QSA"]
    assert not finding_lines(experiment(is_grid=True), without_one, layout_of(without_one))


def test_shares_are_ratios_of_means_and_their_difference_goes_seed_by_seed(make_rows: Make) -> None:
    rows = [
        *make_rows({"SA": [0.2, 0.3], "BO-QSA": [0.7, 0.8]}, condition="test_iterations=1"),
        *make_rows({"SA": [0.4, 0.5], "BO-QSA": [0.8, 0.8]}, condition="test_iterations=3"),
        *make_rows({"SA": [0.4, 0.4]}, condition="test_iterations=7"),
    ]
    one, seven, apart = finding_lines(experiment(), rows, layout_of(rows))
    assert one.endswith("is kept at 1: SA 56%, BO-QSA 94%.")  # 0.25 / 0.45, 0.75 / 0.8
    assert seven.endswith("is kept at 7: SA 89%.")
    assert "BO-QSA keeps more than SA at 1 iteration by +0.39" in apart  # mean of 0.875 - 0.5 and 1 - 0.6
