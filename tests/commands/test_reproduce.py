"""`boqsa reproduce`: what is typed, what is refused in one line, what a plan says."""

import json
from pathlib import Path

import pytest

from boqsa.commands import main
from boqsa.commands import reproduce as reproduce_command
from boqsa.reproduce import carry_out, hours
from boqsa.reproduce.carry_out import Done
from boqsa.reproduce.items import ITEMS


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing lands in the checkout, and no plan measures this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hours, "_arithmetic", lambda recipe: 3600.0)


def told(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    assert main(["reproduce", *typed]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("item", ITEMS)
def test_every_item_can_be_planned_at_both_scales(item: str, scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(told(capsys, item, "--scale", scale, "--seeds", "0", "--dry-run", "--json"))
    assert bool(plan["runs"]) == (item != "mask_errors")
    assert plan["hours_left"] == pytest.approx(len(plan["runs"]))
    for run in plan["runs"]:
        of_item = {"difficulty": (250_000, 500_000), "table19": (600_000, 1_200_000)}
        assert scale == "small" or run["steps"] in of_item.get(item, (250_000,))
        assert run["done"] == 0


def test_all_means_all_and_shares_runs(capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(told(capsys, "all", "--seeds", "0", "1", "--dry-run", "--json"))
    names = [run["run"] for run in plan["runs"]]
    assert len(set(names)) == len(names)
    assert len(names) % 2 == 0
    assert {"flowers17", "weizmann_horses", "coco"} <= set(plan["missing_data"])


def test_a_plan_for_people_names_recipes_hours_and_missing_data(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "table7", "--seeds", "0", "1", "--dry-run")
    assert "36 runs in runs-reproduce/small" in text
    assert "scenes_mixture_32px_bo_qsa" in text
    assert "~1.00" in text
    assert "0 of 2" in text
    assert "36.0 hours are left" in text
    for what in ("Trained", "Scored"):
        assert f"{what} on flowers17 at 32x32, weizmann_horses at 32x32, scenes at 32x32." in text
    assert "missing: flowers17 is needed at 32x32: pass --data.root DIR" in text


def test_a_plan_names_the_data_that_is_only_scored_on(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "table2", "--seeds", "0", "--dry-run")
    assert "Trained on clevrtex_full at 32x32." in text
    assert "Scored on clevrtex_full at 32x32, clevrtex_outd at 32x32, clevrtex_camo at 32x32." in text
    plan = json.loads(told(capsys, "figure4", "--seeds", "0", "--dry-run", "--json"))
    assert {entry["data"] for entry in plan["data"] if entry["split"] == "test"} >= {"scenes", "objectsroom"}
    assert "no data is needed" in told(capsys, "mask_errors", "--dry-run")


def test_names_too_long_for_the_terminal_leave_the_numbers_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = told(capsys, "table17", "--seeds", "0", "--dry-run")
    assert all(word in text for word in ("hours each", "0 of 1", "6000", "query_update=kmeans"))
    assert all(len(line) <= 80 for line in text.splitlines() if "│" in line)


def test_hours_of_a_recipe_that_was_run_are_those_it_took(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = {"scenes_mixture_32px_bo_qsa_seed0": [{"event": "finished", "step": 6000, "seconds": 1800.0}]}
    monkeypatch.setattr(hours, "read_log", lambda folder: logs.get(folder.name.rpartition("_")[0], []))
    plan = json.loads(told(capsys, "figure6", "--seeds", "0", "1", "--dry-run", "--json"))
    measured = {run["run"].rpartition("_")[0]: run["hours"] for run in plan["runs"] if run["hours_measured"]}
    assert measured == dict.fromkeys(["scenes_mixture_32px_bo_qsa_seed0", "scenes_mixture_32px_bo_qsa_seed1"], 0.5)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([], "name at least one item"),
        (["table9"], "there is no item 'table9'; choose among table1"),
        (["table7", "--seeds", "0", "0"], "--seeds is 0 0; give different numbers"),
        (["table7", "--seeds", "-1"], "--seeds is -1"),
        (["table7", "--workers", "0"], "--workers is 0"),
        (["table7", "--retries", "-1"], "--retries is -1"),
        (["table7", "--scale", "large"], "large"),
        (["table7", "--train.stepz", "3"], "no field train.stepz; did you mean train.steps?"),
        (["table7", "--datasets", "coco"], "table7 trains on flowers17, weizmann_horses, scenes, not on coco"),
        (["table7"], "flowers17 is needed at 32x32"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(typed: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *typed]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said
    assert not list(Path().iterdir())


def test_items_that_train_on_other_data_sets_are_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "all", "--datasets", "scenes", "--seeds", "0", "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    assert "left out, as they train on other data sets: table2, table4, table5" in said.err
    assert {run["data"] for run in json.loads(said.out)["runs"]} == {"scenes"}


def test_changed_fields_have_results_of_their_own() -> None:
    assert reproduce_command._folder_name("small", {}) == "small"
    assert reproduce_command._folder_name("small", {"train.steps": "2", "data.scene_count": "4"}) == (
        "small,data.scene_count=4,train.steps=2"
    )


@pytest.mark.parametrize(
    ("typed", "lookers"),
    [
        ([], 2),
        (["--scale", "paper"], None),
        (["--workers", "3"], 3),
        (["--engine", "slurm", "--workers", "200"], None),
    ],
)
def test_scores_are_taken_by_as_many_processes_as_this_machine_takes(
    typed: list[str], lookers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def carried_out(*_: object, lookers: int | None, **__: object) -> Done:
        asked.append(lookers)
        return Done([], {}, [], False)

    monkeypatch.setattr(carry_out, "carry_out", carried_out)
    monkeypatch.setattr(reproduce_command, "engine_for", lambda *_, **__: None)
    assert main(["reproduce", "mask_errors", *typed]) == 0
    assert asked == [lookers]


def test_an_item_without_training_is_written_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    written = told(capsys, "mask_errors").split()
    assert written == [f"results/small/mask_errors{end}" for end in (".csv", ".md", "_curves.png")]
    assert all(Path(path).is_file() for path in written)
