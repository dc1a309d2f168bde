"""Bands of invented curves, and the bands that the package carries."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from boqsa.data.builtin import RENDERER
from boqsa.errors import InputError
from boqsa.recipes import RECIPES, Recipe, get_recipe
from boqsa.recipes.band import Band, curve_hash, expected_band, make_band

STEPS = (1000, 2000, 12000, 13000)


def run(seed: int, scores: Sequence[float], losses: Sequence[float] = (0.1, 0.05, 0.02, 0.02), **more: Any) -> Any:
    rows = [
        {"event": "evaluation", "step": step, "loss": loss, "ari_fg": score, **more}
        for step, score, loss in zip(STEPS, scores, losses, strict=False)
    ]
    return replace(get_recipe("demo"), seed=seed), [{"event": "started", "step": 0}, *rows]


@pytest.fixture
def band() -> Band:
    """ARI-FG 0.1 to 0.3, 0.5 to 0.7, then 0.80 to 0.81; loss 0.1, 0.04 to 0.06, then 0.02."""
    runs = [
        run(0, [0.1, 0.6, 0.80, 0.80], [0.1, 0.04, 0.02, 0.02]),
        run(1, [0.2, 0.5, 0.81, 0.81], [0.1, 0.06, 0.02, 0.02]),
        run(2, [0.3, 0.7, 0.80, 0.80], [0.1, 0.05, 0.02, 0.02]),
    ]
    return make_band(runs, data="renderer 0", boqsa="0.0")


def test_a_band_holds_the_lowest_and_the_highest_of_the_seeds(band: Band) -> None:
    assert (band.recipe, band.seeds, band.steps) == ("demo", (0, 1, 2), STEPS)
    assert band.curves["ari_fg"].low == (0.1, 0.5, 0.8, 0.8)
    assert band.curves["ari_fg"].high == (0.3, 0.7, 0.81, 0.81)
    assert band.curves.keys() == {"loss", "ari_fg"}  # the others are in no row
    assert Band.from_json(band.to_json()) == band


@pytest.mark.parametrize(
    ("step", "values", "behind"),
    [
        (13000, {"ari_fg": 0.80, "loss": 0.02}, False),
        (13000, {"ari_fg": 0.99, "loss": 0.001}, False),  # better than all seeds
        (13000, {"ari_fg": 0.771}, False),  # 0.03 below the lowest
        (13000, {"ari_fg": 0.769}, True),
        (12000, {"loss": 0.0599}, False),  # one evaluation late
        (12000, {"loss": 0.0601}, True),
        (1000, {"ari_fg": 0.001}, False),  # half the width, which is 0.2, below
        (1000, {"ari_fg": -0.001}, True),
        (1000, {"loss": 0.109}, False),  # a tenth
        (1000, {"loss": 0.111}, True),
        (2000, {"ari_fg": 0.11}, False),  # one evaluation late
        (2000, {"ari_fg": 0.09}, True),
        (2000, {"ari_fg": None, "loss": 0.05}, False),
        (3000, {"ari_fg": 0.0}, False),  # no band there
    ],
)
def test_only_what_is_clearly_worse_is_behind(band: Band, step: int, values: dict[str, Any], behind: bool) -> None:
    assert bool(band.behind(step, values)) is behind


def test_what_is_said(band: Band) -> None:
    assert band.standing(2000, {"ari_fg": 0.6}) == "on track, by seeds 0, 1, 2"
    assert band.standing(1500, {"ari_fg": 0.6}) == "no band at this step"
    assert band.standing(13000, {"ari_fg": 0.12, "loss": 0.5}) == (
        "behind (loss 0.50000, expected 0.02000 to 0.02200; ari_fg 0.120, expected 0.770 to 0.810 at this step): "
        "look at docs/collapsed.md"
    )


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([run(0, [0, 0, 0, 0]), run(1, [0, 0, 0, 0])], "2 different seeds"),
        ([run(0, [0, 0, 0, 0]), run(1, [0, 0, 0, 0]), run(1, [0, 0, 0, 0]), run(2, [0, 0, 0, 0])], "each seed once"),
        ([run(0, [0, 0, 0, 0]), run(1, [0, 0, 0]), run(2, [0, 0, 0, 0])], "seed 1 is not finished"),
        ([run(0, [0, 0]), run(1, [0, 0]), run(2, [0, 0])], "seed 0 is not finished"),
        (
            [run(0, [0, 0, 0, 0]), run(1, [0, 0, 0, 0]), (replace(get_recipe("birds_mixture"), seed=2), [])],
            "not of one recipe",
        ),
    ],
)
def test_what_makes_no_band(runs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_band(runs, data="", boqsa="")


def test_seed_and_rows_of_the_log_do_not_make_another_recipe() -> None:
    demo = get_recipe("demo")
    same = replace(demo, seed=7, train=replace(demo.train, log_every=7, device="cuda"))
    other = replace(demo, train=replace(demo.train, evaluate_every=7))
    assert curve_hash(same) == curve_hash(demo) != curve_hash(other)


def test_a_band_counts_for_its_recipe_and_data_alone() -> None:
    demo = get_recipe("demo")
    here = f"renderer {RENDERER}"
    found, why_none = expected_band(replace(demo, seed=5), here)
    assert found is not None
    assert why_none == ""
    for recipe, data, reason in (
        (replace(demo, train=replace(demo.train, steps=5)), here, "the recipe differs"),
        (demo, "renderer 0", "the data are others"),
        (get_recipe("birds_mixture"), here, "no band measured for birds_mixture"),
    ):
        found, why_none = expected_band(recipe, data)
        assert found is None
        assert reason in why_none


BANDS = sorted(path.name for path in (files("boqsa.recipes") / "bands").iterdir() if path.name.endswith(".json"))


@pytest.mark.parametrize("name", BANDS)
def test_the_bands_of_the_package_are_of_the_recipes_of_today(name: str) -> None:
    """Fails where a recipe or the renderer was changed: measure its seeds anew, or delete the band."""
    band = Band.from_json((files("boqsa.recipes") / "bands" / name).read_text())
    recipe: Recipe = RECIPES[band.recipe]()
    assert name == f"{recipe.name}.json"
    assert band.recipe_hash == curve_hash(recipe)
    assert band.data == f"renderer {RENDERER}" if recipe.data.name == "scenes" else len(band.data) == 64
    assert len(band.seeds) >= 3
    assert band.steps[-1] == recipe.train.steps
    for curve in band.curves.values():
        assert len(curve.low) == len(curve.high) == len(band.steps)
        assert all(low <= high for low, high in zip(curve.low, curve.high, strict=True))


def test_the_demo_has_a_band() -> None:
    assert "demo.json" in BANDS
