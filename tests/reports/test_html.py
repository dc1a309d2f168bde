import base64
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from boqsa.errors import InputError
from boqsa.reports import report_html, write_report

ReadPage = Callable[[str], Any]
MakePage = Callable[..., Any]


def scores(**changed: float) -> dict[str, Any]:
    return {
        "ari": 0.7421,
        "ari_fg": 0.8734,
        "msc_fg": 0.7312,
        "background_in_two_slots": 0.9631,
        "images": 512,
        "left_out": {"ari_fg": 3},
        **changed,
    }


METRICS: dict[str, Any] = {
    "ari": 0.7421,
    "ari_fg": 0.8734,
    "msc_fg": 0.7312,
    "recipe": "demo",
    "recipe_hash": "0a1b2c3d4e5f",
    "seed": 7,
    "dataset": {"name": "scenes", "split": "test", "images": 512, "fingerprint": "9f3c"},
    "scores": {
        "last": {
            "decoder_masks": scores(),
            "attention_masks": scores(ari_fg=0.8111, msc_fg=math.nan),
            "reconstruction": {"mse": 0.00312, "mse_per_image": 9.58, "mse_published": 12.8},
        },
        "best_loss": {"decoder_masks": scores(ari_fg=0.6543)},
    },
    "baselines": {"k_means": {"ari_fg": 0.4123, "what": "Colour and position."}},
    "training": {"steps": 8000, "seconds": 512.3, "images_per_second": 249.8},
    "machine": {"torch": "2.13.0", "threads": 2},
    "command": "boqsa demo --seed 7",
}
LOG: list[dict[str, Any]] = [
    {"event": "step", "step": 50, "loss": 300.5, "learning_rate": 1e-3, "sigma": 1.0},
    {"event": "step", "step": 100, "loss": 20.25, "learning_rate": 2e-3, "sigma": 0.5},
    {"event": "evaluation", "step": 100, "loss": 21.0, "ari_fg": 0.5, "msc_fg": 0.4},
    {"event": "diagnostics", "step": 50, "verdict": "flat", "warnings": ["An old warning."]},
    {
        "event": "diagnostics",
        "step": 100,
        "slot_use_entropy": 0.715,
        "dead_slots": 1,
        "mask_area": [0.25, 0.75],
        "position_information": 0.083,
        "background_slots": None,
        "verdict": "healthy",
        "warnings": ["Try `model.num-slots 4`."],
    },
]


@pytest.fixture
def page(read_page: ReadPage) -> MakePage:
    """`page(log=[])` is the report of the run above with what is changed."""

    def make(**changed: Any) -> Any:
        arguments = {
            "recipe_json": '{"name": "demo"}',
            "metrics": METRICS,
            "log": LOG,
            "pictures": {"segmentation": Image.new("RGB", (20, 10), "red")},
            "next_steps": ["Run `boqsa segment`."],
        }
        return read_page(report_html(**{**arguments, **changed}))

    return make


def test_shows_the_numbers_it_was_given(page: MakePage) -> None:
    text = page().text
    for number in (
        "0.873",
        "0.742",
        "0.731",
        "0.963",
        "0.811",
        "0.412",
        "0.654",
        "0.00312",
        "9.580",
        "12.800",
    ):
        assert number in text
    for fact in (
        "boqsa demo --seed 7",
        "0a1b2c3d4e5f",
        "8,000",
        "8 min 32 s",
        "249.8",
        "torch 2.13.0",
        "512",
        "9f3c",
    ):
        assert fact in text
    assert "ARI-FG: 3" in text


def test_of_the_data_it_tells_what_there_is_to_tell(page: MakePage) -> None:
    dataset = {"name": "birds", "split": "test", "partial": False, "leak": "", "mask_size": [128, 96]}
    text = page(metrics={**METRICS, "dataset": dataset}).text
    assert "name birds, split test, mask size [128, 96]" in text


