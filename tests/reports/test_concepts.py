"""The page of concepts: well-formed, whole in one file, with what it was given, and safe with any name."""

import json
import re
from collections.abc import Callable
from typing import Any

from PIL import Image

from boqsa.reports.concepts import RegionPictures, concepts_html, percent

NAN = float("nan")
ReadPage = Callable[[str], Any]


def slot(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "slot": number,
        "images": 40,
        "area": 0.123,
        "confidence": 0.876,
        "border": 0.02,
        "is_background": False,
        "mean_mask_most": 0.54,
        "place": "bottom left",
        "pixels": {"pixel_colour": [0, 3, 1, 0, 0, 0, 0]},
        "on_objects": 30,
        "iou": 0.61,
        "attributes": {"kind": [24, 6, 0]},
        "notable": [{"attribute": "kind", "label": 0, "share": 0.8, "of_all": 0.4}],
        "neighbours": [{"slot": 1 - number, "similarity": 0.71}],
        "strongest": [{"image": 5, "slot": number, "value": 0.93, "name": "<b>five</b>.jpg"}],
        "spread": [],
        "nearest": [{"image": 6, "slot": 1 - number, "value": 0.44}],
        **changed,
    }


NEVER = {
    "images": 0,
    "place": "",
    "area": NAN,
    "confidence": NAN,
    "on_objects": 0,
    "iou": NAN,
    **{name: [] for name in ("notable", "neighbours", "strongest", "spread", "nearest")},
}


def page_text(names: dict[int, str] | None = None, *, slots: list[dict[str, Any]] | None = None, **changed: Any) -> str:
    found = {
        "run": "my runs/one",
        "recipe": "tiny",
        "seed": 3,
        "checkpoint": "last",
        "step": 6000,
        "dataset": {"name": "scenes", "split": "test"},
        "warning": "",
        "command": "boqsa concepts 'my runs/one'",
        "numbers": "concepts.json",
        "images": 50,
        "objects": 100,
        "information": {"kind": 0.25},
        "classes": {"kind": ["sphere", "box", "cylinder"], "pixel_colour": [*"abcdefg"]},
        "attributes": {"kind": [40, 30, 30]},
        "pixels": {"pixel_colour": [5, 3, 2, 0, 0, 0, 0]},
        "slots": slots or [slot(0), slot(1)],
        **changed,
    }
    tile = Image.new("RGB", (8, 8), "red")
    pictures = {(image, number): RegionPictures(tile, tile) for image in (5, 6) for number in (0, 1)}
    return concepts_html(found, names=names or {}, mean_masks=[tile, tile], regions=pictures)


def test_it_shows_what_it_was_given(read_page: ReadPage) -> None:
    page = read_page(page_text({1: "petal"}))
    for shown in ("80% (40 of 50)", "12%", "0.88", "75% of its regions, IoU 0.61", "sphere", "80%, all 40%", "0.93"):
        assert shown in page.text, shown
    assert "kind 0.25" in page.text
    assert "petal 0.71" in page.text, "a neighbour goes by its name"
    assert "Stands out" in page.text
    fields = page.attributes("input")
    assert [(field["data-slot"], field["value"]) for field in fields] == [("0", ""), ("1", "petal")]
    assert fields[0]["placeholder"] == "sphere?"
    assert "bottom left" in page.text
    nothing_stands_out = read_page(page_text(slots=[slot(0, notable=[]), slot(1)]))
    assert nothing_stands_out.attributes("input")[0]["placeholder"] == "bottom left?"
    in_the_middle = read_page(page_text(slots=[slot(0, notable=[], place="centre"), slot(1)]))
    assert in_the_middle.attributes("input")[0]["placeholder"] == "a name"


def test_shares_stand_beside_those_of_the_whole_set_with_counts() -> None:
    rows = re.findall(r"<tr><th scope=\"row\">(sphere|box|cylinder)</th>.*?</tr>", page_text())
    assert rows[:3] == ["sphere", "box", "cylinder"]
    row = next(re.finditer(r"<tr><th scope=\"row\">box</th>.*?</tr>", page_text()))[0]
    assert re.findall(r"<td>(.*?)</td>", row) == ["20%", "30%", "6"]
    assert "width:20.0%" in row
    assert "left:30.0%" in row


def test_it_is_one_file_without_a_network(read_page: ReadPage) -> None:
    text = page_text()
    page = read_page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "srcset"):
            target = attributes.get(name) or ""
            assert target.startswith(("data:image/png;base64,", "#")) or not target, (tag, target)
    assert "url(" not in text
    assert "http" not in text
    assert "fetch" not in text
    assert len(page.attributes("script")) == 1


def test_links_lead_somewhere(read_page: ReadPage) -> None:
    page = read_page(page_text())
    ids = {attributes.get("id") for _, attributes in page.elements}
    targets = {attributes["href"][1:] for attributes in page.attributes("a") if attributes["href"]}
    assert targets == {"slot0", "slot1"}
    assert targets <= ids


def test_names_are_text_whatever_they_hold(read_page: ReadPage) -> None:
    name = '"><script>alert(1)</script>&amp;'
    page = read_page(page_text({0: name}, run="it's <i>here</i>"))
    assert len(page.attributes("script")) == 1
    assert page.attributes("input")[0]["value"] == name
    assert page.attributes("aside")[0]["data-run"] == "'it'\"'\"'s <i>here</i>'"
    assert not page.attributes("i") or all("style" in attributes for attributes in page.attributes("i"))
    titles = {attributes.get("title") for attributes in page.attributes("figure")}
    assert "image 5, <b>five</b>.jpg" in titles


def test_a_slot_without_regions_and_missing_numbers_are_no_trouble(read_page: ReadPage) -> None:
    """Also as they come back from JSON, which has no NaN."""
    never = slot(1, attributes={}, **NEVER)
    bare = slot(0, attributes={}, notable=[])
    for slots in ([bare, never], json.loads(json.dumps([bare, never]).replace("NaN", "null"))):
        page = read_page(page_text(slots=slots, objects=0, information={}, attributes={}))
        assert "It owns no region in any of the 50 images." in page.text
        assert "nan" not in page.text.lower()
        assert len(page.attributes("input")) == 2, "it can be named all the same"


def test_the_background_s_slot_and_a_warning_are_told(read_page: ReadPage) -> None:
    page = read_page(page_text(slots=[slot(0, is_background=True, border=0.5), slot(1)], warning="Drawn by `chance`."))
    assert "50%, so background" in page.text
    assert page.attributes("input")[0]["placeholder"] == "background?"
    assert "Drawn by chance." in page.text
    assert "Drawn by" not in read_page(page_text()).text


def test_percent_is_never_a_false_nothing() -> None:
    shown = [percent(share) for share in (0, 0.004, 0.005, 0.006, 0.5, 1, NAN, None)]
    assert shown == ["0%", "<1%", "<1%", "1%", "50%", "100%", "", ""]
