"""`boqsa convert`: a released checkpoint becomes a run that `boqsa segment` takes; refusals make nothing."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from boqsa.commands import main
from boqsa.inference.load import build_model
from boqsa.models.published import published_names
from boqsa.recipes import get_recipe


@pytest.fixture
def official(tmp_path):
    """A checkpoint of the demo's sizes under the published names."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = build_model(get_recipe("demo"))
    weights = {f"model.{name}": built.state_dict()[ours] for ours, name in published_names(built).items()}
    torch.save({"state_dict": weights, "global_step": 10}, tmp_path / "released.ckpt")
    return str(tmp_path / "released.ckpt")


def test_a_converted_run_segments(official, tmp_path, capsys):
    run, out = str(tmp_path / "run"), tmp_path / "out"
    assert main(["convert", official, "--recipe", "demo", "--out", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run": run,
        "recipe": "demo",
        "recipe_hash": get_recipe("demo").hash,
    }
    Image.new("RGB", (50, 20), "red").save(tmp_path / "a.png")
    assert main(["segment", run, str(tmp_path / "a.png"), "--out", str(out)]) == 0
    assert np.asarray(Image.open(out / "a_labels.png")).shape == (20, 50)


def test_words_say_what_is_next(official, tmp_path, capsys):
    assert main(["convert", official, "--recipe", "demo", "--out", str(tmp_path / "run")]) == 0
    assert "boqsa segment" in capsys.readouterr().out


def test_a_converted_run_has_nothing_to_go_on_from(official, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["convert", official, "--recipe", "demo", "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 2
    assert "holds weights alone; start a new run from it with --train.init-from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "source", "said"),
    [
        ("dmo", "released.ckpt", "did you mean demo"),
        (
            "shapestacks_mixture_small",
            "released.ckpt",
            "slot_attn.slots_init.weight is (5, 32), the model has (7, 32)",
        ),
        ("objectsroom_slot_attention", "released.ckpt", "missing slot_attn.slot_mu"),
        ("demo", "gone.ckpt", "there is no file"),
        ("demo", "text.ckpt", "damaged"),
    ],
)
def test_refusals_exit_with_2_and_make_nothing(official, tmp_path, capsys, *, recipe, source, said):
    (tmp_path / "text.ckpt").write_text("no", encoding="utf-8")
    run = tmp_path / "run"
    assert main(["convert", str(tmp_path / source), "--recipe", recipe, "--out", str(run), "--json"]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert not run.exists()


def test_a_folder_in_use_is_kept(official, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine", encoding="utf-8")
    assert main(["convert", official, "--recipe", "demo", "--out", str(tmp_path / "run")]) == 2
    assert "already exists" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]
