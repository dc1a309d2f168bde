"""Training on features from a file: what is read, what a run records, exact resuming, scores, and refusals."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from boqsa.commands import main
from boqsa.data import PackedDataset
from boqsa.data.packing import write_packed
from boqsa.errors import RecipeError, RunError
from boqsa.inference import load_encoder
from boqsa.inference.features import write_features
from boqsa.inference.load import load
from boqsa.inference.run import read_recipe
from boqsa.metrics import adjusted_rand_index, class_labels, true_objects
from boqsa.models import FeaturesModel
from boqsa.models.adaptive import needed_slots
from boqsa.recipes import FeaturesRecipe, MixtureRecipe, Recipe
from boqsa.training import step as training_step
from boqsa.training.data import StepImages
from boqsa.training.draws import draw_patch_orders
from boqsa.training.evaluation import evaluate
from boqsa.training.log import read_log
from boqsa.training.loop import check, train
from boqsa.training.results import evaluate_run
from boqsa.training.step import TrainStep
from boqsa.training.sweep.plan import PlannedRun
from boqsa.training.sweep.plan import check_data as check_data_of_plan

Change = Callable[..., Recipe]


@pytest.fixture(scope="module")
def root(packed: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed squares with features."""
    out = tmp_path_factory.mktemp("features") / "packed"
    write_features(packed, load_encoder(encoder_folder), out)
    return out


@pytest.fixture
def both(root: Path) -> dict[str, PackedDataset]:
    return {"train_data": PackedDataset(root, "train"), "validation_data": PackedDataset(root, "val")}


@pytest.fixture
def features_recipe(recipe: Recipe, root: Path) -> Recipe:
    model = FeaturesRecipe(
        patch_size=4,
        feature_size=16,
        num_slots=3,
        slot_size=8,
        mlp_size=12,
        decoder_size=20,
        decoder_layers=2,
        blocks=2,
        heads=2,
        iterations=2,
    )
    return replace(recipe, name="tiny_features", data=replace(recipe.data, root=str(root)), model=model)


