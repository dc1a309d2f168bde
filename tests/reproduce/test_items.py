"""Every item at both scales: what it plans, and that no two things share a name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boqsa.data.packing import write_packed
from boqsa.errors import InputError, RecipeError
from boqsa.inference.load import build_model
from boqsa.reproduce.experiment import Experiment
from boqsa.reproduce.items import ITEMS, build
from boqsa.reproduce.paper import paper_cells
from boqsa.reproduce.plan import Needed, built, data_needed, looks_of, missing, placed, require_data, runs_of
from boqsa.reproduce.scales import PAPER, SCALES, SMALL, Scale, task_of
from boqsa.training.sweep import grow_plan, read_plan

EVERYWHERE = [pytest.param(name, scale, id=f"{name}-{scale.name}") for name in ITEMS for scale in SCALES.values()]


@pytest.mark.parametrize(("name", "scale"), EVERYWHERE)
def test_an_item_is_what_it_is_called_and_plans_runs(name: str, scale: Scale) -> None:
    experiment = build(name, scale)
    assert experiment.item == name
    assert experiment.arms or experiment.untrained is not None
    for arm in experiment.arms:
        assert arm.tests
        assert arm.recipe.evaluate.task == task_of(arm.recipe.data.name)
        assert not arm.recipe.data.root


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_each_decoder_of_table_1_is_compared_with_what_the_paper_compares_it_with(scale: Scale) -> None:
    experiment = build("table1", scale)
    methods = {arm.method for arm in experiment.arms}
    assert experiment.first == "BO-QSA (mixture)"
    assert experiment.compared == (("BO-QSA (transformer)", "SLATE"),)
    assert {experiment.first, *experiment.compared[0]} <= methods


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_a_row_is_told_from_every_other(scale: Scale) -> None:
    for name in ITEMS:
        looks = looks_of([build(name, scale)], [0])
        keys = [
            (look.method, look.test.data.name, look.test.condition, look.test.probe, look.run.recipe.data.name)
            for look in looks
        ]
        assert len(set(keys)) == len(keys), name


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_runs_that_compute_the_same_are_one(scale: Scale) -> None:
    runs = runs_of(looks_of([build(name, scale) for name in ITEMS], [0]))
    assert len({run.name for run in runs}) == len(runs)
    nameless = {replace(run.recipe, name="any").hash for run in runs}
    assert len(nameless) == len(runs), "two recipes differ in nothing but their name"


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_every_recipe_of_every_item_builds(scale: Scale) -> None:
    shapes = {}
    for run in runs_of(looks_of([build(name, scale) for name in ITEMS], [0])):
        shapes[run.recipe.model, run.recipe.data.image_size] = run.recipe
    for recipe in shapes.values():
        assert sum(weights.numel() for weights in build_model(recipe).parameters()) > 1_000


@pytest.mark.parametrize("table", [1, 2, 3, 4, 5, 6, 7, 8, 14, 15, 16, 17, 18])
def test_the_methods_of_a_table_are_the_papers(table: int) -> None:
    ours = {arm.method for arm in build(f"table{table}", PAPER).arms}
    theirs = {cell.method for cell in paper_cells(table)}
    assert ours <= theirs
    quoted = {1: 3, 2: 3, 4: 4, 5: 6, 6: 3}  # rows of other publications, which no recipe of ours makes
    assert len(theirs - ours) == quoted.get(table, 0)


@pytest.mark.parametrize("table", [1, 2, 3, 4, 5, 7, 8, 14, 15, 16, 17, 18])
def test_the_data_sets_of_a_table_are_the_papers(table: int) -> None:
    ours = set()
    for arm in build(f"table{table}", PAPER).arms:
        for test in arm.tests:
            source = arm.recipe.data.name
            ours |= {test.data.name, f"{source}->{test.data.name}"}
    assert {cell.dataset for cell in paper_cells(table)} <= ours


def test_all_methods_of_the_small_scale_share_their_setting() -> None:
    """No method gets a setting that the others do not."""
    from dataclasses import replace

    for dataset in ("scenes", "flowers17", "weizmann_horses"):
        arms = [arm for arm in build("table7", SMALL).arms if arm.recipe.data.name == dataset]
        assert len(arms) == 6
        same = [
            replace(arm.recipe, name="", model=replace(arm.recipe.model, queries="learned", gradient="bilevel"))
            for arm in arms
        ]
        assert len(set(same)) == 1


def test_an_unknown_item_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no item .table9..*table1, table2"):
        build("table9", SMALL)


@pytest.mark.parametrize("scale", [SMALL, PAPER], ids=["small", "paper"])
def test_table_19_changes_slots_and_schedule_alone(scale: Scale) -> None:
    arms = {(arm.method, arm.recipe.data.name): arm.recipe for arm in build("table19", scale).arms}
    for (method, dataset), recipe in arms.items():
        if method.startswith("uORF+BO-QSA"):
            plain = arms[method.replace("+BO-QSA", ""), dataset]
            assert (recipe.model.queries, recipe.model.gradient) == ("learned", "bilevel")
            assert (plain.model.queries, plain.model.gradient) == ("shared_gaussian", "unrolled")
            model = replace(plain.model, queries="learned", gradient="bilevel")
            assert replace(plain, name=recipe.name, model=model) == recipe
    if scale is PAPER:
        rows = {(cell.method, cell.dataset) for cell in paper_cells(19)}
        assert set(arms) == rows
    else:
        combinations = {(recipe.model.queries, recipe.model.gradient) for recipe in arms.values()}
        assert len(combinations) == 4


def of(name: str, scale: Scale = SMALL) -> Experiment:
    return build(name, scale)


def test_data_is_placed_by_name_and_scenes_need_none(tmp_path: Path) -> None:
    (experiment,) = placed([of("table7")], root=tmp_path)
    roots = {arm.recipe.data.name: arm.recipe.data.root for arm in experiment.arms}
    assert roots == {
        "scenes": None,
        "flowers17": f"{tmp_path}/flowers17",
        "weizmann_horses": f"{tmp_path}/weizmann_horses",
    }


def test_missing_data_is_named_at_once(tmp_path: Path) -> None:
    needed = data_needed(looks_of(placed([of("table7")], root=tmp_path), [0]))
    assert list(missing(needed)) == ["flowers17", "weizmann_horses"]
    with pytest.raises(InputError, match=r"flowers17.*weizmann_horses.*--datasets"):
        require_data(needed)
    without_root = missing(data_needed(looks_of(placed([of("table7")], root=None), [0])))
    assert "--data.root DIR" in without_root["flowers17"]


def test_a_set_that_is_needed_at_two_sizes_lies_in_two_folders(tmp_path: Path) -> None:
    """Table 1: SLATE sees ShapeStacks at 96x96, the mixture at 128x128."""

    def needed() -> list[Needed]:
        return data_needed(looks_of(placed([of("table1", PAPER)], root=tmp_path, datasets=["shapestacks"]), [0]))

    assert {data.image_size for data, _ in needed()} == {96, 128}
    assert set(missing(needed())) == {"shapestacks at 96x96", "shapestacks at 128x128"}
    without_root = missing(data_needed(looks_of(placed([of("table1", PAPER)], root=None), [0])))
    assert "DIR/shapestacks_96 --size 96" in without_root["shapestacks at 96x96"]
    _packed(tmp_path / "shapestacks", 128)
    assert list(missing(needed())) == ["shapestacks at 96x96"]
    assert f"this one in {tmp_path}/shapestacks_96." in missing(needed())["shapestacks at 96x96"]
    _packed(tmp_path / "shapestacks_96", 96)
    assert not missing(needed())
    assert {data.image_size: Path(data.root or "").name for data, _ in needed()} == {
        96: "shapestacks_96",
        128: "shapestacks",
    }


def _packed(folder: Path, size: int) -> None:
    empty = np.zeros((1, 3, size, size), np.uint8), np.zeros((1, size, size), np.uint8)
    described = {"source": "drawn", "licence": "none", "split_rule": "drawn"}
    write_packed(
        folder, dict.fromkeys(("train", "val", "test"), empty), name="arrays", task="multi-object", **described
    )


def test_data_sets_can_be_left_out_but_not_all() -> None:
    (experiment,) = placed([of("table7")], root=None, datasets=["scenes"])
    assert {arm.recipe.data.name for arm in experiment.arms} == {"scenes"}
    with pytest.raises(InputError, match="table7 trains on flowers17, weizmann_horses, scenes, not on coco"):
        placed([of("table7")], root=None, datasets=["coco"])


def test_fields_hold_for_all_recipes_and_tests() -> None:
    experiment = built("more_objects", SMALL, {"train.steps": "2", "data.scene_seed": "5"})
    assert {arm.recipe.train.steps for arm in experiment.arms} == {2}
    assert {test.data.scene_seed for arm in experiment.arms for test in arm.tests} == {5}
    with pytest.raises(RecipeError, match=r"train\.stepz"):
        built("figure2", SMALL, {"train.stepz": "2"})


@pytest.mark.parametrize(
    ("item", "field", "value"),
    [
        ("table16", "model.iterations", "1"),
        ("table7", "model.gradient", "bilevel"),
        ("table7", "model.queries", "learned"),
        ("noise", "train.sigma-steps", "1"),
        ("differences", "model.drop_path", "0.5"),
        ("stability", "train.clip_norm", "1"),
        ("vq_weight", "train.consistency_weight", "1"),
    ],
)
def test_a_field_that_an_item_varies_is_not_the_users(item: str, field: str, value: str) -> None:
    with pytest.raises(RecipeError, match=f"{item} varies {field.replace('-', '_')} itself"):
        built(item, SMALL, {field: value})


def test_twice_the_training_is_twice_the_users() -> None:
    arms = built("difficulty", SMALL, {"train.steps": "3000", "train.sigma-steps": "100"}).arms
    lengths = {arm.tests[0].condition[-1]: (arm.recipe.train.steps, arm.recipe.train.sigma_steps) for arm in arms}
    assert lengths == {"1": (3000, 100), "2": (6000, 200)}


def test_shares_of_the_steps_follow_the_steps() -> None:
    conditions = {
        arm.tests[0].condition: arm.recipe.train.sigma_steps
        for arm in built("noise", SMALL, {"train.steps": "1000"}).arms
    }
    assert conditions["sigma_steps=10%;perturbation=additive"] == 100
    assert conditions["sigma_steps=50%;perturbation=multiplicative"] == 500


def test_a_test_on_another_set_is_left_out_with_it() -> None:
    (experiment,) = placed([of("figure4")], root=None, datasets=["scenes"])
    assert {test.data.name for arm in experiment.arms for test in arm.tests} == {"scenes"}


def test_looks_come_seed_by_seed() -> None:
    looks = looks_of([of("table6"), of("table7")], [5, 3])
    seeds = [look.run.recipe.seed for look in looks]
    assert seeds == sorted(seeds, reverse=True)


def test_a_plan_keeps_the_runs_of_other_items(tmp_path: Path) -> None:
    first = runs_of(looks_of(placed([of("table7")], root=None, datasets=["scenes"]), [0]))
    grow_plan(tmp_path / "runs", first)
    second = runs_of(looks_of([of("figure6")], [0]))
    grow_plan(tmp_path / "runs", second)
    both = read_plan(tmp_path / "runs")
    assert {run.name for run in both} == {run.name for run in (*first, *second)}
    assert len(both) < len(first) + len(second)  # BO-QSA and SA serve both
