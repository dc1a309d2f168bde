"""A folder to share: what is in it, what its card says, and that the hub gets it whole."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import boqsa
from boqsa.atomic import write_text
from boqsa.commands import main
from boqsa.errors import InputError, RunError
from boqsa.inference import share as module
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, read_recipe, write_checkpoint
from boqsa.inference.share import TRAINING_RECIPE, protocol_hash, push, share
from boqsa.recipes import FeaturesRecipe, Recipe


def evaluated(run: Path, *, ari_fg: float = 0.75, seed: int | None = None) -> Path:
    """With a metrics.json as `boqsa evaluate` writes it."""
    recipe = read_recipe(run)
    if seed is not None:
        recipe = replace(recipe, seed=seed)
        write_text(run / RECIPE, recipe.to_json())
    scores = {"decoder_masks": {"ari_fg": ari_fg, "msc_fg": 0.5, "left_out": {}}}
    metrics = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "iterations": 3,
        "dataset": {
            "name": "scenes",
            "split": "test",
            "images": 9,
            "fingerprint": "ab" * 32,
            "partial": False,
            "leak": "",
        },
        "scores": {"last": scores, "best_ari_fg": scores},
        "baselines": {"k_means": {"ari_fg": 0.25, "what": "k-means"}},
        "command": "boqsa evaluate /home/me/secret",
        "training": {"seconds": 7200.0, "started_on": {"device": "cpu", "torch": "2.13.0"}},
    }
    write_text(run / "metrics.json", json.dumps(metrics))
    return run


def test_the_folder_is_a_model_with_its_digests(run: Path, model: torch.nn.Module, tmp_path: Path) -> None:
    recipe = read_recipe(run)
    write_text(run / RECIPE, replace(recipe, data=replace(recipe.data, root="/home/me/secret")).to_json())
    folder = share(evaluated(run), tmp_path / "shared")
    names = {"README.md", "config.json", "manifest.json", "metrics.json", "model.safetensors", "training_recipe.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert all(b"secret" not in path.read_bytes() for path in folder.iterdir())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["sha256"]) == names - {"manifest.json"}
    assert manifest["recipe"] == read_recipe(run).hash
    loaded = boqsa.load(folder)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert share(run, folder) == folder  # made again in its place


@pytest.fixture
def features_run(run: Path, tmp_path: Path) -> Path:
    """A run of a features model that names folders of its owner wherever a recipe can."""
    model = FeaturesRecipe(
        patch_size=4,
        feature_size=16,
        num_slots=3,
        slot_size=8,
        mlp_size=12,
        decoder_size=20,
        decoder_layers=1,
        encoder="/home/me/secret/encoder",
        encoder_sha256="ab" * 32,
    )
    recipe = replace(read_recipe(run), model=model)
    train = replace(recipe.train, init_from="/home/me/secret/run")
    train = replace(train, radiance=replace(train.radiance, perceptual_file="/home/me/secret/vgg16.pth"))
    return write_features_run(tmp_path / "features", replace(recipe, train=train))


def write_features_run(folder: Path, recipe: Recipe) -> Path:
    checkpoint = folder / CHECKPOINTS / "last"
    write_checkpoint(checkpoint, build_model(recipe), config=model_config(recipe), step=1, recipe_hash=recipe.hash)
    write_text(folder / RECIPE, recipe.to_json())
    return folder


def test_no_folder_of_its_owner_is_told(features_run: Path, tmp_path: Path) -> None:
    metrics = json.loads((evaluated(features_run) / "metrics.json").read_text())
    metrics["damaged"] = {"best_loss": "/home/me/secret/run/checkpoints/best_loss is damaged: its sha256 is another"}
    write_text(features_run / "metrics.json", json.dumps(metrics))
    folder = share(features_run, tmp_path / "shared")
    assert all(b"secret" not in path.read_bytes() for path in folder.iterdir())
    told, recipe = Recipe.from_json((folder / TRAINING_RECIPE).read_text()), read_recipe(features_run)
    assert told.model.encoder_sha256 == recipe.model.encoder_sha256
    loaded, before = boqsa.load(folder), boqsa.load(features_run)
    assert loaded.encoder_name is None
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_the_card_tells_of_earlier_weights_that_its_hash_counts(features_run: Path, tmp_path: Path) -> None:
    folder = share(features_run, tmp_path / "shared")
    recipe = read_recipe(features_run)
    assert json.loads((folder / "manifest.json").read_text())["recipe"] == recipe.hash
    assert Recipe.from_json((folder / TRAINING_RECIPE).read_text()).hash != recipe.hash
    said = (folder / "README.md").read_text()
    assert f"hash `{recipe.hash}`" in said
    assert "It began with the weights of an earlier run" in said
    fresh = replace(recipe, train=replace(recipe.train, init_from=None))
    shared = share(write_features_run(tmp_path / "fresh", fresh), tmp_path / "other")
    assert Recipe.from_json((shared / TRAINING_RECIPE).read_text()).hash == fresh.hash
    assert "earlier run" not in (shared / "README.md").read_text()


@pytest.mark.parametrize("encoder", ["facebook/dino-vitb16", "facebook/dino-vitb16@main"])
def test_an_encoder_of_the_hub_is_told(features_run: Path, tmp_path: Path, encoder: str) -> None:
    recipe = read_recipe(features_run)
    of_hub = replace(recipe, model=replace(recipe.model, encoder=encoder))  # type: ignore[arg-type]
    folder = share(write_features_run(tmp_path / "of-hub", of_hub), tmp_path / "shared")
    assert boqsa.load(folder).encoder_name == encoder


def test_the_card_has_data_scores_and_limits(run: Path, tmp_path: Path) -> None:
    text = (share(evaluated(run), tmp_path / "shared", licence="cc-by-4.0") / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["license"] == "cc-by-4.0"
    assert facts["library_name"] == "boqsa"
    (result,) = facts["model-index"]
    assert {metric["type"]: metric["value"] for entry in result["results"] for metric in entry["metrics"]} == {
        "ari_fg": 0.75,
        "msc_fg": 0.5,
    }
    metrics = json.loads((run / "metrics.json").read_text())
    for said in (
        "| last (the last step) | 0.750 | 0.500 |",
        "| best_ari_fg (chosen by labels) | 0.750 | 0.500 |",
        "| *k means* | 0.250 |  |",
        "2.0 hours on cpu, torch 2.13.0",
        f"Protocol `{protocol_hash(metrics, read_recipe(run))}`",
        "Licence of the data: Apache-2.0",
        "Not for decisions about people",
        f"There are {read_recipe(run).model.num_slots} slots",
    ):
        assert said in body, said


def test_seeds_give_means_and_spreads(run: Path, tmp_path: Path) -> None:
    other = evaluated(Path(shutil.copytree(run, tmp_path / "other")), ari_fg=0.65, seed=7)
    folder = share(evaluated(run), tmp_path / "shared", seeds=[other])
    text = (folder / "README.md").read_text()
    assert f"Seeds {read_recipe(run).seed}, 7" in text
    assert "| this recipe | 0.700 ± 0.071 | 0.500 ± 0.000 |" in text


def test_what_is_no_other_seed_is_refused(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    with pytest.raises(RunError, match="is not the recipe"):
        share(run, tmp_path / "shared", seeds=[other])
    write_text(other / RECIPE, replace(read_recipe(run), seed=7).to_json())
    with pytest.raises(RunError, match="was not evaluated"):
        share(run, tmp_path / "shared", seeds=[other])
    assert not (tmp_path / "shared").exists()


def test_a_protocol_hash_is_of_what_scores_depend_on(run: Path) -> None:
    recipe = read_recipe(evaluated(run))
    metrics = json.loads((run / "metrics.json").read_text())
    plain = protocol_hash(metrics, recipe)
    assert protocol_hash({**metrics, "seed": 9, "scores": {}}, replace(recipe, seed=9)) == plain
    assert protocol_hash({**metrics, "iterations": 1}, recipe) != plain
    assert protocol_hash({**metrics, "dataset": {**metrics["dataset"], "fingerprint": "cd"}}, recipe) != plain


def test_what_stands_in_the_way_stays(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match=r"has notes\.txt, which `boqsa share` did not make"):
        share(run, tmp_path / "mine")
    (run / "metrics.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        share(run, tmp_path / "shared")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert not (tmp_path / "shared").exists()


def test_a_link_in_a_stranger_s_run_is_not_followed(run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("PRIVATE KEY")
    folder = run / CHECKPOINTS / "last"
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]["config.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(secret)
    with pytest.raises(RunError, match=r"knows no file config\.json"):
        share(run, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_a_run_that_goes_on_meanwhile_is_not_mixed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.copyfile

    def copying(source: Path, target: Path) -> None:
        real(source, target)
        Path(target).write_bytes(Path(target).read_bytes() + b" ")

    monkeypatch.setattr(module.shutil, "copyfile", copying)
    with pytest.raises(RunError, match="changed while it was copied"):
        share(run, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_scores_of_another_step_are_not_shown_for_these_weights(run: Path, tmp_path: Path) -> None:
    metrics = json.loads((evaluated(run) / "metrics.json").read_text())
    metrics["scores"]["last"]["step"] = 12345
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(RunError, match="is of step 12345, and last is of step"):
        share(run, tmp_path / "shared")


def test_scores_that_are_none_and_runs_without_masks_have_a_card(run: Path, tmp_path: Path) -> None:
    metrics = json.loads((evaluated(run) / "metrics.json").read_text())
    metrics["scores"]["last"]["decoder_masks"]["ari_fg"] = None
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert "0.500" in (share(run, tmp_path / "shared") / "README.md").read_text()
    metrics["scores"], metrics["baselines"] = {"last": {}}, {}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert "no masks to score against" in (share(run, tmp_path / "shared") / "README.md").read_text()


def test_what_a_user_added_to_a_shared_folder_stays(run: Path, tmp_path: Path) -> None:
    folder = share(run, tmp_path / "shared")
    (folder / ".git").mkdir()
    with pytest.raises(InputError, match=r"has \.git, which `boqsa share` did not make"):
        share(run, folder)
    (tmp_path / "empty").mkdir()
    assert (share(run, tmp_path / "empty") / "README.md").is_file()


class Hub:
    """The hub's client without a network."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.uploads = error, list[tuple[str, str]]()

    def create_repo(self, hub_id: str, **_: object) -> None:
        if self.error:
            raise self.error

    def upload_folder(self, *, folder_path: Path, repo_id: str, commit_message: str) -> object:
        self.uploads.append((str(folder_path), repo_id))
        return type("Commit", (), {"oid": "c0ffee"})()