def rows(run: Path, event: str) -> list[dict[str, Any]]:
    clock = ("images_per_second", "seconds")
    return [
        {name: value for name, value in row.items() if name not in clock}
        for row in read_log(run)
        if row["event"] == event
    ]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ({}, {}),
        ({}, {"precision": "bf16", "accumulate": 2, "sigma_steps": 0}),
        ({"decoder": "autoregressive"}, {}),
        ({"queries": "shared_gaussian", "gradient": "unrolled", "drop_path": 0.2}, {}),
    ],
)
def test_resuming_is_exact(
    *,
    model: dict,
    settings: dict,
    tmp_path: Path,
    features_recipe: Recipe,
    changed: Change,
    both: dict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = changed(features_recipe, model=model, train=settings)
    torch.manual_seed(1)
    train(recipe, tmp_path / "whole", **both)
    real = training_step.batch_indices

    def dying(seed: int, step: int, *rest: int) -> Any:
        if step == 7:
            raise Killed
        return real(seed, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training_step, "batch_indices", dying)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "broken", **both)
    torch.manual_seed(3)
    assert train(recipe, tmp_path / "broken", **both)
    one, other = (load_file(tmp_path / run / "checkpoints/last/model.safetensors") for run in ("whole", "broken"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for event in ("step", "evaluation", "diagnostics"):
        assert rows(tmp_path / "broken", event) == rows(tmp_path / "whole", event)
    assert [row["step"] for row in rows(tmp_path / "broken", "resumed")] == [4]


def test_the_loss_falls(tmp_path: Path, features_recipe: Recipe, changed: Change, both: dict) -> None:
    recipe = changed(features_recipe, train={"steps": 150, "evaluate_every": 150, "learning_rate": 3e-3})
    train(recipe, tmp_path / "run", **both)
    losses = [row["loss"] for row in rows(tmp_path / "run", "step")]
    assert losses[-1] < 0.8 * losses[0]


def test_a_step_reads_the_features_and_nothing_else(features_recipe: Recipe, root: Path) -> None:
    step = TrainStep(features_recipe, FeaturesModel(**_arguments(features_recipe)))
    data = PackedDataset(root, "train")
    read: list[str] = []
    real = data._gather
    data._gather = lambda column, chosen: read.append(column) or real(column, chosen)  # type: ignore[method-assign]
    images = step.images(data)
    assert "40 images as features" in str(images)
    step(images, 0)
    assert set(read) == {"features"}


def test_features_on_a_device_are_the_same(root: Path) -> None:
    data = PackedDataset(root, "train")
    kept, read = (StepImages(data, torch.device("cpu"), resident=here, column="features") for here in (True, False))
    assert torch.equal(kept.batch([5, 2]), read.batch([5, 2]))
    assert torch.equal(read.batch([5, 2]), data.batch([5, 2])["features"])


def test_orders_are_drawn_for_each_sample_from_its_place_alone() -> None:
    draws = draw_patch_orders(seed=3, step=5, positions=range(64))
    assert torch.equal(draws[10:20], draw_patch_orders(seed=3, step=5, positions=range(10, 20)))
    assert not torch.equal(draws, draw_patch_orders(seed=3, step=6, positions=range(64)))
    assert ((draws >= 0) & (draws < 1)).all()
    assert len({int(9 * draw) for draw in draws}) == 9


def test_a_run_records_its_encoder_and_does_not_hold_it(
    tmp_path: Path, features_recipe: Recipe, both: dict, encoder_folder: Path
) -> None:
    run = tmp_path / "run"
    train(features_recipe, run, **both)
    digest = load_encoder(encoder_folder).sha256
    recorded = read_recipe(run)
    assert (recorded.model.encoder, recorded.model.encoder_sha256) == (str(encoder_folder), digest)
    assert recorded.hash == features_recipe.hash
    config = json.loads((run / "checkpoints/last/config.json").read_text())
    assert config["encoder_sha256"] == digest
    weights = load_file(run / "checkpoints/last/model.safetensors")
    assert not any("vit" in name or name.startswith("_encoder") for name in weights)
    # The same command again finds the same recipe; it is finished.
    with pytest.raises(RunError, match="is finished"):
        check(features_recipe, run)


def test_scores_and_report(tmp_path: Path, features_recipe: Recipe, both: dict) -> None:
    run = tmp_path / "run"
    train(features_recipe, run, **both)
    metrics = evaluate_run(run)
    last = metrics["scores"]["last"]
    assert "reconstruction" not in last
    assert {"ari_fg", "mbo", "hungarian_iou"} <= last["decoder_masks"].keys() & last["attention_masks"].keys()
    assert last["diagnostics"]["model"] == "features"
    assert last["diagnostics"]["update_spectral_norm"] > 0
    assert (run / "report.html").is_file()
    assert "rebuilds features" in (run / "report.html").read_text()
    data, model = PackedDataset(root_of(run), "test"), load(run)
    features = data.batch(range(len(data)))["features"].float()
    output = model(features)
    assert last["loss"] == pytest.approx(float(output.loss.detach()), rel=1e-4)
    # One mean feature an image: what the ratio compares with.
    flat = (features - features.mean(dim=1, keepdim=True)).square().mean()
    assert last["diagnostics"]["loss_ratio"] == pytest.approx(float(output.loss.detach() / flat), rel=1e-4)


@pytest.mark.parametrize("decoder", ["mlp", "autoregressive"])
def test_needed_slots_are_scored(features_recipe: Recipe, both: dict, decoder: str) -> None:
    torch.manual_seed(0)
    model = FeaturesModel(**{**_arguments(features_recipe), "decoder": decoder})
    scores = evaluate(model, both["validation_data"], features_recipe.evaluate, adaptive=True)
    sample = both["validation_data"].batch(range(len(both["validation_data"])))
    with torch.no_grad():
        needed = needed_slots(model.eval()(sample["features"]), sample["features"], model)
    expected = adjusted_rand_index(needed.segmentation(), sample["mask"])
    assert scores["adaptive_masks"]["ari"] == pytest.approx(float(expected.nanmean()), abs=1e-6)
    error = (needed.objects() - true_objects(sample["mask"])).abs().double().mean()
    assert scores["object_count"]["adaptive"] == pytest.approx(float(error))


@pytest.fixture(scope="module")
def large(squares: Callable[..., Any], encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares in pictures of 40 pixels, with features of the same pictures at 16."""
    folder = tmp_path_factory.mktemp("large")
    splits = {name: squares(count, seed=count, size=40, side=15) for name, count in (("train", 16), ("test", 6))}
    described = {"source": "drawn", "licence": "none", "task": "multi-object", "split_rule": "drawn"}
    write_packed(folder / "packed", splits, name="arrays", **described)
    write_features(folder / "packed", load_encoder(encoder_folder), folder / "features", image_size=16)
    return folder / "features"


def test_masks_are_scored_at_the_size_of_the_true_ones(
    tmp_path: Path, features_recipe: Recipe, large: Path, root: Path
) -> None:
    recipe = replace(features_recipe, data=replace(features_recipe.data, root=str(large)))
    run = tmp_path / "run"
    train(recipe, run, train_data=PackedDataset(large, "train"))
    metrics = evaluate_run(run)
    assert metrics["dataset"]["mask_size"] == [40, 40]
    model, sample = load(run), PackedDataset(large, "test").batch(range(6))
    assert isinstance(model, FeaturesModel)
    with torch.no_grad():
        output = model(sample["features"])
        shares = model.decoder(output.slots)[1].view(6, 3, 4, 4)
    for source, grid in (("decoder_masks", shares), ("attention_masks", output.attention.view(6, 3, 4, 4))):
        labels = torch.nn.functional.interpolate(grid, (40, 40), mode="bilinear").argmax(dim=1)
        expected = [best_overlap(*pair) for pair in zip(labels.numpy(), sample["mask"].numpy(), strict=True)]
        assert metrics["scores"]["last"][source]["mbo"] == pytest.approx(np.mean(expected), abs=1e-12)
    # Scores at another size, of other files of the same set's name, never take the place of these.
    small = replace(recipe.data, root=str(root))
    assert evaluate_run(run, data=small)["dataset"]["mask_size"] == [16, 16]
    assert (run / "metrics_arrays_test.json").is_file()
    other = tmp_path / "other"
    train(features_recipe, other, train_data=PackedDataset(root, "train"))
    evaluate_run(other, data=recipe.data)
    assert (other / "metrics_arrays_test_40x40.json").is_file()


def test_classes_go_along_and_are_scored(
    classed: Path, encoder_folder: Path, features_recipe: Recipe, tmp_path: Path
) -> None:
    manifest = write_features(classed, load_encoder(encoder_folder), tmp_path / "features")
    assert manifest.extras == ("classes", "features")
    data = PackedDataset(tmp_path / "features", "test")
    torch.manual_seed(0)
    model = FeaturesModel(**_arguments(features_recipe)).eval()
    scores = evaluate(model, data, replace(features_recipe.evaluate, task="instances", select_by="ap"))
    sample = data.batch(range(8))
    with torch.no_grad():
        labels = model(sample["features"]).segmentation()
    joined = class_labels(sample["mask"], sample["classes"])
    expected = [best_overlap(*pair) for pair in zip(labels.numpy()[:7], joined.numpy()[:7], strict=True)]
    assert scores["decoder_masks"]["mbo_class"] == pytest.approx(np.mean(expected), abs=1e-12)


def best_overlap(found: np.ndarray, true: np.ndarray) -> float:
    """The definition, slot by slot and object by object."""
    best = []
    for label in set(true[true > 0]):
        pixels = true == label
        best.append(
            max(((found == slot) & pixels).sum() / ((found == slot) | pixels).sum() for slot in range(found.max() + 1))
        )
    return float(np.mean(best))


def planned(recipe: Recipe) -> PlannedRun:
    return PlannedRun(name="one", recipe=recipe, setting="")


def test_features_of_images_of_another_size_are_refused(features_recipe: Recipe, large: Path, tmp_path: Path) -> None:
    data = replace(features_recipe.data, root=str(large), image_size=40)
    recipe = replace(features_recipe, data=data)
    reason = (
        r"holds features of 16x16 images, the recipe wants 40x40; compute them with --size 40, or pass --data.image-"
    )
    with pytest.raises(RecipeError, match=reason):
        train(recipe, tmp_path / "run", train_data=PackedDataset(large, "train"))
    with pytest.raises(RecipeError, match=reason):
        check_data_of_plan([planned(recipe)])
    check_data_of_plan([planned(replace(recipe, data=replace(data, image_size=16)))])
    pixels = replace(recipe, model=MixtureRecipe(num_slots=3))
    check_data_of_plan([planned(pixels)])  # it looks at the images, which are of 40


def test_instances_are_scored(tmp_path: Path, features_recipe: Recipe, both: dict) -> None:
    protocol = replace(features_recipe.evaluate, task="instances", select_by="ap")
    scores = evaluate(FeaturesModel(**_arguments(features_recipe)), both["validation_data"], protocol)
    assert 0 <= scores["decoder_masks"]["mbo"] <= 1


def test_data_without_features(features_recipe: Recipe, packed: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"packed holds no features; compute them by `boqsa data features .*packed ENC"
    ):
        train(features_recipe, tmp_path / "run", train_data=PackedDataset(packed, "train"))
    assert not (tmp_path / "run").exists()


def test_data_of_another_size(features_recipe: Recipe, changed: Change, both: dict, tmp_path: Path) -> None:
    recipe = changed(features_recipe, model={"feature_size": 24})
    with pytest.raises(RecipeError, match=r"wants 24 of 4; pass --model.feature-size 16 --model.patch-size 4"):
        train(recipe, tmp_path / "run", **both)


def test_data_of_another_encoder(
    features_recipe: Recipe, both: dict, packed: Path, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    train(features_recipe, tmp_path / "run", **both)
    write_features(packed, load_encoder(make_encoder(seed=9)), tmp_path / "other")
    data = replace(read_recipe(tmp_path / "run").data, root=str(tmp_path / "other"))
    with pytest.raises(RecipeError, match=r"holds features of .*the model learned on those of .*with that encoder"):
        evaluate_run(tmp_path / "run", data=data)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"flip": True}, "pass --train.no-flip"), ({"least_crop": 0.5}, "pass --train.least-crop 1")],
)
def test_features_cannot_be_cropped_or_mirrored(
    settings: dict, named: str, features_recipe: Recipe, changed: Change
) -> None:
    with pytest.raises(RecipeError, match=named):
        changed(features_recipe, train=settings)


def test_the_whole_path_by_commands(
    packed: Path, encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    assert main(["data", "features", str(packed), str(encoder), str(tmp_path / "features"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    command = said["next"].split("`")[1].split()[1:]
    assert command[0] == "train"
    assert command[1].endswith("_features")
    command[command.index("RUN")] = str(tmp_path / "run")
    command += ["--train.steps", "2", "--train.batch-size", "4", "--train.device", "cpu", "--model.decoder-size", "8"]
    assert main(command) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    from PIL import Image

    Image.new("RGB", (30, 20), "red").save(tmp_path / "picture.png")
    arguments = ["segment", str(tmp_path / "run"), str(tmp_path / "picture.png"), "--out", str(tmp_path / "found")]
    encoder.rename(tmp_path / "moved")
    assert main(arguments) == 2
    assert "name its folder with --encoder DIR" in capsys.readouterr().err
    assert main([*arguments, "--encoder", str(tmp_path / "moved")]) == 0
    assert Image.open(tmp_path / "found" / "picture_labels.png").size == (30, 20)


def _arguments(recipe: Recipe) -> dict[str, Any]:
    from boqsa.inference.load import model_config

    return model_config(recipe)


def root_of(run: Path) -> str:
    root = read_recipe(run).data.root
    assert root is not None
    return root
