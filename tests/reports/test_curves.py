import io
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boqsa.reports import loss_curve, score_curve, slot_colours, slot_use_bars
from boqsa.reports.curves import running_mean, series


def read(png: bytes | None) -> np.ndarray:
    assert png is not None
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def log(losses: list[Any]) -> list[dict[str, Any]]:
    return [
        {"event": "step", "step": 10 * at, "loss": loss, "learning_rate": 0.1, "sigma": 0.0}
        for at, loss in enumerate(losses)
    ]


def test_loss_curve_draws_what_is_finite() -> None:
    whole = read(loss_curve(log([3.0, 2.0, 1.0])))
    broken = [{"event": "step", "step": 30, "loss": loss} for loss in (math.nan, math.inf, None)]
    np.testing.assert_array_equal(read(loss_curve(log([3.0, 2.0, 1.0]) + broken)), whole)
    assert (read(loss_curve(log([3.0, 1.0, 2.0]))) != whole).any()


def test_losses_below_zero_are_drawn_too() -> None:
    read(loss_curve(log([1.0, -1.0])))


@pytest.mark.parametrize("rows", [[], log([1.0]), log([math.nan] * 5), [{"event": "resumed", "step": 4}]])
def test_nothing_to_draw_is_none(rows: list[dict[str, Any]]) -> None:
    assert loss_curve(rows) is None
    assert score_curve(rows) is None


@pytest.mark.parametrize("scores", [{"ari_fg": 0.5, "msc_fg": math.nan}, {"iou": 0.4, "dice": -0.1}, {"ap": 0.2}])
def test_score_curve_draws_every_task(scores: dict[str, float]) -> None:
    read(score_curve([{"event": "evaluation", "step": 5, **scores}]))


def test_bars_wear_the_colours_of_the_slots() -> None:
    pixels = read(slot_use_bars([0.2, 0.5, 0.3]))
    counts = [(pixels == colour).all(axis=-1).sum() for colour in slot_colours(4)]
    assert counts[3] == 0
    assert counts[1] > counts[2] > counts[0] > 0


@pytest.mark.parametrize("areas", [[], [0.5, math.nan], [None, 1.0]])
def test_bars_of_missing_areas_are_none(areas: list[Any]) -> None:
    assert slot_use_bars(areas) is None


def testrunning_mean_by_hand() -> None:
    np.testing.assert_allclose(running_mean(np.array([1.0, 3.0, 5.0, 9.0])), [1.0, 2.0, 4.0, 7.0])


def test_series_skips_rows_without_the_number() -> None:
    rows = [
        {"step": 1, "loss": 2.0},
        {"step": 2},
        {"loss": 1.0},
        {"step": 3, "loss": math.inf},
        {"step": 4, "loss": 1},
    ]
    steps, values = series(rows, "loss")
    assert steps.tolist() == [1, 4]
    assert values.tolist() == [2, 1]


def test_importing_reports_does_not_import_matplotlib() -> None:
    code = "import sys, boqsa.reports; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
