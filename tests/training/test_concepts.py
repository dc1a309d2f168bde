"""Concepts of a run: what is counted is what segmenting gives, files are whole, and other data get their own names."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boqsa.atomic import write_text
from boqsa.commands import main
from boqsa.data import PackedDataset, builtin
from boqsa.data.packing import PackedWriter, write_packed
from boqsa.errors import InputError, RunError
from boqsa.inference import Segmenter, load_encoder
from boqsa.inference.features import write_features
from boqsa.inference.load import build_model, model_config
from boqsa.inference.names import name_slots
from boqsa.inference.run import CHECKPOINTS, RECIPE, read_recipe, write_checkpoint
from boqsa.plain import without_nan
from boqsa.recipes import DataRecipe, FeaturesRecipe, Recipe
from boqsa.training.concepts import find_concepts


def written(recipe: Recipe, run: Path) -> Path:
    """A run folder with weights that tell slots apart."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = build_model(recipe)
        if recipe.model.kind in ("mixture", "features"):
            with torch.no_grad():
                if recipe.model.kind == "features":
                    model.decoder.positions.normal_()
                for parameter in model.decoder.parameters():
                    parameter.mul_(4)
    write_checkpoint(run / CHECKPOINTS / "last", model, config=model_config(recipe), step=7, recipe_hash=recipe.hash)
    write_text(run / RECIPE, recipe.to_json())
    return run


@pytest.fixture
def run(recipe: Recipe, tmp_path: Path) -> Path:
    return written(recipe, tmp_path / "run")


def test_the_numbers_are_those_of_segmenting(run: Path, packed: Path) -> None:
    told = []
    found = find_concepts(run, progress=lambda done, total: told.append((done, total)))
    assert told == [(5, 8), (8, 8)], "in batches of the recipe"
    pictures = PackedDataset(packed, "test").batch(range(8))["image"].permute(0, 2, 3, 1).numpy()
    seen = list(Segmenter.from_pretrained(run).predict_batch(list(pictures)))
    share = np.stack([one.share for one in seen])
    confidence = np.stack([one.confidence for one in seen])
    owns = share >= 1 / 128
    for slot, one in enumerate(found["slots"]):
        assert one["images"] == owns[:, slot].sum()
        if one["images"]:
            assert one["area"] == pytest.approx(share[owns[:, slot], slot].mean())
            assert one["confidence"] == pytest.approx(confidence[owns[:, slot], slot].mean())
    masks = PackedDataset(packed, "test").batch(range(8))["mask"]
    assert found["objects"] == sum(len(mask[mask > 0].unique()) for mask in masks)
    assert list(found["attributes"]) == ["colour", "size", "position", "label"]
    assert found["classes"]["label"] == ["1", "2"]
    assert sum(found["attributes"]["label"]) == found["objects"]
    assert sum(found["pixels"]["pixel_colour"]) == 8 * 16 * 16


def test_files_are_written_and_the_same_again(run: Path) -> None:
    name_slots(run, {1: "blue <square>"})
    found = find_concepts(run, images=4, examples=2)
    assert found["page"] == str(run / "concepts.html")
    page, numbers = (run / "concepts.html").read_bytes(), (run / "concepts.json").read_bytes()
    assert b"blue &lt;square&gt;" in page
    assert json.loads(numbers)["images"] == 4
    assert all(len(one["strongest"]) <= 2 for one in json.loads(numbers)["slots"])
    find_concepts(run, images=4, examples=2)
    assert (run / "concepts.html").read_bytes() == page
    assert (run / "concepts.json").read_bytes() == numbers
    assert find_concepts(run, split="val", images=3)["page"] == str(run / "concepts_arrays_val.html")
    assert find_concepts(run, iterations=1, images=3)["page"] == str(run / "concepts_iterations1.html")
    assert (run / "concepts.html").read_bytes() == page


