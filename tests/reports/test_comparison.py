import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boqsa.errors import InputError
from boqsa.reports import slot_colours
from boqsa.reports.comparison import HELD_OUT_LOSS, TRAINING_LOSS, ExpectedRange, compared_curves, default_metrics


def log(score: float, *, name: str = "ari_fg") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"event": "started", "step": 0}]
    for step in range(10, 60, 10):
        rows.append({"event": "step", "step": step, "loss": 1 / step, "gradient_norm": score})
        rows.append({"event": "evaluation", "step": step, "loss": 2 / step, name: score * step / 60})
        rows.append({"event": "diagnostics", "step": step, "dead_slots": 1})
    return rows


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_defaults_are_the_losses_and_the_scores_that_any_run_has() -> None:
    assert default_metrics({"a": log(0.5), "b": log(0.4, name="iou")}) == [
        TRAINING_LOSS,
        HELD_OUT_LOSS,
        "ari_fg",
        "iou",
    ]
    assert default_metrics({"a": [{"event": "started", "step": 0}]}) == []


def test_each_run_has_its_colour_and_the_band_is_grey() -> None:
    names = [f"run {index}" for index in range(4)]
    drawn = pixels(compared_curves({name: log(0.2 * at) for at, name in enumerate(names, start=1)}, ["ari_fg"]))
    counts = [(drawn == colour).all(axis=-1).sum() for colour in slot_colours(5)]
    assert min(counts[:4]) > 100
    assert counts[4] == 0
    band = {"ari_fg": ExpectedRange((10, 50), (0.1, 0.2), (0.3, 0.4))}
    with_band = pixels(compared_curves({"run": log(0.5)}, ["ari_fg"], bands=band))
    assert (with_band == 0xD9).all(axis=-1).sum() > 1000
    assert (pixels(compared_curves({"run": log(0.5)}, ["ari_fg"])) == 0xD9).all(axis=-1).sum() < 100  # of letters


def test_more_runs_than_colours_differ_in_their_lines() -> None:
    two = [pixels(compared_curves({f"run {i}": log(0.5) if i in (0, at) else [] for i in range(7)}, ["ari_fg"]))
           for at in (0, 6)]  # fmt: skip
    assert (two[0] != two[1]).any()


def test_any_number_of_the_log_can_be_drawn_and_svg_too() -> None:
    svg = compared_curves({"a": log(0.5)}, ["gradient_norm", "dead_slots", "gradient_norm"], image_format="svg")
    assert svg.startswith(b"<?xml")
    assert svg.count(b'id="axes_') == 2


def test_what_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(
        InputError, match=r"no run has a curve of 'iou'; there are training_loss, held_out_loss, .*ari_fg"
    ):
        compared_curves({"a": log(0.5)}, ["iou"])
    with pytest.raises(InputError, match="nothing to draw yet"):
        compared_curves({"a": []})
