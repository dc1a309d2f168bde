"""Released checkpoints: converted exactly, read without trust, refused whole."""

import argparse
import contextlib
import os
import pickle
import shutil
import subprocess
import zipfile
from collections import OrderedDict, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import boqsa
from boqsa.errors import InputError, RunError
from boqsa.inference.convert import convert, read_published
from boqsa.inference.load import build_model
from boqsa.inference.run import read_manifest, read_recipe
from boqsa.models import MixtureModel
from boqsa.models.published import published_names

MARK = "was-executed"


class Callback:
    """Stands for a class of the writer's own, as Lightning's callbacks are."""

    def __init__(self):
        self.best = {"score": torch.ones(())}


class SettingsDict(dict):
    """Stands for Lightning's AttributeDict."""


class Hostile:
    """Calls a function where it is unpickled with trust."""

    def __init__(self, function, *arguments):
        self.made = (function, arguments)

    def __reduce__(self):
        return self.made


def published_weights(model):
    """The weights of a model as a released checkpoint names them, and the buffers beside them."""
    weights = {f"model.{name}": model.state_dict()[ours] for ours, name in published_names(model).items()}
    weights["model.slot_attn.pos_emb.grid"] = torch.zeros(1, 16, 16, 4)
    if isinstance(model, MixtureModel):
        weights["model.decoder.pos_emb.grid"] = torch.zeros(1, 8, 8, 4)
    else:
        for block in range(2):
            weights[f"model.tf_dec.blocks.{block}.self_attn_mask"] = torch.ones(16, 16, dtype=torch.bool)
    return weights


def lightning(model, **more):
    return {
        "state_dict": OrderedDict(published_weights(model)),
        "hyper_parameters": {"lr": 4e-4, "name": "mixture"},
        "pytorch-lightning_version": "1.1.4",
        "epoch": 3,
        "global_step": 1234,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        **more,
    }


@pytest.fixture
def official(tmp_path):
    return tmp_path / "released.ckpt"


def test_a_converted_model_computes_the_same(tmp_path, official, model, recipe):
    torch.save(lightning(model), official)
    convert(official, recipe, tmp_path / "converted")
    converted = boqsa.load(tmp_path / "converted")
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = converted(image), model(image)
    assert torch.equal(ours.masks, theirs.masks)
    assert torch.equal(ours.slots, theirs.slots)
    assert torch.equal(ours.reconstruction, theirs.reconstruction)


def test_the_run_has_the_recipe_and_the_step(tmp_path, official, model, recipe):
    torch.save(lightning(model), official)
    convert(official, recipe, tmp_path / "converted")
    assert read_recipe(tmp_path / "converted") == recipe
    manifest = read_manifest(tmp_path / "converted" / "checkpoints" / "last")
    assert (manifest["step"], manifest["recipe"]) == (1234, recipe.hash)
    assert set(manifest["sha256"]) == {"model.safetensors", "config.json"}


def test_weights_alone_are_enough(tmp_path, official, model, recipe):
    torch.save(published_weights(model), official)
    convert(official, recipe, tmp_path / "plain")
    torch.save(published_weights(model), official, _use_new_zipfile_serialization=False)
    convert(official, recipe, tmp_path / "old")
    save_file(published_weights(model), tmp_path / "released.safetensors")
    convert(tmp_path / "released.safetensors", recipe, tmp_path / "safe")
    for name in ("plain", "old", "safe"):
        weights = boqsa.load(tmp_path / name).state_dict()
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_an_empty_folder_is_filled(tmp_path, official, model, recipe):
    torch.save(lightning(model), official)
    (tmp_path / "empty").mkdir()
    convert(official, recipe, tmp_path / "empty")
    assert boqsa.load(tmp_path / "empty").num_slots == 4


