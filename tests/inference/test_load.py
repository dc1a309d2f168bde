"""`boqsa.load`: from a run, a saved model or the hub to the same model, and one line where there is none."""

import importlib
import inspect
import time
from dataclasses import asdict

import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import boqsa
from boqsa.errors import InputError, RecipeError, RunError
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, MODEL, RECIPE, checkpoint_folder, write_checkpoint
from boqsa.inference.share import share
from boqsa.models import MixtureModel, TransformerModel
from boqsa.recipes import RECIPES, DataRecipe, MixtureRecipe, Recipe

load_module = importlib.import_module("boqsa.inference.load")  # the package's own name is the function


RESPONSE = type("Response", (), {"headers": {}, "request": None})()


def same_weights(one, other):
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left
    )


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub's client without a network: its answers are set by the test."""

    class Hub:
        def __init__(self):
            self.question: Exception | None = None
            self.files: dict[str, str] | Exception = {}
            self.local_only: bool | None = None
            self.revisions: tuple[str | None, ...] = (None, "v1")
            self.asked: list[str | None] = []

    answers = Hub()

    def model_info(self, repo_id, *, revision, timeout):
        assert timeout <= 10
        if answers.question is not None:
            raise answers.question
        if revision not in answers.revisions:
            raise RevisionNotFoundError(f"404: no {revision}", response=RESPONSE)

    def download(repo_id, name, *, revision, local_files_only):
        answers.local_only = local_files_only
        answers.asked.append(revision)
        if isinstance(answers.files, Exception):
            raise answers.files
        if name not in answers.files:
            raise EntryNotFoundError(f"no {name}")
        return answers.files[name]

    monkeypatch.setattr(load_module.HfApi, "model_info", model_info)
    monkeypatch.setattr(load_module, "hf_hub_download", download)
    return answers


def test_every_recipe_builds_a_model_of_its_sizes():
    for make in RECIPES.values():
        with torch.device("meta"):
            built = build_model(make())
        size = make().model.input_size if make().model.kind == "radiance" else make().data.image_size
        assert built.image_size == size
        assert built.num_slots == make().model.num_slots


def test_sizes_that_do_not_fit_are_the_recipe_s_mistake():
    bad = Recipe(name="odd", data=DataRecipe(name="scenes", image_size=33), model=MixtureRecipe())
    with pytest.raises(RecipeError, match=r"recipe odd: .*33"):
        build_model(bad)


def test_a_run_comes_back_in_eval_mode(run, model):
    loaded = boqsa.load(run)
    assert not loaded.training
    assert same_weights(loaded, model)
    assert same_weights(boqsa.load(str(run)), model)


def test_another_checkpoint_can_be_chosen(run, recipe, model):
    best = build_model(recipe)
    write_checkpoint(
        run / CHECKPOINTS / "best_loss", best, config=model_config(recipe), step=3, recipe_hash=recipe.hash
    )
    assert same_weights(boqsa.load(run, checkpoint="best_loss"), best)
    assert same_weights(boqsa.load(run), model)


def test_a_saved_model_comes_back_in_its_dtype(tmp_path, model):
    for index, dtype in enumerate((torch.float32, torch.float64, torch.bfloat16)):
        saved = build_model_like(model).to(dtype)
        saved.save_pretrained(tmp_path / str(index))
        loaded = boqsa.load(tmp_path / str(index))
        assert not loaded.training
        assert same_weights(loaded, saved)


@pytest.mark.parametrize("checkpoint", ["best_loss", "../x"])
def test_what_holds_one_model_has_no_other_checkpoint(tmp_path, run, model, checkpoint):
    model.save_pretrained(tmp_path / "saved")
    for folder in (tmp_path / "saved", share(run, tmp_path / "shared"), checkpoint_folder(run)):
        assert same_weights(boqsa.load(folder, checkpoint="last"), model)
        with pytest.raises(InputError, match="holds one model; leave --checkpoint out"):
            boqsa.Segmenter.from_pretrained(folder, checkpoint=checkpoint)


def test_a_saved_transformer_comes_back(tmp_path, transformer, transformer_recipe):
    transformer.save_pretrained(tmp_path / "saved")
    loaded = boqsa.load(tmp_path / "saved")
    assert type(loaded) is TransformerModel
    assert same_weights(loaded, transformer)
    folder = tmp_path / "run" / CHECKPOINTS / "last"
    config = model_config(transformer_recipe)
    write_checkpoint(folder, transformer, config=config, step=1, recipe_hash=transformer_recipe.hash)
    assert same_weights(boqsa.load(folder), transformer)
    (tmp_path / "run" / RECIPE).write_text(transformer_recipe.to_json(), encoding="utf-8")
    assert same_weights(boqsa.load(tmp_path / "run"), transformer)


def test_a_recipe_holds_every_argument_of_its_model(recipe, transformer_recipe):
    for given, kind in ((recipe, MixtureModel), (transformer_recipe, TransformerModel)):
        assert set(model_config(given)) == set(inspect.signature(kind).parameters)
        assert type(build_model(given)) is kind


