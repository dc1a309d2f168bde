"""The fields for names on the page of concepts, typed into in a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest

from boqsa.errors import InputError
from boqsa.inference.names import checked_names, names_from_file
from boqsa.reports.naming import name_field, naming_bar

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.system


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    file = tmp_path / "concepts.html"
    fields = "".join(name_field(slot, {1: "petal"}, "a name") for slot in range(3))
    heading = '<h2 data-name-of="0"></h2>'
    file.write_text(
        f"<!doctype html><meta charset=utf-8>{heading}{fields}{naming_bar('my runs/one', 3)}", encoding="utf-8"
    )
    page = browser.new_page()
    page.goto(file.as_uri())
    return page


def field(page: Any, slot: int) -> Any:
    return page.locator(f'input[data-slot="{slot}"]')


def test_what_is_typed_becomes_a_command(page: Any) -> None:
    sync_api.expect(page.locator("#named")).to_have_text("1 of 3 slots named")
    sync_api.expect(page.locator("#command")).to_be_hidden()
    sync_api.expect(page.locator("#copy")).to_be_disabled()
    field(page, 0).fill("  the sky's   blue ")
    sync_api.expect(page.locator("#named")).to_have_text("2 of 3 slots named")
    sync_api.expect(page.locator("h2")).to_have_text("the sky's blue")
    sync_api.expect(page.locator("#command")).to_have_text(r"boqsa concepts 'my runs/one' --name '0=the sky'\''s blue'")
    field(page, 1).fill("")
    sync_api.expect(page.locator("#command")).to_contain_text("--name '1='")
    sync_api.expect(page.locator("#copy")).to_be_enabled()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("-x", "begins with a letter or a digit"),
        ("a:b", "no colon"),
        ("Outside", "outside the crop"),
        ("slot 2", "a slot without a name"),
        ("PETAL", "slot 1 has this name too"),
    ],
)
def test_what_the_command_would_refuse_is_said_at_once(page: Any, name: str, said: str) -> None:
    field(page, 0).fill(name)
    sync_api.expect(page.locator("#said")).to_contain_text(said)
    sync_api.expect(field(page, 0)).to_have_attribute("aria-invalid", "true")
    for button in ("#copy", "#download"):
        sync_api.expect(page.locator(button)).to_be_disabled()
    with pytest.raises(InputError):
        checked_names({0: name, 1: "petal"}, 3)
    field(page, 0).fill("slot 0")  # what it is called anyway
    sync_api.expect(page.locator("#copy")).to_be_enabled()


def test_the_file_that_is_downloaded_is_read_by_the_command(page: Any, tmp_path: Path) -> None:
    field(page, 2).fill("dark ground")
    field(page, 1).fill("")
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "names.json"
    file = tmp_path / "names.json"
    download.value.save_as(file)
    assert json.loads(file.read_text(encoding="utf-8")) == {"2": "dark ground"}
    assert names_from_file(file) == {2: "dark ground"}
    sync_api.expect(page.locator("#said")).to_contain_text("--names names.json --name 1= stores it")
