"""How torch computes: the same bits each time where that is asked, and nothing else touched."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from boqsa.data import PackedDataset
from boqsa.errors import RecipeError
from boqsa.inference.load import load
from boqsa.recipes import Recipe
from boqsa.training import step as training_step
from boqsa.training.log import read_log
from boqsa.training.loop import train
from boqsa.training.start import computes_on, deterministic

Change = Callable[..., Recipe]


def state() -> tuple[bool, bool, str | None]:
    algorithms = torch.are_deterministic_algorithms_enabled()
    return algorithms, torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")


@pytest.fixture(autouse=True)
def _variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is as before when the test ends
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def test_what_is_asked_is_set_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with deterministic(False):
        assert state() == (False, True, None)
    with deterministic(True):
        assert state() == (True, False, ":4096:8")
    assert state() == (False, True, ":4096:8")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with deterministic(True):
        assert state()[2] == ":16:8", "what the user set stays"


@pytest.mark.parametrize("kind", ["mixture", "transformer"])
def test_a_cpu_computes_the_same_either_way(
    *,
    kind: str,
    tmp_path: Path,
    recipe: Recipe,
    transformer_recipe: Recipe,
    changed: Change,
    train_data: PackedDataset,
    validation_data: PackedDataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[bool, bool, str | None]] = []
    real = training_step.batch_indices

    def looking(*arguments: Any) -> Any:
        seen.append(state())
        return real(*arguments)

    monkeypatch.setattr(training_step, "batch_indices", looking)
    plain = recipe if kind == "mixture" else transformer_recipe
    for name, of in (("plain", plain), ("same", changed(plain, train={"deterministic": True}))):
        assert train(of, tmp_path / name, train_data=train_data, validation_data=validation_data)
    assert set(seen[: plain.train.steps]) == {(False, False, None)}
    assert set(seen[plain.train.steps :]) == {(True, False, ":4096:8")}
    assert not torch.are_deterministic_algorithms_enabled()
    one, other = (load(tmp_path / name).state_dict() for name in ("plain", "same"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert [read_log(tmp_path / name)[0]["deterministic"] for name in ("plain", "same")] == [False, True]


def test_the_log_names_the_gpu(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert computes_on(torch.device("cuda", 1), recipe) == {"deterministic": False, "gpu": "card 1"}
    assert computes_on(torch.device("cpu"), recipe) == {"deterministic": False}


def test_the_field_is_in_the_hash_where_it_is_on(recipe: Recipe, changed: Change) -> None:
    assert changed(recipe, train={"deterministic": False}).hash == recipe.hash
    assert changed(recipe, train={"deterministic": True}).hash != recipe.hash
    assert Recipe.from_json(recipe.to_json().replace('"deterministic": false,', "")).hash == recipe.hash
    with pytest.raises(RecipeError, match=r"train\.deterministic is 1; expected bool"):
        Recipe.from_json(recipe.to_json().replace('"deterministic": false', '"deterministic": 1'))