def test_the_hub_gets_the_folder_in_one_commit(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    hub = Hub()
    monkeypatch.setattr(module, "HfApi", lambda: hub)
    out = tmp_path / "shared"
    assert main(["share", str(evaluated(run)), "--out", str(out), "--push", "me/model"]) == 0
    assert hub.uploads == [(str(out), "me/model")]
    assert 'boqsa.load("me/model@c0ffee")' in capsys.readouterr().out
    monkeypatch.setattr(module, "HfApi", lambda: Hub(ConnectionError("no route\nmore")))
    with pytest.raises(InputError, match=r"me/model could not be uploaded \(no route\); log in"):
        push(out, "me/model")
    (out / "config.json").write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        push(out, "me/model")
    assert len(hub.uploads) == 1


def test_torch_hub_loads_from_the_repository(
    run: Path, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    repository = Path(__file__).parents[2]
    loaded = torch.hub.load(str(repository), "boqsa", str(run), source="local")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_checkpoint_can_be_chosen(run: Path, model: torch.nn.Module, tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in model.state_dict().items()}
    changed = boqsa.load(run)
    changed.load_state_dict(other)
    recipe = read_recipe(run)
    write_checkpoint(
        run / CHECKPOINTS / "best_loss", changed, config=model._hub_mixin_config, step=5, recipe_hash=recipe.hash
    )
    folder = share(run, tmp_path / "shared", checkpoint="best_loss")
    assert "step 5 of" in (folder / "README.md").read_text()
    assert all(torch.equal(value, other[name]) for name, value in boqsa.load(folder).state_dict().items())
