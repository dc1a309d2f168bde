"""What `boqsa train` says before the first step and after the last one."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boqsa.commands import main
from boqsa.data.packing import write_packed

SMALL = {
    "data.image-size": 16,
    "model.num-slots": 2,
    "model.slot-size": 4,
    "model.mlp-size": 4,
    "model.encoder-channels": 4,
    "model.encoder-strides": 2,
    "model.decoder-channels": 4,
    "model.decoder-strides": 2,
    "train.steps": 1,
    "train.batch-size": 2,
    "train.threads": 1,
}


@pytest.fixture
def arguments(tmp_path: Path) -> Callable[..., list[str]]:
    """`arguments(run)` trains one step of a tiny model on noise."""
    generator = np.random.default_rng(0)
    images = {name: generator.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8) for name in ("train", "val")}
    masks = {name: generator.integers(0, 3, (4, 16, 16), dtype=np.uint8) for name in images}
    splits = {name: (images[name], masks[name]) for name in images}
    words = {"name": "arrays", "source": "drawn", "licence": "none", "split_rule": "drawn"}
    write_packed(tmp_path / "packed", splits, task="multi-object", **words)
    fields = [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]

    def typed(run: Path, *more: str) -> list[str]:
        data = ["--data.root", str(tmp_path / "packed")]
        return ["train", "objectsroom_mixture_small", "--out", str(run), *data, *fields, *more]

    return typed


def test_a_finished_run_says_where_everything_lies(
    tmp_path: Path, arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a run"
    assert main(arguments(run)) == 0
    out = capsys.readouterr().out
    for part in (
        f"log          {run}/log.jsonl",
        f"checkpoints  {run}/checkpoints: best_ari_fg, best_loss, last",
        f"recipe       {run}/recipe.json",
        f"boqsa evaluate '{run}'",
        f"boqsa plot '{run}'",
        f"boqsa segment '{run}' PICTURE --out DIR",
    ):
        assert part in out
    assert "tensorboard" not in out


@pytest.mark.parametrize("resumed", [False, True])
def test_a_sink_whose_package_is_missing_is_one_line_and_makes_nothing(
    *,
    resumed: bool,
    tmp_path: Path,
    arguments: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    typed = arguments(run)
    if resumed:
        run.mkdir()
        assert main(["recipes", "objectsroom_mixture_small", "--json"]) == 0
        (run / "recipe.json").write_text(capsys.readouterr().out)
        typed = ["train", "--resume", str(run)]
    before = sorted(tmp_path.rglob("*"))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "wandb" else real(name, *_))
    assert main([*typed, "--log-to", "wandb"]) == 2
    err = capsys.readouterr().err
    assert "pip install 'boqsa[wandb]'" in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_sink_is_refused(
    tmp_path: Path, arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "run", "--log-to", "comet")) == 2
    assert "'comet'" in capsys.readouterr().err
