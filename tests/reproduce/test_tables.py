"""Our numbers beside the paper's, and what must be said of them."""

import re
from collections.abc import Callable

import pytest

from boqsa.errors import InputError
from boqsa.reproduce.layout import layout_of
from boqsa.reproduce.paper import paper_cells
from boqsa.reproduce.protocol import paper_protocol
from boqsa.reproduce.rows import Row
from boqsa.reproduce.tables import NOTHING, markdown_table

MakeRows = Callable[..., list[Row]]


def table_of(text: str, heading: str) -> dict[str, list[str]]:
    """The column under a heading and those to its right, by method: of the first table that has it."""
    lines = text.splitlines()
    at = next(at for at, line in enumerate(lines) if f"| {heading} |" in line)
    headings = lines[at].strip("| ").split(" | ")
    found = {}
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
        assert len(cells) == len(headings)
        found[cells[0]] = cells[headings.index(heading) :]
    return found


def on_the_papers_data(
    make_rows: MakeRows, table: int, dataset: str, method: str, metric: str, values: list[float]
) -> list[Row]:
    names = {(cell.dataset, cell.method, cell.our_metric): cell for cell in paper_cells(table)}
    protocol = paper_protocol(names[dataset, method, metric])
    parts = {"image_size": protocol.image_size, "slots": protocol.slots, "masks": protocol.masks}
    return make_rows(
        {method: values}, dataset=dataset, metric=metric, images=protocol.images or 900, split=protocol.split, **parts
    )


@pytest.mark.parametrize("table", [*range(1, 9), *range(14, 20)])
def test_every_number_of_the_paper_is_there_and_every_doubt_is_marked(table: int) -> None:
    cells = paper_cells(table)
    text = markdown_table(f"Table {table}", [], layout_of([], cells), cells)
    numbers = [
        text for line in text.splitlines() if re.match(r"\| (?!method|---)", line) for text in line.split(" | ")[1:]
    ]
    numbers = [text.removesuffix(" |") for text in numbers]
    assert sum(text != NOTHING for text in numbers) == len(cells)
    assert sum("(?)" in text for text in numbers) == sum(cell.doubtful for cell in cells)
    for cell in cells:
        assert not cell.doubtful or f"- (?) {cell.note}" in text
    shown = sorted(re.sub(r" ±.*| \(\?\)", "", text) for text in numbers if text != NOTHING)
    assert shown == sorted(f"{cell.in_our_units().value:.{cell.in_our_units().decimals}f}" for cell in cells)


def test_methods_stand_in_the_papers_order_and_ours_after_them(make_rows: MakeRows) -> None:
    cells = paper_cells(7)
    rows = make_rows({"k-means": [0.3], "BO-QSA": [0.8], "SA": [0.5]})
    text = markdown_table("Table 7", rows, layout_of(rows, cells, stand_ins={"scenes": "shapestacks"}), cells)
    found = table_of(text, "scenes ari_fg ↑")
    assert list(found) == ["SA", "I-SA", "BO-SA", "QSA", "I-QSA", "BO-QSA", "k-means"]
    assert found["SA"][:2] == ["0.500 (1)", "0.867"]
    assert found["QSA"][:2] == [NOTHING, "0.881"]
    assert found["k-means"][:2] == ["0.300 (1)", NOTHING]


def test_a_stand_in_has_no_difference_and_the_reason_is_told(make_rows: MakeRows) -> None:
    cells = paper_cells(7)
    rows = make_rows({"BO-QSA": [0.8, 0.82, 0.81], "SA": [0.5, 0.6, 0.4]})
    text = markdown_table("Table 7", rows, layout_of(rows, cells, stand_ins={"scenes": "shapestacks"}), cells)
    assert "| scenes ari_fg ↑ | paper, shapestacks |" in text
    assert "| difference" not in text
    assert (
        "- No difference to the paper, ours -> paper: data: scenes -> shapestacks; image size: 32 -> 128; slots: 5 "
        "-> 8 (SA, BO-QSA: scenes ari_fg)." in text
    )


def test_on_the_papers_protocol_there_is_a_difference_and_what_is_not_stated_is_told(make_rows: MakeRows) -> None:
    cells = paper_cells(1)
    rows = on_the_papers_data(make_rows, 1, "objectsroom", "BO-QSA (mixture)", "ari_fg", [0.80, 0.82, 0.84])
    text = markdown_table("Table 1", rows, layout_of(rows, cells), cells)
    found = table_of(text, "objectsroom ari_fg ↑")["BO-QSA (mixture)"]
    assert found[:3] == ["0.820 ± 0.020 (3)", "0.87 ± 0.03", "-0.050"]
    assert "- Not stated in the paper, so not compared: variant (BO-QSA (mixture): objectsroom ari_fg)." in text
    assert "what its caption calls variance over 3 trials" in text
    fewer = [row._replace(protocol=row.protocol.replace("images=10000", "images=320")) for row in rows]
    text = markdown_table("Table 1", fewer, layout_of(fewer, cells), cells)
    assert "| difference" not in text
    assert "ours -> paper: images: 320 -> 10000 (BO-QSA (mixture): objectsroom ari_fg)" in text


