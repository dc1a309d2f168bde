"""A plan: every combination once, readable and safe names, checked before anything is written, and only growing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from boqsa.errors import BoqsaError, InputError, RecipeError, RunError
from boqsa.recipes import Recipe, get_recipe
from boqsa.training.sweep.plan import PLAN, PlannedRun, check_data, make_plan, read_plan, write_plan


def test_all_combinations_seed_by_seed() -> None:
    runs = make_plan(
        [get_recipe("demo")],
        seeds=[3, 4],
        vary={"train.learning-rate": ["1e-4", "4e-4"], "model.num-slots": ["5", "7"]},
        fixed={"train.steps": "10"},
    )
    found = [(run.recipe.seed, run.recipe.train.learning_rate, run.recipe.model.num_slots) for run in runs]
    assert found == [(seed, rate, slots) for seed in (3, 4) for rate in (1e-4, 4e-4) for slots in (5, 7)]
    assert {run.recipe.train.steps for run in runs} == {10}
    assert len({run.recipe.hash for run in runs}) == 8


def test_names_are_readable_unique_and_carry_the_hash() -> None:
    runs = make_plan([get_recipe("demo")], seeds=[0, 1], vary={"train.learning-rate": ["1e-4", "4e-4"]})
    assert runs[0].name == f"demo-learning_rate=1e-4-seed0-{runs[0].recipe.hash[:6]}"
    assert runs[0].setting == "demo learning_rate=1e-4"
    assert len({run.name for run in runs}) == 4


def test_two_fields_of_one_last_name_keep_their_sections() -> None:
    vary = {"train.warmup_steps": ["1"], "train.dvae.warmup_steps": ["2"]}
    (run,) = make_plan([get_recipe("birds_transformer")], vary=vary)
    assert run.setting == "birds_transformer train.warmup_steps=1 train.dvae.warmup_steps=2"


def test_a_name_never_leaves_the_folder() -> None:
    (run,) = make_plan([replace(get_recipe("demo"), name="../../evil")], vary={"train.init_from": ["a/../../b"]})
    assert "/" not in run.name
    assert not run.name.startswith(".")


def test_without_seeds_each_recipe_has_its_own(recipe: Recipe) -> None:
    runs = make_plan([recipe, get_recipe("demo")])
    assert [run.recipe.seed for run in runs] == [recipe.seed, get_recipe("demo").seed]


def test_data_is_named_by_its_absolute_path(recipe: Recipe) -> None:
    (run,) = make_plan([recipe], fixed={"data.root": "here"})
    assert run.recipe.data.root == str(Path.cwd() / "here")
    assert run.recipe.hash == recipe.hash


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fixed": {"train.step": "3"}}, "no field train.step; did you mean train.steps?"),
        ({"vary": {"model.num_slots": ["5", "x"]}}, "model.num_slots is 'x'; expected int."),
        ({"vary": {"train.steps": []}}, "--vary train.steps has no values"),
        ({"vary": {"train.steps": ["1"]}, "fixed": {"train.steps": "2"}}, "both varied and fixed"),
        ({"vary": {"seed": ["1"]}}, "--seeds 0 1 2"),
        ({"seeds": [1, 1]}, "one run twice"),
        ({"vary": {"train.threads": ["1", "2"]}}, "vary fields that decide the result"),
        ({"seeds": [-1]}, "seed is -1"),
        ({"fixed": {"model.decoder_strides": "1"}}, "decoder_strides"),
    ],
)
def test_what_is_wrong_is_said(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BoqsaError, match=message.replace("?", r"\?")):
        make_plan([get_recipe("demo")], **arguments)  # type: ignore[arg-type]


def test_no_recipe_is_refused() -> None:
    with pytest.raises(RecipeError, match="at least one recipe"):
        make_plan([])


def test_written_and_read_back(sweep: Path, runs: list[PlannedRun]) -> None:
    assert read_plan(sweep) == runs


def test_the_same_plan_again_and_a_grown_one(sweep: Path, runs: list[PlannedRun], recipe: Recipe) -> None:
    assert write_plan(sweep, runs) == []
    grown = make_plan([recipe], seeds=[0, 1, 2, 3])
    assert [run.recipe.seed for run in write_plan(sweep, grown)] == [3]
    assert read_plan(sweep) == grown


def test_a_plan_that_lacks_runs_is_refused(sweep: Path, runs: list[PlannedRun]) -> None:
    with pytest.raises(RunError, match=r"is not in this one.*--resume"):
        write_plan(sweep, runs[:2])
    assert read_plan(sweep) == runs


def test_a_run_of_the_same_name_and_another_recipe_is_refused(sweep: Path, runs: list[PlannedRun]) -> None:
    other = replace(runs[0], recipe=replace(runs[0].recipe, train=replace(runs[0].recipe.train, steps=99)))
    with pytest.raises(RunError, match=r"train\.steps: 12 -> 99"):
        write_plan(sweep, [other, *runs[1:]])


def test_a_folder_with_other_things_is_refused(tmp_path: Path, runs: list[PlannedRun]) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match=r"not empty and holds no plan\.json"):
        write_plan(tmp_path, runs)
    with pytest.raises(RunError, match="is a file"):
        write_plan(tmp_path / "letter.txt", runs)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_a_plan_that_another_process_is_writing_is_no_stranger(tmp_path: Path, runs: list[PlannedRun]) -> None:
    (tmp_path / ".sweep").mkdir()
    (tmp_path / ".partial-1-plan.json").write_text("{")
    assert write_plan(tmp_path, runs) == runs


@pytest.mark.parametrize("name", ["../out", "/etc", ".sweep", "a/b", "", None, "x\n"])
def test_a_plan_that_names_a_folder_elsewhere_is_refused(sweep: Path, name: str | None) -> None:
    plan = json.loads((sweep / PLAN).read_text())
    plan["runs"][1]["name"] = name
    (sweep / PLAN).write_text(json.dumps(plan))
    with pytest.raises(InputError, match="damaged"):
        read_plan(sweep)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": []}', '{"runs": [1]}', '{"runs": [{"name": "a"}]}', "\x00"])
def test_a_damaged_plan_is_refused(sweep: Path, text: str) -> None:
    (sweep / PLAN).write_text(text)
    with pytest.raises(InputError, match="is damaged"):
        read_plan(sweep)


def test_a_folder_without_a_plan(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no plan\.json"):
        read_plan(tmp_path)


def test_data_is_looked_at_before_anything_starts(recipe: Recipe, runs: list[PlannedRun], tmp_path: Path) -> None:
    check_data(runs)
    check_data(make_plan([get_recipe("demo")]))  # renders nothing
    with pytest.raises(InputError, match="does not exist"):
        check_data(make_plan([recipe], fixed={"data.root": str(tmp_path / "none")}))
    larger = {"data.image_size": "32", "model.decoder_channels": "4,4", "model.decoder_strides": "2,2"}
    with pytest.raises(RecipeError, match="16x16 images, the recipe wants 32x32"):
        check_data(make_plan([recipe], fixed=larger))
