"""The page clicked through in a real browser: the system's Chromium, where there is one."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boqsa.app.serve import serving

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.system
PATIENCE = 60_000  # milliseconds; the machine may be busy


@pytest.fixture(scope="module")
def page(browser: Any) -> Iterator["sync_api.Page"]:
    with serving() as address:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE)
        sync_api.expect.set_options(timeout=PATIENCE)
        strangers: list[str] = []
        page.on("request", lambda request: strangers.append(request.url) if not _is_own(request.url, address) else None)
        page.goto(address)
        page.locator("button.gallery-item:visible").nth(5).click()  # four objects and a room
        sync_api.expect(page.locator("#pieces .gallery-item")).to_have_count(5)
        yield page
        assert not strangers


def _is_own(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def test_slots_are_laid_over_the_picture(page):
    sync_api.expect(page.locator("#overlay img.mask")).to_have_count(5)
    sync_api.expect(page.locator("#painted .gallery-item")).to_have_count(6)


def test_a_slot_is_switched_off_and_on(page):
    box = page.locator("#shown-slots input").nth(1)
    box.uncheck()
    sync_api.expect(page.locator("#overlay img.mask")).to_have_count(4)
    box.check()
    sync_api.expect(page.locator("#overlay img.mask")).to_have_count(5)


def test_files_are_offered(page):
    page.get_by_role("button", name="Make files to download").click()
    for end in ("_labels.png", "_overlay.png", ".npz"):
        sync_api.expect(page.locator(f'a[download$="{end}"]').first).to_be_visible()
    with page.expect_download() as download:
        page.locator('a[download$="_labels.png"]').first.click()
    labels = np.asarray(Image.open(download.value.path()))
    assert labels.shape == (256, 256)
    assert set(np.unique(labels)) == set(range(5))


def test_the_other_files_hold_what_they_should(page):
    with page.expect_download() as overlay:
        page.locator('a[download$="_overlay.png"]').first.click()
    with Image.open(overlay.value.path()) as picture:
        assert (picture.mode, picture.size) == ("RGB", (256, 256))
    with page.expect_download() as arrays:
        page.locator('a[download$=".npz"]').first.click()
    with np.load(arrays.value.path()) as found:
        assert {"labels", "masks", "slots"} <= set(found)


def test_a_picture_is_uploaded_and_sliders_and_box_change_what_is_shown(page, tmp_path):
    pieces = page.locator("#pieces .gallery-item")
    pixels = np.full((64, 64, 3), 200, np.uint8)
    pixels[24:40, 24:40] = (180, 20, 20)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    page.get_by_role("button", name="Remove Image").first.click()
    sync_api.expect(page.locator("#overlay img")).to_have_count(0)
    page.locator("input[type=file]").first.set_input_files(tmp_path / "mine.png")
    sync_api.expect(pieces).to_have_count(2)
    rounds = page.get_by_label("number input for Iterations")
    for count, key, expected in (("1", "Tab", 5), ("5", "Enter", 2)):
        rounds.fill(count)
        rounds.press(key)
        sync_api.expect(pieces).to_have_count(expected)
    page.locator("button.gallery-item:visible").nth(4).click()  # three objects
    sync_api.expect(pieces).to_have_count(5)
    box = page.get_by_label("Leave out slots that the picture does not need")
    box.check()
    sync_api.expect(pieces).to_have_count(4)
    box.uncheck()
    page.locator("button.gallery-item:visible").nth(5).click()
    sync_api.expect(pieces).to_have_count(5)


def test_slots_can_be_watched(page):
    page.get_by_text("Watch the slots settle").click()
    page.get_by_role("button", name="Show every iteration").click()
    sync_api.expect(page.locator("#film .gallery-item")).to_have_count(10)


def test_a_slot_is_taken_away_and_one_exchanged(page):
    page.get_by_role("tab", name="Edit").click()
    pictures = page.locator("#edited .gallery-item img")
    sync_api.expect(pictures).to_have_count(2)
    before, unedited = (_pixels(page, pictures.nth(index)) for index in (0, 1))
    np.testing.assert_array_equal(before, unedited)
    source = pictures.nth(1).get_attribute("src")
    page.locator("#removed input").nth(1).check()
    sync_api.expect(pictures.nth(1)).not_to_have_attribute("src", source)
    assert (_pixels(page, pictures.nth(1)) != before).any()
    page.locator("button.gallery-item:visible").nth(6).click()  # of the other picture
    sync_api.expect(pictures).to_have_count(4)
    source = pictures.nth(3).get_attribute("src")
    page.locator("#mine input").click()
    page.get_by_role("option", name="slot 3").click()
    sync_api.expect(pictures.nth(3)).not_to_have_attribute("src", source)
    assert (_pixels(page, pictures.nth(2)) != _pixels(page, pictures.nth(3))).any()
    page.get_by_role("tab", name="Look").click()


def test_a_phone_shows_the_page_whole(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for tab, gallery in (("Edit", "#edited"), ("Look", "#painted")):
        page.get_by_role("tab", name=tab).click()
        sync_api.expect(page.locator(f"{gallery} .gallery-item").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        cut_off = (
            "labels => labels.filter(label => label.scrollWidth > label.clientWidth).map(label => label.innerText)"
        )
        assert page.locator(f"{gallery} .caption-label").evaluate_all(cut_off) == []
    page.set_viewport_size({"width": 1400, "height": 1000})


def test_what_is_no_picture_is_said_and_clears_the_page(page, tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("not a picture")
    page.get_by_role("button", name="Remove Image").first.click()
    sync_api.expect(page.locator("#overlay img")).to_have_count(0)
    page.locator("input[type=file]").first.set_input_files(file)
    sync_api.expect(page.get_by_text("notes.png is not a picture")).to_be_visible()
    sync_api.expect(page.locator("#overlay img")).to_have_count(0)


def _pixels(page: "sync_api.Page", picture: "sync_api.Locator") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.request.get(picture.get_attribute("src")).body())).convert("RGB"))