def test_slate_at_another_size_than_the_papers_is_not_compared(make_rows: MakeRows) -> None:
    cells = paper_cells(3)
    rows = on_the_papers_data(make_rows, 3, "shapestacks", "SLATE (transformer)", "mse_per_image", [50.0])
    assert table_of(markdown_table("Table 3", rows, layout_of(rows, cells), cells), "shapestacks mse_per_image ↓")[
        "SLATE (transformer)"
    ][:3] == ["50.00 (1)", "52.3", "-2.30"]
    larger = [row._replace(protocol=row.protocol.replace("image_size=96", "image_size=128")) for row in rows]
    text = markdown_table("Table 3", larger, layout_of(larger, cells), cells)
    assert "image size: 128 -> 96" in text
    assert "| difference" not in text


def test_the_best_run_stands_beside_the_best_seed(make_rows: MakeRows) -> None:
    cells = paper_cells(6)
    rows = on_the_papers_data(make_rows, 6, "birds", "BO-QSA (transformer)", "iou", [0.60, 0.70, 0.65])
    text = markdown_table("Table 6", rows, layout_of(rows, cells), cells)
    found = table_of(text, "birds iou ↑")["BO-QSA (transformer)"]
    assert found[:3] == ["0.650 ± 0.050 (3), best 0.700", "0.710", "-0.010"]
    assert "our best seed minus" in text


def test_squared_errors_are_converted_and_the_printed_number_is_told(make_rows: MakeRows) -> None:
    cells = paper_cells(3)
    text = markdown_table("Table 3", [], layout_of([], cells), cells)
    assert table_of(text, "shapestacks mse_per_image ↓")["BO-QSA (mixture)"][1] == "54.0"
    assert "BO-QSA (mixture): shapestacks mse, printed 72.0" in text


def test_each_way_to_choose_has_a_table(make_rows: MakeRows) -> None:
    rows = [
        *make_rows({"SA": [0.5]}, selection="best_ari_fg"),
        *make_rows({"SA": [0.4]}, selection="best_loss"),
        *make_rows({"SA": [0.3]}),
    ]
    text = markdown_table("Scenes", rows, layout_of(rows))
    captions = [line for line in text.splitlines() if line.startswith("**")]
    assert [re.match(r"\*\*(.*?)\.\*\*", line)[1] for line in captions] == [  # type: ignore[index]
        "Scenes, checkpoint `last`",
        "Scenes, checkpoint `best_loss`, chosen without labels",
        "Scenes, checkpoint `best_<metric>`, chosen with labels of the validation split",
    ]
    assert re.findall(r"0\.\d00 \(1\)", text) == ["0.300 (1)", "0.400 (1)", "0.500 (1)"]
    assert "paper" not in text


def test_claims_have_their_verdict_and_their_seeds(make_rows: MakeRows) -> None:
    cells = paper_cells(7)
    # Differences 0.10, 0.11, 0.08: mean 0.096667, std 0.0152753, margin 4.302653 * 0.0152753 / sqrt(3) = 0.037946.
    rows = make_rows({"SA": [0.70, 0.71, 0.73], "QSA": [0.3], "BO-QSA": [0.80, 0.82, 0.81]})
    layout = layout_of(rows, cells, stand_ins={"scenes": "shapestacks"}, first="BO-QSA")
    text = markdown_table("Table 7", rows, layout, cells, notes=["Made up."])
    assert "- scenes ari_fg: BO-QSA is first, 0.810 ± 0.010; SA follows with 0.713 ± 0.015, over 3 and 3 seeds." in text
    found = table_of(text, "better than")
    # Seeds by hand: 1.72 (n - 1) degrees of freedom. At n = 2 the quantiles are about 5.0 and 1.1, so 37 * 0.000333
    # / 0.0967^2 = 1.3 of the 2 are needed; for 0.062 it is 3.2 there, and at n = 3 (2.96 + 0.96)^2 ... = 1.3.
    assert found["SA"][1:] == ["scenes ari_fg", "+0.097", "+0.059 to +0.135", "3 paired", "seen", "2", "+0.062", "3"]
    assert found["QSA"][1:] == ["scenes ari_fg", "+0.510", NOTHING, "3 and 1", "undecided", NOTHING, "+0.048", NOTHING]
    assert text.endswith("- Made up.\n")


def test_wide_items_are_cut_between_data_sets(make_rows: MakeRows) -> None:
    cells = paper_cells(4)
    text = markdown_table("Table 4", [], layout_of([], cells), cells)
    headings = [line for line in text.splitlines() if line.startswith("| method")]
    assert [heading.split(" | ")[1] for heading in headings] == ["ycb ap ↑", "scannet ap ↑", "coco ap ↑"]
    assert all(heading.count("paper") == 4 for heading in headings)


def test_rows_of_two_protocols_are_refused(make_rows: MakeRows) -> None:
    rows = make_rows({"SA": [0.5]}) + [row._replace(seed=1) for row in make_rows({"SA": [0.5]}, variant="other")]
    with pytest.raises(InputError, match=r"two protocols \(variant: a1b2c3d4 -> other\)"):
        markdown_table("Scenes", rows, layout_of(rows))
