"""The numbers of the paper: all of them, none changed, each doubt marked."""

import json
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from boqsa.data import CATALOG
from boqsa.errors import InputError
from boqsa.reproduce.paper import PaperCell, paper_cells, paper_dataset
from boqsa.training.results import HEADLINE

CELLS = {1: 32, 2: 36, 3: 8, 4: 72, 5: 69, 6: 4, 7: 24, 8: 24, 14: 48, 15: 24, 16: 8, 17: 12, 18: 4, 19: 72}
"""Numbers in each table: rows times columns, less the empty cells of Table 5 (19) and of Table 16 (4)."""
DOUBTFUL = {4: 1, 5: 3, 7: 2, 8: 16, 15: 6, 16: 2}

FindCell = Callable[[int, str, str, str], PaperCell]


def key(cell: PaperCell) -> tuple[int, str, str, str]:
    return cell.table, cell.dataset, cell.method, cell.metric


@pytest.fixture(scope="module")
def transcription(shared: Path) -> dict[tuple[int, str, str, str], dict[str, Any]]:
    """The transcription that paper.json was made from, read by nobody but this test."""
    path = shared / "paper" / "results.json"
    if not path.is_file():
        pytest.skip("the transcription of the paper's tables is not beside this checkout")
    cells = json.loads(path.read_text(encoding="utf-8"))
    return {(cell["table"], cell["dataset"], cell["method"], cell["metric"]): cell for cell in cells}


def test_every_table_has_all_its_cells_and_each_once(all_cells: list[PaperCell]) -> None:
    assert Counter(cell.table for cell in all_cells) == CELLS
    assert len(all_cells) == len({key(cell) for cell in all_cells}) == 437
    assert all(cell.table == table for table in CELLS for cell in paper_cells(table))


def test_no_number_differs_from_the_transcription(
    transcription: dict[Any, dict[str, Any]], all_cells: list[PaperCell]
) -> None:
    ours = {key(cell): cell for cell in all_cells}
    assert ours.keys() == transcription.keys()
    fields = ("value", "spread", "spread_kind", "unit", "higher_is_better", "doubtful")
    differing = [
        (name, field)
        for name, cell in ours.items()
        for field in fields
        if getattr(cell, field) != transcription[name][field]
    ]
    assert differing == []
    assert list(ours) == list(transcription)  # in the printed order
    assert {name for name, cell in ours.items() if cell.note} <= {
        name for name, cell in transcription.items() if cell["note"]
    }


def test_the_precision_is_the_printed_one(shared: Path, all_cells: list[PaperCell], find_cell: FindCell) -> None:
    text = (shared / "paper" / "results.md").read_text(encoding="utf-8")
    for cell in all_cells:
        assert cell.printed in text
    assert find_cell(1, "shapestacks", "MONet-G", "ari_fg").printed == "0.70 ± 0.04"
    assert find_cell(2, "clevrtex_full", "MONet", "mse").printed == "146 ± 7"
    assert find_cell(15, "birds->cars", "I-SA", "iou").printed == "69.90"


def test_every_doubtful_cell_says_why(all_cells: list[PaperCell]) -> None:
    doubtful = [cell for cell in all_cells if cell.doubtful]
    assert Counter(cell.table for cell in doubtful) == DOUBTFUL
    assert all(cell.note for cell in doubtful)
    assert {key(cell)[1:] for cell in doubtful if cell.table == 7} == {
        ("dogs", "QSA", "dice"),
        ("dogs", "I-QSA", "dice"),
    }


def test_every_remark_is_used_and_known() -> None:
    content = json.loads((files("boqsa.reproduce") / "paper.json").read_text(encoding="utf-8"))
    used = {name for table in content["tables"] for cell in table["cells"] for name in cell[5:]}
    assert used == content["doubts"].keys() | content["notes"].keys()
    assert not content["doubts"].keys() & content["notes"].keys()


def test_names_are_those_of_our_catalog_and_our_metrics(all_cells: list[PaperCell]) -> None:
    datasets = {name for cell in all_cells for name in cell.dataset.split("->")}
    assert datasets <= CATALOG.keys()
    only_theirs = {"iou_gain", "dice_gain", "lpips", "ssim", "psnr"}
    assert {cell.our_metric for cell in all_cells} - only_theirs <= {*HEADLINE, "mse_per_image"}


@pytest.mark.parametrize(
    ("cell", "metric", "value", "spread", "decimals"),
    [
        ((1, "shapestacks", "BO-QSA (mixture)", "ari_fg"), "ari_fg", 0.93, 0.01, 2),
        ((2, "clevrtex_full", "BO-QSA (mixture)", "ari_fg"), "ari_fg", 0.8047, 0.0249, 4),
        ((7, "dogs", "BO-QSA", "iou"), "iou", 0.825, None, 3),
        ((16, "dogs", "I-QSA (7 training iterations)", "iou_gain"), "iou_gain", 0.358, None, 3),
        ((19, "room_chair", "uORF (600 epochs)", "ari"), "ari", 0.394, None, 3),
        ((19, "room_chair", "uORF (600 epochs)", "psnr"), "psnr", 25.08, None, 2),
        # Squared errors: 4/3 of the sum over channels and pixels in the authors' mixture code, else the sum itself.
        ((2, "clevrtex_full", "BO-QSA (mixture)", "mse"), "mse_per_image", 201.0, 1.5, 0),
        ((2, "clevrtex_full", "MONet", "mse"), "mse_per_image", 146.0, 7.0, 0),
        ((2, "clevrtex_camo", "Slot-Attention", "mse"), "mse_per_image", 215.0, 7.0, 0),
        ((3, "objectsroom", "BO-QSA (mixture)", "mse"), "mse_per_image", 6.075, None, 1),
        ((3, "objectsroom", "Slot-Attention (mixture)", "mse"), "mse_per_image", 15.3, None, 1),
        ((3, "objectsroom", "BO-QSA (transformer)", "mse"), "mse_per_image", 14.7, None, 1),
    ],
)
def test_units(
    find_cell: FindCell, cell: tuple[Any, ...], metric: str, value: float, spread: float | None, decimals: int
) -> None:
    assert find_cell(*cell).in_our_units()[:4] == (metric, value, spread, decimals)


def test_scores_become_fractions_and_the_printed_value_stays(all_cells: list[PaperCell]) -> None:
    for cell in all_cells:
        ours = cell.in_our_units()
        if cell.our_metric in HEADLINE:
            assert 0 <= ours.value <= 1
        assert bool(ours.conversion) == (ours.value != cell.value) or cell.value == 0
        if cell.unit == "percent":
            assert f"{ours.value * 100:.{cell.decimals}f}" == f"{cell.value:.{cell.decimals}f}"


def test_the_unit_and_the_note_of_a_number_are_beside_it(find_cell: FindCell) -> None:
    cell = find_cell(3, "shapestacks", "SLATE (transformer)", "mse")
    assert (cell.value, cell.unit, cell.our_metric) == (52.3, "squared_error_sum", "mse_per_image")
    assert "96 pixels" in cell.note


def test_a_table_without_results_is_refused() -> None:
    with pytest.raises(InputError, match="no results in a Table 9; those with results are 1, 2, 3"):
        paper_cells(9)


def test_a_transfer_has_the_papers_name() -> None:
    assert paper_dataset("cars", "test_iterations=5;trained_on=dogs") == "dogs->cars"
    assert paper_dataset("cars", "test_iterations=5") == "cars"
