"""The pages of results beside the rows they are written of."""

from pathlib import Path

import pytest

from boqsa.reproduce.items import build
from boqsa.reproduce.rows import read_rows
from boqsa.reproduce.scales import SMALL
from boqsa.reproduce.write_up import write_up

TABLES = sorted((Path(__file__).parents[2] / "results/small").glob("*.csv"))


@pytest.mark.parametrize("table", [pytest.param(table, id=table.stem) for table in TABLES])
def test_a_page_of_results_says_what_is_written_of_its_rows_today(table: Path) -> None:
    page = table.with_suffix(".md").read_text(encoding="utf-8")
    assert page == write_up(build(table.stem, SMALL), read_rows(table)), "write it anew from the rows, by `write_up`"
