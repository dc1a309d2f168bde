import math

import numpy as np
import pytest

from boqsa.reports import slot_colours
from boqsa.reproduce.figures import iterations_figure, share_kept

SCORES = {
    "SA": {1: [0.2, 0.4], 3: [0.8, 0.4], 5: [0.9, 0.9]},
    "BO-QSA": {1: [0.5], 3: [1.0], 7: [1.1]},
}


def count(picture: np.ndarray, slot: int) -> int:
    return int((picture == slot_colours(6)[slot]).all(axis=-1).sum())


def test_the_share_kept_is_a_ratio_of_means() -> None:
    kept = share_kept(SCORES)
    assert kept["SA"] == pytest.approx({1: 0.5, 3: 1.0, 5: 1.5})
    assert kept["BO-QSA"] == pytest.approx({1: 0.5, 3: 1.0, 7: 1.1})
    assert share_kept({"SA": SCORES["SA"]}, trained=5)["SA"][1] == pytest.approx(1 / 3)


def test_a_score_of_nothing_has_no_share() -> None:
    assert all(math.isnan(share) for share in share_kept({"SA": {1: [0.3], 3: [0.0]}})["SA"].values())


def test_each_method_has_its_colour() -> None:
    both, one = (iterations_figure(scores, score="IoU") for scores in (SCORES, {"SA": SCORES["SA"]}))
    assert both.dtype == np.uint8
    assert both.shape[2] == 3
    assert min(count(both, 0), count(both, 1)) > 200
    assert count(one, 1) == 0


def test_the_band_is_as_wide_as_the_spread_over_seeds() -> None:
    """White is left where nothing is drawn; a band tints it."""
    single, spread = ({"SA": {1: [0.5] * 3, 3: [0.7 - off, 0.7, 0.7 + off]}} for off in (0.0, 0.2))
    tinted = [
        int((np.ptp(iterations_figure(scores, score="IoU").astype(int), axis=-1) > 20).sum())
        for scores in (single, spread)
    ]
    assert tinted[1] > 2 * tinted[0]


def test_a_method_without_the_trained_number_is_named() -> None:
    with pytest.raises(ValueError, match="BO-QSA has no score at 5 iterations"):
        iterations_figure(SCORES, score="IoU", trained=5)
    with pytest.raises(ValueError, match="there are no scores"):
        share_kept({})