def test_pictures_without_masks_have_colours(recipe: Recipe, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    folder = tmp_path / "bare"
    folder.mkdir()
    with PackedWriter(folder, (16, 16)) as writer:
        writer.append("test", images, None, names=[f"{number}.jpg" for number in range(6)])
        writer.finish(name="arrays", source="drawn", licence="none", task="foreground", split_rule="drawn")
    run = written(replace(recipe, data=replace(recipe.data, root=str(folder))), tmp_path / "run")
    found = find_concepts(run)
    assert found["objects"] == 0
    assert found["attributes"] == {}
    assert list(found["pixels"]) == ["pixel_colour"]
    regions = [region for one in found["slots"] for region in one["strongest"]]
    assert regions
    assert all(region["name"] == f"{region['image']}.jpg" for region in regions)


def test_built_in_scenes_tell_kind_and_paint(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "TEST_SCENES", 6)
    monkeypatch.setattr(builtin, "VALIDATION_SCENES", 2)
    monkeypatch.setattr(builtin, "_STARTS", {"test": 0, "val": 6, "train": 8})
    monkeypatch.setenv("BOQSA_CACHE", str(tmp_path / "cache"))
    data = DataRecipe(name="scenes", image_size=16, scene_count=4)
    found = find_concepts(written(replace(recipe, data=data), tmp_path / "run"), images=5)
    assert list(found["attributes"]) == ["kind", "true_colour", "size", "true_position"]
    assert sum(found["attributes"]["kind"]) == found["objects"]


def test_sampled_slots_are_told_at_the_top(recipe: Recipe, run: Path, tmp_path: Path) -> None:
    sampled = replace(recipe, model=replace(recipe.model, queries="shared_gaussian"))
    found = find_concepts(written(sampled, tmp_path / "sampled"), images=3)
    assert "samples of one Gaussian" in found["warning"]
    text = (tmp_path / "sampled" / "concepts.html").read_text()
    assert text.index("samples of one Gaussian") < text.index("All slots")
    assert find_concepts(run, images=3)["warning"] == ""


def test_a_transformer_has_concepts_too(transformer_recipe: Recipe, tmp_path: Path) -> None:
    found = find_concepts(written(transformer_recipe, tmp_path / "run"), images=5)
    assert sum(one["images"] for one in found["slots"]) >= 5


@pytest.fixture
def features_run(recipe: Recipe, encoder_folder: Path, tmp_path: Path) -> Path:
    """A run on features of the squares, of an encoder that stands beside it."""
    place = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    model = FeaturesRecipe(
        patch_size=4,
        feature_size=16,
        num_slots=3,
        slot_size=8,
        mlp_size=12,
        decoder_size=20,
        encoder=str(place),
        encoder_sha256=load_encoder(place).sha256,
    )
    return written(replace(recipe, model=model), tmp_path / "run")


def test_a_features_model_looks_through_its_encoder(
    features_run: Path, packed: Path, squares: Callable[..., Any], tmp_path: Path
) -> None:
    found = find_concepts(features_run)
    pictures = PackedDataset(packed, "test").batch(range(8))["image"].permute(0, 2, 3, 1).numpy()
    share = np.stack([one.share for one in Segmenter.from_pretrained(features_run).predict_batch(list(pictures))])
    owns = share >= 1 / 128
    assert [one["images"] for one in found["slots"]] == owns.sum(axis=0).tolist()
    assert (features_run / "concepts.html").is_file()
    # A set with features says the same, and none of them is read; its pictures may be larger than the encoder sees.
    write_features(packed, load_encoder(tmp_path / "encoder"), tmp_path / "features")
    data = replace(read_recipe(features_run).data, root=str(tmp_path / "features"))
    again = find_concepts(features_run, data=data)
    assert without_nan(again["slots"]) == without_nan(found["slots"])
    assert sum(one["images"] > 0 for one in found["slots"]) > 1, "there is something to compare"
    large = {"test": squares(5, seed=1, size=40, side=15)}
    described = {"source": "drawn", "licence": "none", "task": "multi-object", "split_rule": "drawn"}
    write_packed(tmp_path / "large", large, name="arrays", **described)
    write_features(tmp_path / "large", load_encoder(tmp_path / "encoder"), tmp_path / "seen", image_size=16)
    seen = find_concepts(features_run, data=replace(data, root=str(tmp_path / "seen")))
    assert sum(seen["pixels"]["pixel_colour"]) == 5 * 40 * 40


def test_the_encoder_of_a_features_model_may_have_moved(
    features_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = (tmp_path / "encoder").rename(tmp_path / "moved")
    assert main(["concepts", str(features_run), "--images", "3"]) == 2
    error = capsys.readouterr().err
    assert "name its folder with --encoder DIR" in error
    assert error.count("\n") == 1
    assert not list(features_run.glob("concepts*"))
    assert main(["concepts", str(features_run), "--images", "3", "--encoder", str(moved)]) == 0
    assert (features_run / "concepts.json").is_file()


def test_other_models_have_no_encoder(run: Path, encoder_folder: Path) -> None:
    with pytest.raises(InputError, match="is no features model and has no encoder; leave --encoder out"):
        find_concepts(run, encoder=encoder_folder)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"images": -1}, "number of images is -1"),
        ({"examples": 0}, "number of examples is 0"),
        ({"split": "nope"}, "no split 'nope'"),
        ({"device": "nope"}, "device 'nope'"),
        ({"iterations": 0}, "iterations is 0"),
    ],
)
def test_wrong_wishes_write_nothing(run: Path, asked: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        find_concepts(run, **asked)  # type: ignore[arg-type]
    assert not list(run.glob("concepts*"))


def test_damaged_names_are_told_before_any_work(run: Path) -> None:
    (run / "names.json").write_text("[]")
    with pytest.raises(RunError, match=r"names\.json does not hold names"):
        find_concepts(run)
    assert not list(run.glob("concepts*"))