@pytest.mark.parametrize("kind", ["recipe", "transformer_recipe"])
def test_the_defaults_of_a_recipe_are_those_of_its_model(kind, request):
    recipe = request.getfixturevalue(kind)
    parameters = inspect.signature(type(build_model(recipe))).parameters
    for name, value in asdict(type(recipe.model)()).items():
        assert name == "kind" or parameters[name].default == value, name


def build_model_like(model):
    return type(model)(**model._hub_mixin_config)


def test_weights_of_other_sizes_are_named(run, recipe):
    other = build_model(recipe)
    other.slot_encoder.queries.weight = torch.nn.Parameter(torch.zeros(9, 8))
    write_checkpoint(run / CHECKPOINTS / "last", other, config={}, step=0, recipe_hash=recipe.hash)
    with pytest.raises(RunError, match=r"do not fit its configuration: .*queries\.weight"):
        boqsa.load(run)


def test_folders_that_are_no_model_are_refused(tmp_path, run):
    with pytest.raises(RunError, match="neither a run nor a saved model"):
        boqsa.load(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        boqsa.load(run / RECIPE)
    folder = checkpoint_folder(run)
    configs = ("{", "[1]", "{}", '{"image_size": "a"}', '{"colour": 1}', '{"image_size": 33}')
    for config in (*configs, '{"vocab_size": 8, "decoder_grid": 8}', '{"vocab_size": 8, "image_size": 33}'):
        (folder / "config.json").write_text(config, encoding="utf-8")
        with pytest.raises(RunError, match=r"last"):
            boqsa.load(folder)


def test_damaged_weights_of_a_saved_model_are_refused(tmp_path, model):
    model.save_pretrained(tmp_path)
    (tmp_path / MODEL).write_bytes((tmp_path / MODEL).read_bytes()[:100])
    with pytest.raises(RunError, match="does not hold a model"):
        boqsa.load(tmp_path)


def test_a_name_on_the_hub_is_downloaded(hub, tmp_path, model):
    model.save_pretrained(tmp_path / "cache")
    hub.files = {name: str(tmp_path / "cache" / name) for name in ("config.json", MODEL)}
    assert same_weights(boqsa.load("someone/model"), model)
    assert hub.local_only is False


def test_without_a_connection_the_cache_is_used(hub, tmp_path, model):
    model.save_pretrained(tmp_path / "cache")
    hub.question = ConnectionError("no route")
    hub.files = {name: str(tmp_path / "cache" / name) for name in ("config.json", MODEL)}
    assert same_weights(boqsa.load("someone/model"), model)
    assert hub.local_only is True


def test_all_files_are_of_one_commit_and_a_revision_can_be_named(hub, tmp_path, model):
    model.save_pretrained(tmp_path / "c0ffee")
    hub.files = {name: str(tmp_path / "c0ffee" / name) for name in ("config.json", MODEL)}
    assert same_weights(boqsa.load("someone/model@v1"), model)
    assert hub.asked == ["v1", *3 * ["c0ffee"]]  # configuration; weights, manifest, names
    with pytest.raises(InputError, match=r"someone/model@v2 is neither .*404: no v2"):
        boqsa.load("someone/model@v2")


def test_other_weights_than_the_manifest_s_are_refused(hub, run, tmp_path, model):
    folder = share(run, tmp_path / "shared")
    hub.files = {path.name: str(path) for path in folder.iterdir()}
    assert same_weights(boqsa.load("someone/model"), model)
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes() + b" ")
    with pytest.raises(RunError, match=r"sha256 of model\.safetensors is not the one in manifest\.json"):
        boqsa.load("someone/model")
    with pytest.raises(RunError, match=r"sha256 of model\.safetensors"):
        boqsa.load(folder)
    for wrong in ("{}", "[]", '{"sha256": []}'):
        (folder / "manifest.json").write_text(wrong)
        with pytest.raises(RunError, match=r"manifest\.json has no digests"):
            boqsa.load(folder)


@pytest.mark.parametrize("name", ["nobody/nothing", "runs/typo", "typo"])
def test_a_name_that_nobody_has_is_one_line(hub, name):
    hub.question = ConnectionError("no route")
    hub.files = LocalEntryNotFoundError("not here\nand not there")
    with pytest.raises(InputError, match=f"{name} is neither a folder here nor a model on the hub") as caught:
        boqsa.load(name)
    assert "\n" not in str(caught.value)


def test_the_hub_s_own_refusal_is_told(hub):
    hub.question = RepositoryNotFoundError("404: no such model\nmore", response=RESPONSE)
    with pytest.raises(InputError, match=r"404: no such model\)"):
        boqsa.load("nobody/nothing")


@pytest.mark.parametrize("name", ["bad name!", "a/b/c", "/gone/run", "../gone", ""])
def test_what_cannot_be_a_name_never_reaches_the_network(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises((InputError, RunError)):
        boqsa.load(name)


def test_an_unreachable_hub_is_given_up_quickly(monkeypatch):
    """The real client, against a port where nobody listens."""
    monkeypatch.setattr(load_module, "HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9"))
    started = time.monotonic()
    with pytest.raises(InputError, match="out of reach"):
        boqsa.load("nobody/nothing-of-this-name")
    assert time.monotonic() - started < 5
