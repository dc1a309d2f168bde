"""Checkpoints: whole or not there, verified when read, nothing but plain data."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from boqsa.errors import RunError
from boqsa.inference.run import load_weights
from boqsa.training.checkpoint import read_training, save_checkpoint


@pytest.fixture
def model() -> nn.Module:
    return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)


def save(folder: Path, model: nn.Module, step: int = 7) -> None:
    trainer = {"step": step, "moments": [torch.arange(3.0)], "best": {"loss": -0.5}}
    save_checkpoint(folder, model, config={"a": 1}, step=step, recipe_hash="abc", trainer=trainer)


def test_round_trip(tmp_path: Path, model: nn.Module) -> None:
    save(tmp_path / "last", model)
    for name, tensor in load_weights(tmp_path / "last").items():
        assert torch.equal(tensor, model.state_dict()[name])
    _, state = read_training(tmp_path / "last")
    assert state is not None
    assert state["step"] == 7
    assert torch.equal(state["moments"][0], torch.arange(3.0))
    assert json.loads((tmp_path / "last" / "manifest.json").read_text())["recipe"] == "abc"


def test_weights_are_plain_safetensors(tmp_path: Path, model: nn.Module) -> None:
    save(tmp_path / "last", model)
    assert set(load_file(tmp_path / "last" / "model.safetensors")) == {"weight", "bias"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "trainer.pt", "manifest.json"])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_byte_is_found_wherever_it_matters(tmp_path: Path, model: nn.Module, name: str, place: float) -> None:
    save(tmp_path / "last", model)
    path = tmp_path / "last" / name
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(RunError, match="last"):
        read_training(tmp_path / "last")


def test_a_changed_step_in_the_manifest_is_found(tmp_path: Path, model: nn.Module) -> None:
    save(tmp_path / "last", model)
    path = tmp_path / "last" / "manifest.json"
    path.write_text(path.read_text().replace('"step": 7', '"step": 3'))
    with pytest.raises(RunError, match="damaged"):
        read_training(tmp_path / "last")


def test_weights_alone_have_no_state_of_training(tmp_path: Path, model: nn.Module) -> None:
    save_checkpoint(tmp_path / "best", model, config={}, step=1, recipe_hash="abc")
    assert read_training(tmp_path / "best")[1] is None


def test_a_failing_write_leaves_the_old_checkpoint(
    tmp_path: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "last", model, step=7)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "last", model, step=8)
    assert read_training(tmp_path / "last")[0]["step"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
