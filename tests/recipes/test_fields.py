"""Fields by name and as text: what is meant is taken, everything else refused in words."""

import pytest

from boqsa.errors import RecipeError
from boqsa.recipes import get_recipe
from boqsa.recipes.fields import field_names, with_fields


def test_values_of_every_type() -> None:
    recipe = with_fields(
        get_recipe("demo"),
        {
            "train.learning-rate": "1e-4",
            "model.num_slots": "9",
            "train.flip": "true",
            "model.encoder_channels": "8,16 24",
            "data.root": "folder",
            "train.init_from": "none",
            "train.precision": "fp32",
            "train.dvae.tau_end": "1",
            "seed": "5",
        },
    )
    assert recipe.train.learning_rate == 1e-4
    assert recipe.model.num_slots == 9
    assert recipe.train.flip is True
    assert recipe.model.encoder_channels == (8, 16, 24)
    assert recipe.data.root == "folder"
    assert recipe.train.init_from is None
    assert recipe.train.precision == "fp32"
    assert recipe.train.dvae.tau_end == 1.0
    assert recipe.seed == 5


def test_nothing_else_changes() -> None:
    demo = get_recipe("demo")
    assert with_fields(demo, {}) == demo
    changed = with_fields(demo, {"train.steps": "7"})
    assert with_fields(changed, {"train.steps": str(demo.train.steps)}) == demo


def test_fields_that_belong_together_change_together() -> None:
    fields = {"evaluate.task": "foreground", "evaluate.select_by": "iou"}
    assert with_fields(get_recipe("demo"), fields).evaluate.task == "foreground"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.step", "3", "the recipe demo has no field train.step; did you mean train.steps?"),
        ("model", "3", "no field model; `boqsa recipes demo` shows its fields."),
        ("name", "other", "name cannot be set"),
        ("model.kind", "transformer", "choose another recipe"),
        ("train.steps", "many", "train.steps is 'many'; expected int."),
        ("train.steps", "1.5", "train.steps is '1.5'; expected int."),
        ("train.steps", "0", "train.steps is 0; it must be at least 1."),
        ("train.learning_rate", "nan", "train.learning_rate is nan"),
        ("train.flip", "maybe", "train.flip is 'maybe'; expected bool."),
        ("train.precision", "fp8", "train.precision is 'fp8'; expected one of 'fp32', 'bf16'."),
        ("model.encoder_strides", "1,x", "model.encoder_strides is '1,x'; expected a list of whole numbers."),
    ],
)
def test_what_is_wrong_is_said(name: str, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        with_fields(get_recipe("demo"), {name: text})
    assert message in str(error.value)


def test_every_listed_field_can_be_set_to_what_it_is() -> None:
    for recipe in (get_recipe("demo"), get_recipe("birds_transformer")):
        names = field_names(recipe)
        assert "train.dvae.tau_start" in names
        for name in names:
            value: object = recipe
            for part in name.split("."):
                value = getattr(value, part)
            text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert with_fields(recipe, {name: text}) == recipe