def test_classes_of_the_writer_are_neither_needed_nor_used(official, model):
    """Settings and callbacks as Lightning writes them, also classes as keys."""
    content = lightning(
        model,
        hyper_parameters=argparse.Namespace(lr=1.0, sub=SettingsDict(a=1)),
        counts=defaultdict(int, a=1),
        scores=np.float64(0.5),
        callbacks={Callback: {"best": Callback()}},
        path=Path("somewhere"),
    )
    torch.save(content, official)
    published = read_published(official)
    assert published.step == 1234
    expected = published_weights(model)
    assert published.weights.keys() == expected.keys()
    assert all(torch.equal(published.weights[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    "hostile",
    [
        Hostile(os.mkdir, MARK),
        Hostile(subprocess.check_call, ["mkdir", MARK]),
        Hostile(exec, f"import os; os.mkdir('{MARK}')"),
        Hostile(eval, f"__import__('os').mkdir('{MARK}')"),
        Hostile(shutil.copytree, ".", MARK),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_is_not_executed(tmp_path, official, model, recipe, monkeypatch, *, hostile, zipped):
    monkeypatch.chdir(tmp_path)
    content = lightning(model, hyper_parameters=hostile)
    torch.save(content, official, _use_new_zipfile_serialization=zipped)
    with contextlib.suppress(InputError):
        convert(official, recipe, tmp_path / "converted")
    assert not (tmp_path / MARK).exists()


def test_the_hostile_file_would_be_executed_with_trust(tmp_path, official, monkeypatch):
    """Or the test above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    torch.save(Hostile(os.mkdir, MARK), official)
    torch.load(official, weights_only=False)
    assert (tmp_path / MARK).is_dir()


def test_what_holds_no_tensors_is_refused(tmp_path, official, model, recipe):
    for state in (Callback(), Hostile(dict, [("a", 1)]), [1, 2], {"a": 1}):
        torch.save({"state_dict": state}, official)
        with pytest.raises(InputError):
            convert(official, recipe, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_differences_are_named_and_nothing_is_made(tmp_path, official, model, recipe):
    content = lightning(model)
    del content["state_dict"]["model.slot_attn.slots_init.weight"]
    content["state_dict"]["model.extra"] = torch.zeros(1)
    content["state_dict"]["model.slot_attn.mlp.1.weight"] = torch.zeros(2, 3)
    torch.save(content, official)
    with pytest.raises(InputError) as caught:
        convert(official, recipe, tmp_path / "converted")
    for name in (
        "missing slot_attn.slots_init.weight",
        "left over extra",
        "slot_attn.mlp.1.weight is (2, 3)",
    ):
        assert name in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [official.name]


def test_a_run_that_exists_is_kept(tmp_path, official, run, model, recipe):
    torch.save(lightning(model), official)
    before = sorted(path.name for path in run.rglob("*"))
    for target in (run, official):
        with pytest.raises(RunError, match="already exists"):
            convert(official, recipe, target)
    assert sorted(path.name for path in run.rglob("*")) == before


def test_files_that_are_no_checkpoint_are_refused(tmp_path, official, recipe):
    torch.save({"state_dict": {}}, tmp_path / "empty.ckpt")
    torch.save(torch.zeros(3), tmp_path / "tensor.ckpt")
    (tmp_path / "nothing.ckpt").write_bytes(b"")
    (tmp_path / "text.ckpt").write_text("hello", encoding="utf-8")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "text.safetensors").write_text("hello", encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("a.txt", "hello")
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, official)
    official.write_bytes(official.read_bytes()[:2000])
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError) as caught:
            convert(path, recipe, tmp_path / "converted")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="there is no file"):
        convert(tmp_path / "gone.ckpt", recipe, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize("queries", ["shared_gaussian", "independent_gaussians"])
def test_sampled_queries_are_converted(tmp_path, official, recipe, queries):
    sampled = replace(recipe, model=replace(recipe.model, queries=queries))
    original = build_model(sampled)
    torch.save(lightning(original), official)
    convert(official, sampled, tmp_path / "converted")
    weights = boqsa.load(tmp_path / "converted").state_dict()
    assert all(torch.equal(weights[name], value) for name, value in original.state_dict().items())


def test_a_transformer_is_converted(tmp_path, official, transformer, transformer_recipe):
    torch.save(lightning(transformer), official)
    convert(official, transformer_recipe, tmp_path / "converted")
    assert read_recipe(tmp_path / "converted") == transformer_recipe
    converted = boqsa.load(tmp_path / "converted")
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = converted(image), transformer(image)
    for name in ("masks", "reconstruction", "tokens", "logits"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_weights_of_the_other_kind_are_refused(tmp_path, official, transformer, recipe, transformer_recipe):
    torch.save(lightning(transformer), official)
    with pytest.raises(InputError, match=r"missing decoder\.conv.*left over dvae\.encoder"):
        convert(official, recipe, tmp_path / "converted")
    slate = replace(transformer_recipe, model=replace(transformer_recipe.model, features="tokens"))
    with pytest.raises(InputError, match="no SLATE"):
        convert(official, slate, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()
