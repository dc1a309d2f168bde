"""What torchrun and SLURM say in the environment."""

from dataclasses import replace

import pytest

from boqsa.errors import RecipeError
from boqsa.recipes import Recipe
from boqsa.training.processes import (
    Processes,
    any_process,
    join_processes,
    rank_and_count,
    speaks_for_all,
    started_processes,
)

NAMES = ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "SLURM_NTASKS", "SLURM_STEP_ID", "SLURM_JOB_NAME")
NAMES += ("SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_LOCALID", "LOCAL_RANK")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, Processes(1, 1)),
        ({"TORCHELASTIC_RUN_ID": "7", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, Processes(4, 2)),
        (
            {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2"},
            Processes(4, 2),
        ),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1"}, Processes(1, 1)),
        # sbatch without srun: the variables of the job stand there, but one process was started
        ({"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2"}, Processes(1, 1)),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}, Processes(1, 1)),
    ],
)
def test_what_was_started(words: dict[str, str], expected: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    found = started_processes()
    assert found == expected
    assert found.total == expected.per_node * expected.nodes


def test_tasks_without_a_number_on_each_node_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    with pytest.raises(RecipeError, match=r"8 tasks.*--ntasks-per-node"):
        started_processes()


def test_alone() -> None:
    assert rank_and_count() == (0, 1)
    assert any_process(True, None)
    assert not any_process(False, None)


@pytest.mark.parametrize(
    ("words", "speaks"),
    [
        ({}, True),
        ({"TORCHELASTIC_RUN_ID": "7", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, True),
        ({"TORCHELASTIC_RUN_ID": "7", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, False),
        ({"TORCHELASTIC_RUN_ID": "7", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, True),
        (
            {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1"},
            False,
        ),  # not how many a node
        ({"SLURM_NTASKS": "2", "SLURM_LOCALID": "1"}, True),  # a batch script, which trains alone
    ],
)
def test_who_speaks(words: dict[str, str], speaks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    assert speaks_for_all() is speaks


def test_a_batch_script_without_srun_trains_alone(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fabric by itself would refuse one device where the job has eight tasks."""
    for name in ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.setenv(name, "8")
    fabric = join_processes(replace(recipe, train=replace(recipe.train, device="cpu")))
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
