"""Methods as changes of a recipe: what they set, and that one thing has one name."""

import pytest

from boqsa.recipes import get_recipe
from boqsa.recipes.recipe import flat
from boqsa.reproduce.methods import METHODS, UPDATES, changed, variant


@pytest.mark.parametrize("method", METHODS)
def test_a_method_sets_queries_and_gradient_and_nothing_else(method: str) -> None:
    base = get_recipe("shapestacks_mixture")
    before, after = flat(base), flat(variant(base, method))
    assert (after["model.queries"], after["model.gradient"]) == METHODS[method]
    assert {name for name in before if before[name] != after[name]} <= {"name", "model.queries", "model.gradient"}


def test_the_six_methods_are_the_grid_of_two_by_three() -> None:
    assert len(set(METHODS.values())) == 6
    assert {queries for queries, _ in METHODS.values()} == {"shared_gaussian", "learned"}
    assert METHODS["BO-QSA"] == ("learned", "bilevel")


@pytest.mark.parametrize("method", UPDATES)
def test_a_row_of_table_17_is_bo_qsa_with_another_update(method: str) -> None:
    base = get_recipe("shapestacks_mixture")
    other, ours = flat(variant(base, method)), flat(variant(base, "BO-QSA"))
    different = {name for name in ours if ours[name] != other[name]} - {"name"}
    assert different
    assert all(name.startswith("train.") for name in different)


def test_what_is_the_same_has_the_same_recipe_whoever_asks() -> None:
    base = get_recipe("dogs_transformer")
    assert variant(base, "I-QSA", {"model.iterations": "3"}) == variant(base, "I-QSA")
    assert variant(base, "VQ-constraint") == variant(base, "BO-QSA", {"train.consistency_weight": "0.01"})


def test_a_change_is_in_the_name() -> None:
    recipe = changed(get_recipe("demo"), {"train.steps": "7", "seed": "0"})
    assert recipe.name == "demo,steps=7"
    assert recipe.train.steps == 7