@pytest.mark.system
def test_a_phone_shows_the_facts_whole(browser: Any, tmp_path: Path) -> None:
    metrics = {**METRICS, "dataset": {"name": "scenes", "fingerprint": "0123456789abcdef" * 4}}
    report = report_html(recipe_json="{}", metrics=metrics, log=LOG, pictures={}, next_steps=[])
    (tmp_path / "report.html").write_text(report, encoding="utf-8")
    shown = browser.new_page(viewport={"width": 390, "height": 844})
    shown.goto((tmp_path / "report.html").as_uri())
    right = shown.get_by_role("cell", name="fingerprint").evaluate("cell => cell.getBoundingClientRect().right")
    assert right <= 390


def test_names_both_kinds_of_masks_and_the_baseline(page: MakePage) -> None:
    heads = {attributes.get("data-label") for attributes in page().attributes("td")}
    assert {"Masks of the decoder", "Masks of attention", "k-means"} <= heads


def test_says_how_it_is_with_the_last_warning_only(page: MakePage) -> None:
    text = page().text
    assert "Healthy" in text
    assert "Try model.num-slots 4." in text
    assert "An old warning" not in text
    assert "0.083" in text


@pytest.mark.parametrize("verdict", ["flat", "collapsed", "broken", "learning", "something new"])
def test_every_verdict_is_put_in_words(page: MakePage, verdict: str) -> None:
    text = page(log=[{"event": "diagnostics", "step": 1, "verdict": verdict}]).text
    assert verdict in text.lower()


def test_the_gradient_of_the_queries_is_that_of_the_last_row_of_training(page: MakePage) -> None:
    rows = [{"event": "step", "step": step, "loss": 1.0, "query_gradient_norm": 0.1 + step / 1000} for step in (1, 45)]
    text = page(log=[*rows, {"event": "diagnostics", "step": 45, "update_spectral_norm": 7.125}]).text
    assert "Gradient of the queries" in text
    assert "0.145" in text
    assert "Stretch of one more step" in text
    assert "Gradient of the queries" not in page(log=[{"event": "step", "step": 1, "loss": 1.0}]).text


def test_held_out_diagnostics_come_before_logged_ones(page: MakePage) -> None:
    held_out = {**METRICS, "scores": {"last": {"diagnostics": {"position_information": 0.222}}}}
    text = page(metrics=held_out).text
    assert "0.222" in text
    assert "0.083" not in text


def test_is_one_file_that_loads_nothing(read_page: ReadPage) -> None:
    html = report_html(recipe_json="{}", metrics=METRICS, log=LOG, pictures={"x": Image.new("RGB", (4, 4))})
    assert "url(" not in html
    assert "@import" not in html
    parsed = read_page(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in parsed.elements}
    images = parsed.attributes("img")
    assert len(images) == 4  # the picture, loss, scores, slot use
    for attributes in images:
        assert attributes["alt"]
        assert (attributes["src"] or "").startswith("data:image/png;base64,")


def test_the_picture_arrives_whole(page: MakePage) -> None:
    source = page().attributes("img")[0]["src"] or ""
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as picture:
        assert picture.size == (20, 10)
        assert picture.getpixel((3, 3)) == (255, 0, 0)


def test_is_accessible(page: MakePage) -> None:
    parsed = page()
    assert parsed.attributes("html") == [{"lang": "en"}]
    assert len(parsed.attributes("h1")) == len(parsed.attributes("title")) == len(parsed.attributes("main")) == 1
    assert all(attributes.get("scope") in {"row", "col"} for attributes in parsed.attributes("th"))


def test_everything_from_outside_is_escaped(page: MakePage) -> None:
    evil = '<script>alert("x")</script>'
    parsed = page(
        recipe_json=evil,
        metrics={
            **METRICS,
            "recipe": evil,
            "command": evil,
            "seed": evil,
            "dataset": {"name": evil, "split": evil, evil: evil},
            "machine": {evil: evil},
            "baselines": {evil: {"ari_fg": evil, "what": evil}},
        },
        log=[{"event": "diagnostics", "step": 1, "verdict": evil, "warnings": [evil], "dead_slots": evil}],
        pictures={evil: Image.new("RGB", (2, 2))},
        next_steps=[evil],
    )
    assert not parsed.attributes("script")
    assert parsed.text.count(evil) >= 12


@pytest.mark.parametrize("name", [*METRICS, None])
def test_any_block_may_be_missing(page: MakePage, name: str | None) -> None:
    page(metrics={key: value for key, value in METRICS.items() if key != name}, log=[])
    page(metrics={**METRICS, name: None} if name else {}, log=[])


