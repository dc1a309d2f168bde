"""Scores equal direct calls of the metrics, and do not depend on how the images were cut in batches."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boqsa import metrics
from boqsa.data import PackedDataset
from boqsa.errors import InputError
from boqsa.inference.load import build_model
from boqsa.models import MixtureModel, TransformerModel
from boqsa.models.adaptive import needed_slots
from boqsa.recipes import EvaluateRecipe, Recipe
from boqsa.training import evaluate
from boqsa.training import evaluation as training_evaluation
from boqsa.training.evaluation import attention_masks, headline
from boqsa.training.stability import update_spectral_norm


@pytest.fixture
def model(recipe: Recipe) -> MixtureModel:
    torch.manual_seed(0)
    return build_model(recipe)


@pytest.fixture
def transformer(transformer_recipe: Recipe) -> TransformerModel:
    torch.manual_seed(0)
    built = build_model(transformer_recipe)
    assert isinstance(built, TransformerModel)
    return built


FOREGROUND = EvaluateRecipe(task="foreground", select_by="iou", batch_size=5)
INSTANCES = EvaluateRecipe(task="instances", select_by="ap", batch_size=5)


class Images:
    """A split in memory."""

    def __init__(self, image: Tensor, mask: Tensor | None) -> None:
        self.image, self.mask = image, mask
        self.has_masks = mask is not None

    def __len__(self) -> int:
        return len(self.image)

    def batch(self, indices: Any) -> dict[str, Tensor]:
        chosen = torch.as_tensor(indices)
        return {"image": self.image[chosen]} | ({} if self.mask is None else {"mask": self.mask[chosen]})


def test_scores_equal_direct_calls(model: MixtureModel, validation_data: PackedDataset, recipe: Recipe) -> None:
    scores = evaluate(model, validation_data, recipe.evaluate)
    sample = validation_data.batch(range(len(validation_data)))
    true, image = sample["mask"], sample["image"]
    with torch.no_grad():
        output = model.eval()(image)
    attention = attention_masks(output.attention, (16, 16))
    for source, masks in (("decoder_masks", output.masks), ("attention_masks", attention)):
        labels = masks.squeeze(2).argmax(dim=1)
        direct = {
            "ari": metrics.adjusted_rand_index(labels, true),
            "ari_fg": metrics.adjusted_rand_index(labels, true, foreground_only=True),
            "msc": metrics.segmentation_covering(labels, true),
            "msc_fg": metrics.segmentation_covering(labels, true, foreground_only=True),
            "msc_fg_weighted": metrics.segmentation_covering(labels, true, foreground_only=True, weighted=True),
            "background_in_one_slot": metrics.background_in_top_slots(labels, true, 1),
            "background_in_two_slots": metrics.background_in_top_slots(labels, true, 2),
            "mbo": metrics.mean_best_overlap(labels, true),
            "hungarian_iou": metrics.hungarian_iou(labels, true),
        }
        assert set(scores[source]) == {*direct, "left_out"}
        for name, values in direct.items():
            assert scores[source][name] == pytest.approx(float(values.nanmean()), abs=1e-12), name
    error = (output.reconstruction.double() - image.double() / 255).square()
    assert scores["reconstruction"]["mse"] == pytest.approx(float(error.mean()), rel=1e-6)
    assert scores["reconstruction"]["mse_per_image"] == pytest.approx(float(error.mean()) * 768, rel=1e-6)
    assert scores["loss"] == pytest.approx(float(4 * error.mean()), rel=1e-5)
    assert scores["images"] == 12


@pytest.mark.parametrize("queries", ["learned", "shared_gaussian", "independent_gaussians"])
def test_batch_size_and_history_do_not_matter(
    queries: str, recipe: Recipe, changed: Callable[..., Recipe], validation_data: PackedDataset
) -> None:
    model = build_model(changed(recipe, model={"queries": queries}))
    ones = evaluate(model, validation_data, replace(recipe.evaluate, batch_size=1))
    torch.randn(17)
    all_at_once = evaluate(model, validation_data, replace(recipe.evaluate, batch_size=64))
    assert headline(ones) == pytest.approx(headline(all_at_once), abs=1e-12)
    assert ones["loss"] == pytest.approx(all_at_once["loss"], rel=1e-5)
    assert ones["diagnostics"]["query_cosine"] == pytest.approx(all_at_once["diagnostics"]["query_cosine"], abs=1e-6)


def test_the_spectral_norm_is_that_of_the_first_eight_images(
    model: MixtureModel, validation_data: PackedDataset, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = update_spectral_norm(model.eval(), validation_data.batch(range(8))["image"])
    asked: list[int] = []
    real = training_evaluation.update_spectral_norm
    monkeypatch.setattr(
        training_evaluation,
        "update_spectral_norm",
        lambda model, image, **options: asked.append(len(image)) or real(model, image, **options),
    )
    for size, parts in ((64, [8]), (3, [3, 3, 2])):
        protocol = replace(recipe.evaluate, batch_size=size)
        found = evaluate(model, validation_data, protocol)["diagnostics"]["update_spectral_norm"]
        # One batch of 8 is the very same computation; parts round otherwise, in double precision after a float model.
        assert found == whole if size == 64 else found == pytest.approx(whole, rel=1e-4)
        assert asked == parts, "no more at once than there is memory for"
        asked.clear()


def test_limit_takes_the_first_images(model: MixtureModel, validation_data: PackedDataset, recipe: Recipe) -> None:
    sample = validation_data.batch(range(7))
    first = evaluate(model, Images(sample["image"], sample["mask"]), recipe.evaluate)
    assert evaluate(model, validation_data, recipe.evaluate, limit=7) == first
    assert evaluate(model, validation_data, recipe.evaluate, limit=1000)["images"] == 12


def test_images_without_foreground_are_left_out_and_counted(
    model: MixtureModel, validation_data: PackedDataset, recipe: Recipe
) -> None:
    sample = validation_data.batch(range(6))
    some = evaluate(model, Images(sample["image"][:4], sample["mask"][:4]), recipe.evaluate)
    sample["mask"][4:] = 0
    scores = evaluate(model, Images(sample["image"], sample["mask"]), recipe.evaluate)["decoder_masks"]
    assert scores["left_out"]["ari_fg"] == scores["left_out"]["msc_fg"] == 2
    assert scores["left_out"]["ari"] == 0
    assert scores["ari_fg"] == pytest.approx(some["decoder_masks"]["ari_fg"], abs=1e-12)


def test_a_split_without_masks_has_no_label_metrics(
    model: MixtureModel, validation_data: PackedDataset, recipe: Recipe
) -> None:
    scores = evaluate(model, Images(validation_data.batch(range(6))["image"], None), recipe.evaluate)
    assert set(scores) == {"loss", "images", "reconstruction", "diagnostics"}
    assert headline(scores) == {}


def test_foreground_protocol_chooses_the_slot_with_and_without_labels(
    model: MixtureModel, validation_data: PackedDataset
) -> None:
    scores = evaluate(model, validation_data, FOREGROUND)["decoder_masks"]
    sample = validation_data.batch(range(len(validation_data)))
    with torch.no_grad():
        labels = model.eval()(sample["image"]).segmentation()
    oracle = metrics.best_slot_overlap(labels, sample["mask"])
    free = metrics.label_free_overlap(labels, sample["mask"])
    assert set(scores) == {
        *("iou", "dice", "intersection_iou", "intersection_dice", "border_iou", "border_dice"),
        *("fixed_iou", "fixed_dice", "fixed_slot", "left_out"),
    }
    assert scores["iou"] == pytest.approx(float(oracle.iou.mean()))
    assert scores["dice"] == pytest.approx(float(oracle.dice.mean()))
    largest = metrics.largest_intersection_overlap(labels, sample["mask"])
    assert scores["intersection_iou"] == pytest.approx(float(largest.iou.mean()))
    assert scores["border_iou"] == pytest.approx(float(free.iou.mean()))
    assert scores["border_iou"] <= scores["iou"]
    assert type(scores["fixed_slot"]) is int


def test_adaptive_scores_stand_beside_those_of_all_slots(
    model: MixtureModel, validation_data: PackedDataset, recipe: Recipe
) -> None:
    plain = evaluate(model, validation_data, recipe.evaluate)
    scores = evaluate(model, validation_data, recipe.evaluate, adaptive=True)
    assert scores["decoder_masks"] == plain["decoder_masks"]
    assert set(scores["adaptive_masks"]) == set(plain["decoder_masks"])
    assert set(scores) - set(plain) == {"adaptive_masks", "object_count"}
    sample = validation_data.batch(range(len(validation_data)))
    with torch.no_grad():
        output = model.eval()(sample["image"])
    needed = needed_slots(output, sample["image"].float() / 255)
    expected = metrics.adjusted_rand_index(needed.segmentation(), sample["mask"])
    assert scores["adaptive_masks"]["ari"] == pytest.approx(float(expected.nanmean()), abs=1e-6)
    error = (needed.objects() - metrics.true_objects(sample["mask"])).abs().double().mean()
    assert scores["object_count"]["adaptive"] == pytest.approx(float(error))
    assert set(scores["object_count"]) == {"adaptive", "slots_with_pixels", "best_constant"}


def test_adaptive_scores_of_a_transformer_are_those_of_decoding_again(
    transformer: TransformerModel, validation_data: PackedDataset, recipe: Recipe
) -> None:
    plain = evaluate(transformer, validation_data, recipe.evaluate)
    scores = evaluate(transformer, validation_data, recipe.evaluate, adaptive=True)
    assert set(scores) - set(plain) == {"adaptive_masks", "object_count"}
    assert {name: scores[name] for name in plain} == plain
    sample = validation_data.batch(range(len(validation_data)))
    with torch.no_grad():
        output = transformer.eval()(sample["image"])
    needed = needed_slots(output, sample["image"].float() / 255, transformer)
    expected = metrics.adjusted_rand_index(needed.segmentation(), sample["mask"])
    assert scores["adaptive_masks"]["ari"] == pytest.approx(float(expected.nanmean()), abs=1e-6)
    error = (needed.objects() - metrics.true_objects(sample["mask"])).abs().double().mean()
    assert scores["object_count"]["adaptive"] == pytest.approx(float(error))


def test_other_models_have_no_adaptive_slots(validation_data: PackedDataset, recipe: Recipe) -> None:
    with pytest.raises(InputError, match="for mixture, transformer and features models"):
        evaluate(torch.nn.Identity(), validation_data, recipe.evaluate, adaptive=True)


def test_instances_protocol_scores_whole_objects(
    model: MixtureModel, validation_data: PackedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = validation_data.batch(range(len(validation_data)))
    owners = torch.nn.functional.one_hot(sample["mask"], 3).movedim(-1, 1)[:, :, None].float()  # (B, K, 1, H, W)
    forward, batches = model.forward, iter([owners[:1], *owners.split(INSTANCES.batch_size)])
    monkeypatch.setattr(
        model, "forward", lambda image, **more: forward(image, **more)._replace(masks=next(batches, owners))
    )
    found = headline(evaluate(model, validation_data, INSTANCES))
    objects = sum(len(mask.unique()) - 1 for mask in sample["mask"])
    assert found["ap"] == found["precision"] == found["recall"] == found["mbo"] == found["hungarian_iou"] == 1.0
    assert found["pq"] == pytest.approx(1.0, abs=1e-6)
    assert (found["true_positives"], found["false_positives"], found["false_negatives"]) == (objects, 0, 0)


def best_overlap_of_classes(labels: Tensor, sample: dict[str, Tensor]) -> float:
    """The definition, pixel by pixel; images without a class are left out."""
    means = []
    for found, mask, classes in zip(labels.tolist(), sample["mask"].tolist(), sample["classes"].tolist(), strict=True):
        pairs = [
            (slot, classes[label] if label else None)
            for row, other in zip(found, mask, strict=True)
            for slot, label in zip(row, other, strict=True)
            if label == 0 or (label > 0 and classes[label] >= 0)
        ]
        best = []
        for name in {name for _, name in pairs if name is not None}:
            overlaps = []
            for slot in {slot for slot, _ in pairs}:
                both = sum(pair == (slot, name) for pair in pairs)
                overlaps.append(both / sum(pair[0] == slot or pair[1] == name for pair in pairs))
            best.append(max(overlaps))
        if best:
            means.append(sum(best) / len(best))
    return sum(means) / len(means)


@pytest.mark.parametrize("protocol", [INSTANCES, EvaluateRecipe()])
def test_where_classes_are_known_their_best_overlap_is_scored(
    protocol: EvaluateRecipe, model: MixtureModel, transformer: TransformerModel, classed: Path, recipe: Recipe
) -> None:
    data = PackedDataset(classed, "test")
    sample = data.batch(range(8))
    for batch_size, asked in ((5, model), (1, model), (8, transformer)):
        scores = evaluate(asked, data, replace(protocol, batch_size=batch_size))
        with torch.no_grad():
            output = asked.eval()(sample["image"])
        masks = {"decoder_masks": output.masks, "attention_masks": attention_masks(output.attention, (16, 16))}
        if asked is transformer:
            masks = {"attention_masks": output.masks}
        for source, shares in masks.items():
            expected = best_overlap_of_classes(shares.squeeze(2).argmax(dim=1), sample)
            assert scores[source]["mbo_class"] == pytest.approx(expected, abs=1e-12)
            assert scores[source]["left_out"]["mbo_class"] == 1
            assert scores[source]["left_out"]["mbo"] == 0
    plain = evaluate(model, Images(sample["image"], sample["mask"]), recipe.evaluate)["decoder_masks"]
    with_classes = evaluate(model, data, recipe.evaluate, adaptive=True)
    assert "mbo_class" not in plain
    assert "mbo_class" in with_classes["adaptive_masks"]
    left_out = with_classes["decoder_masks"].pop("left_out")
    assert {name: value for name, value in with_classes["decoder_masks"].items() if name != "mbo_class"} == {
        name: value for name, value in plain.items() if name != "left_out"
    }, "nothing else changes"
    assert left_out.keys() - plain["left_out"].keys() == {"mbo_class"}
    assert "mbo_class" not in evaluate(model, data, FOREGROUND)["decoder_masks"]


def test_classes_that_do_not_fit_are_one_line(model: MixtureModel, classed: Path) -> None:
    data = PackedDataset(classed, "test")
    real = data.batch
    data.batch = lambda indices: {**real(indices), "classes": real(indices)["classes"][:, :2]}  # type: ignore[method-assign]
    with pytest.raises(
        InputError, match=r"classes of this data do not fit its masks: true has the label 2; .*Prepare it"
    ):
        evaluate(model, data, INSTANCES)


def test_a_transformer_is_judged_by_its_attention(
    transformer: TransformerModel, validation_data: PackedDataset
) -> None:
    scores = evaluate(transformer, validation_data, FOREGROUND)
    assert "decoder_masks" not in scores
    sample = validation_data.batch(range(len(validation_data)))
    with torch.no_grad():
        output = transformer.eval()(sample["image"])
    direct = metrics.best_slot_overlap(output.segmentation(), sample["mask"])
    assert headline(scores)["iou"] == scores["attention_masks"]["iou"] == pytest.approx(float(direct.iou.mean()))
    assert scores["loss"] == pytest.approx(float(output.loss), rel=1e-5)
    assert scores["losses"] == pytest.approx({name: float(value) for name, value in output.losses.items()}, rel=1e-5)
    assert headline(evaluate(transformer, validation_data, INSTANCES)).keys() >= {"ap", "pq", "mbo", "ari_fg"}


def test_a_transformer_has_three_reconstructions(transformer: TransformerModel, validation_data: PackedDataset) -> None:
    scores = evaluate(transformer, validation_data, FOREGROUND, generated=7)  # of batches of 5
    sample = validation_data.batch(range(len(validation_data)))
    image = sample["image"].float() / 255
    with torch.no_grad():
        output = transformer.eval()(sample["image"])
    for name, pictures in (
        ("reconstruction", output.reconstruction),
        ("reconstruction_teacher_forced", transformer.teacher_forced(output).image),
        ("reconstruction_generated", transformer.generate(output.slots[:7]).image),
    ):
        direct = metrics.mse(pictures, image[: len(pictures)]).mean()
        assert scores[name]["mse"] == pytest.approx(float(direct), rel=1e-5), name
    assert scores["reconstruction_generated"]["images"] == 7
    assert "reconstruction_generated" not in evaluate(transformer, validation_data, FOREGROUND)
    assert evaluate(transformer, validation_data, FOREGROUND, generated=99)["reconstruction_generated"]["images"] == 12


def test_the_use_of_tokens_is_counted(transformer: TransformerModel, validation_data: PackedDataset) -> None:
    sample = validation_data.batch(range(len(validation_data)))
    with torch.no_grad():
        tokens = transformer.eval()(sample["image"]).tokens
    _, counts = tokens.unique(return_counts=True)
    share = counts / counts.sum()
    found = evaluate(transformer, validation_data, FOREGROUND)["tokens"]
    assert found["vocabulary"] == 12
    assert found["used"] == len(counts)
    assert found["perplexity"] == pytest.approx(float((-share * share.log()).sum().exp()), rel=1e-5)


def test_slot_information_is_what_the_own_slots_save(
    transformer: TransformerModel, validation_data: PackedDataset
) -> None:
    def measured(**options: Any) -> float | None:
        protocol = replace(FOREGROUND, **options)
        found: float | None = evaluate(transformer, validation_data, protocol)["diagnostics"]["slot_information"]
        return found

    sample = validation_data.batch(range(len(validation_data)))
    with torch.no_grad():
        output = transformer.eval()(sample["image"])
        tokens = output.tokens.flatten(1)
        others = transformer.token_decoder(transformer.token_decoder.embed(tokens), output.slots[[-1, *range(11)]])
    chance, own = (
        -logits.log_softmax(dim=-1).gather(2, tokens[:, :, None]).mean() for logits in (others, output.logits)
    )
    assert measured(batch_size=12) == pytest.approx(float(chance - own), abs=1e-6)
    assert measured(batch_size=1) is None
    with torch.no_grad():
        transformer.token_decoder.project_slots.weight.zero_()
    assert measured(batch_size=12) == pytest.approx(0.0, abs=1e-6)


def test_a_transformer_without_masks_is_still_measured(
    transformer: TransformerModel, validation_data: PackedDataset
) -> None:
    scores = evaluate(transformer, Images(validation_data.batch(range(6))["image"], None), FOREGROUND)
    assert headline(scores) == {}
    assert set(scores) == {
        *("loss", "losses", "images", "reconstruction", "reconstruction_teacher_forced", "tokens", "diagnostics"),
    }
    assert scores["diagnostics"]["model"] == "transformer"


@pytest.mark.parametrize("training", [True, False])
def test_the_training_flag_is_left_as_it_was(
    training: bool, model: MixtureModel, validation_data: PackedDataset, recipe: Recipe
) -> None:
    model.train(training)
    evaluate(model, validation_data, recipe.evaluate)
    assert model.training is training
    model.forward = None  # type: ignore[assignment]  # any failure
    with pytest.raises(TypeError):
        evaluate(model, validation_data, recipe.evaluate)
    assert model.training is training


def test_attention_masks_follow_the_grid_row_by_row() -> None:
    attention = torch.zeros(1, 2, 4)
    attention[0, 0] = torch.tensor([1.0, 1.0, 0.0, 0.0])  # the upper row of a 2x2 grid
    attention[0, 1] = 1 - attention[0, 0]
    masks = attention_masks(attention, (8, 8))
    assert masks.shape == (1, 2, 1, 8, 8)
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(1, 1, 8, 8))
    assert (masks[0, 0, 0, :4] > 0.5).all()
    assert (masks[0, 0, 0, 4:] < 0.5).all()