def test_an_empty_run_says_not_measured(read_page: ReadPage) -> None:
    parsed = read_page(report_html(recipe_json="{}", metrics={}))
    assert parsed.text.lower().count("not measured") >= 4
    assert not parsed.attributes("img")


def test_nan_and_none_say_not_measured(page: MakePage) -> None:
    parsed = page(
        metrics={"ari_fg": math.nan, "scores": {"last": {"decoder_masks": {"ari_fg": math.nan, "ari": None}}}}
    )
    assert "nan" not in parsed.text.lower().split()
    assert "None" not in parsed.text
    assert parsed.text.count("not measured") >= 4


def test_foreground_runs_show_overlap(page: MakePage) -> None:
    masks = {"iou": 0.5432, "dice": 0.6789, "left_out": {"overlap": 2}}
    parsed = page(metrics={"recipe": "birds", "scores": {"last": {"decoder_masks": masks}}}, log=[])
    assert "0.543" in parsed.text
    assert "0.679" in parsed.text
    assert "oracle slot: 2" in parsed.text
    assert "ARI-FG" not in parsed.text


def test_a_transformer_shows_its_choices_of_slot_baselines_and_reconstructions(page: MakePage) -> None:
    last = {
        "attention_masks": {"iou": 0.61, "dice": 0.72, "border_iou": 0.59, "fixed_iou": 0.58, "left_out": {}},
        "reconstruction": {"mse": 0.0111},
        "reconstruction_teacher_forced": {"mse": 0.0222},
        "reconstruction_generated": {"mse": 0.0333, "images": 32},
        "tokens": {"vocabulary": 256, "used": 41, "perplexity": 17.5},
        "diagnostics": {"verdict": "half_split", "half_split": 0.912, "slot_information": 0.123, "warnings": []},
    }
    what = {"iou": 0.444, "what": "Chosen by labels."}
    parsed = page(
        metrics={
            "recipe": "dogs",
            "scores": {"last": last},
            "baselines": dict.fromkeys(("half_splits", "centre_prior", "k_means", "untrained"), what),
        },
        log=[],
    )
    heads = {attributes.get("data-label") for attributes in parsed.attributes("td")}
    assert {"Masks of attention", "half splits", "centre prior", "k-means", "untrained model"} <= heads
    assert {"dVAE", "Teacher-forced", "Generated from slots"} <= heads
    assert "Masks of the decoder" not in heads
    for words in ("Oracle slot: IoU", "Off-border slot: IoU", "Fixed slot: IoU", "first 32 images", "41 of 256"):
        assert words in parsed.text
    for number in ("0.610", "0.590", "0.580", "0.011", "0.022", "0.033", "17.500", "0.912", "0.123"):
        assert number in parsed.text
    assert "Halves: the two slots" in parsed.text
    assert "painting" not in parsed.text.split("All scores")[0]


def test_instances_show_their_own_scores(page: MakePage) -> None:
    masks = {
        "ap": 0.345,
        "pq": 0.234,
        "precision": 0.4,
        "recall": 0.3,
        "true_positives": 17,
        "left_out": {"instances": 5},
    }
    parsed = page(metrics={"recipe": "ycb", "scores": {"last": {"attention_masks": masks}}}, log=[])
    for words in ("AP", "PQ", "0.345", "0.234", "Found", "17", "objects: 5"):
        assert words in parsed.text


def test_signs_that_a_model_does_not_have_are_left_out(page: MakePage) -> None:
    signs = {"half_split": None, "slot_information": None, "background_slots": None, "dead_slots": 0}
    text = page(metrics={"scores": {"last": {"diagnostics": signs}}}, log=[]).text
    assert "Slots on the background" in text
    assert "Halves" not in text
    assert "Told by the slots" not in text


def test_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, recipe_json="{}", metrics=METRICS, log=LOG)
    assert path.read_text(encoding="utf-8") == report_html(recipe_json="{}", metrics=METRICS, log=LOG)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="absent"):
        write_report(tmp_path / "absent" / "report.html", recipe_json="{}", metrics={})
