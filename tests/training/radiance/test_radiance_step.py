"""One step of a radiance model: accumulation, phases, losses, the discriminator, exact resuming, refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.errors import RecipeError, RunError
from boqsa.inference.load import build_model, load
from boqsa.models.radiance import RadianceModel
from boqsa.models.radiance.pretrained import PerceptualLoss
from boqsa.recipes import RECIPES, Recipe, get_recipe
from boqsa.training import loop
from boqsa.training import step as training_step
from boqsa.training.log import read_log
from boqsa.training.loop import train
from boqsa.training.radiance_step import RadianceStep, files_used, step_of

Change = Callable[..., Recipe]
CLOCK = ("images_per_second", "seconds")


def of(recipe: Recipe, **fields: Any) -> Recipe:
    """The recipe with fields of `train.radiance` replaced."""
    return replace(recipe, train=replace(recipe.train, radiance=replace(recipe.train.radiance, **fields)))


def adversarial(recipe: Recipe) -> Recipe:
    """Whole pictures of 64 pixels, with a discriminator from step 2 and against it from step 4 on."""
    changed = of(
        recipe,
        rays=0,
        samples=2,
        coarse_size=64,
        fine_from=0,
        adversarial_weight=0.01,
        discriminator_from=2,
        adversarial_from=4,
        r1_every=2,
    )
    return replace(changed, train=replace(changed.train, batch_size=1, evaluate_every=8))


def sampled(recipe: Recipe) -> Recipe:
    """Slots that start from samples, with a gradient through every step: uORF without BO-QSA."""
    return replace(recipe, model=replace(recipe.model, queries="shared_gaussian", gradient="unrolled"))


def stepping(recipe: Recipe) -> RadianceStep:
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    assert isinstance(model, RadianceModel)
    step = step_of(recipe, model)
    assert isinstance(step, RadianceStep)
    return step


def weights(step: RadianceStep) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in step.plain_model.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return any(not torch.equal(before[name], after[name]) for name in before)


def test_accumulation_changes_nothing(radiance_recipe: Recipe, train_views: PackedDataset) -> None:
    taken = []
    for pieces in (1, 2):
        recipe = replace(radiance_recipe, train=replace(radiance_recipe.train, accumulate=pieces))
        step = stepping(recipe)
        images = step.images(train_views)
        results = [step(images, number) for number in range(3)]
        taken.append((torch.stack([result.loss for result in results]), weights(step)))
    torch.testing.assert_close(taken[0][0], taken[1][0], rtol=1e-5, atol=0)
    for name, value in taken[0][1].items():
        torch.testing.assert_close(taken[1][1][name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "bilevel"])
@pytest.mark.parametrize("queries", ["learned", "shared_gaussian"])
def test_all_combinations_learn(
    queries: str, gradient: str, radiance_recipe: Recipe, train_views: PackedDataset
) -> None:
    recipe = replace(radiance_recipe, model=replace(radiance_recipe.model, queries=queries, gradient=gradient))
    step = stepping(recipe)
    images = step.images(train_views)
    assert all(bool(step(images, number).is_finite) for number in range(2))
    has_gradient = {name for name, value in step.plain_model.named_parameters() if value.grad is not None}
    reaches = any(name.startswith("slot_encoder.queries") for name in has_gradient)
    assert reaches == (gradient != "implicit")


def test_what_is_rendered_follows_the_phase(
    radiance_recipe: Recipe, train_views: PackedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = stepping(of(radiance_recipe, rays=0, density_noise=0.1, density_noise_until=1))
    seen: list[tuple[Any, ...]] = []
    forward = step.plain_model.forward

    def watched(views: Any, pixels: Tensor, **options: Any) -> Any:
        noise = options["density_noise"]
        seen.append((pixels.shape[1], int(pixels[..., 1:].max()), options["size"], options["local"], noise is not None))
        return forward(views, pixels, **options)

    monkeypatch.setattr(step.plain_model, "forward", watched)
    images = step.images(train_views)
    for number in (0, 3, 4, 6, 7):
        step(images, number)
    assert [entry[0] for entry in seen] == [2 * 8 * 8] * 5
    assert [entry[2] for entry in seen] == [8, 8, 8, 16, 16]
    assert [entry[3] for entry in seen] == [True, True, False, False, False]
    assert [entry[4] for entry in seen] == [True, False, False, False, False]
    assert seen[0][1] == 7
    assert max(entry[1] for entry in seen[3:]) > 7  # a square of 8 somewhere in 16


def test_the_rate_is_the_published_one(radiance_recipe: Recipe, train_views: PackedDataset) -> None:
    step = stepping(radiance_recipe)
    images = step.images(train_views)
    rates = []
    for number in range(8):
        step(images, number)
        rates.append(step.rates()["learning_rate"])
    halved = [1e-3 * 0.5 ** ((number - 2) / 50) for number in (2, 3, 4, 5, 6)]
    assert rates == pytest.approx([0, 5e-4, *halved, halved[-1]])


def test_turns_of_the_discriminator(radiance_recipe: Recipe, train_views: PackedDataset) -> None:
    step = stepping(adversarial(radiance_recipe))
    images = step.images(train_views)
    assert step.discriminator is not None
    learned, judged, parts = [], [], []
    for number in range(7):
        before, judge = weights(step), [value.clone() for value in step.discriminator.state_dict().values()]
        result = step(images, number)
        assert bool(result.is_finite)
        parts.append(set(result.parts))
        learned.append(moved(before, weights(step)))
        judged.append(
            any(not torch.equal(*pair) for pair in zip(judge, step.discriminator.state_dict().values(), strict=True))
        )
    assert learned == [False, True, False, False, True, False, True]  # step 0 has a rate of 0
    assert judged == [False, False, False, False, False, True, False]  # its first step too
    assert parts[4] == {"reconstruction", "adversarial"}
    assert parts[5] == {"reconstruction", "discriminator"}


def test_the_slope_is_penalised_every_so_often(
    radiance_recipe: Recipe, train_views: PackedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = stepping(adversarial(radiance_recipe))
    images, made = step.images(train_views), []
    real = step._discriminator_optimizer.step
    monkeypatch.setattr(step._discriminator_optimizer, "step", lambda *_: made.append(1) or real())
    for number in (3, 5, 7):
        step(images, number)
        made.append(0)
    assert "".join(map(str, made)) == "1101" + "0110"


def test_the_perceptual_loss_begins_on_time(
    radiance_recipe: Recipe, train_views: PackedDataset, tmp_path: Path
) -> None:
    path = tmp_path / "vgg.pth"
    torch.manual_seed(0)
    torch.save(PerceptualLoss(None).state_dict(), path)
    recipe = of(
        radiance_recipe, rays=0, perceptual_weight=0.006, perceptual_from=1, perceptual_file=str(path), coarse_size=16
    )
    step = stepping(recipe)
    images = step.images(train_views)
    assert [set(step(images, number).parts) for number in range(2)] == [set(), {"reconstruction", "perceptual"}]
    assert len(files_used(recipe)["perceptual_file_sha256"]) == 64
    assert files_used(radiance_recipe) == {}
    assert "left out" in files_used(of(recipe, perceptual_file=None))["perceptual_loss"]


def test_without_its_weights_the_perceptual_loss_is_refused_or_skipped_as_told(radiance_recipe: Recipe) -> None:
    wanted = of(radiance_recipe, rays=0, perceptual_weight=0.006, perceptual_from=0)
    with pytest.raises(RecipeError, match=r"--train.radiance.perceptual-file FILE.*perceptual-weight 0"):
        stepping(wanted)
    assert stepping(of(wanted, perceptual_missing="skip")).perceptual is None
    stepping(of(wanted, perceptual_from=8))  # begins after the end


def _rows(run: Path) -> list[dict[str, Any]]:
    events = ("step", "evaluation", "diagnostics")
    return [
        {name: value for name, value in row.items() if name not in CLOCK}
        for row in read_log(run)
        if row["event"] in events
    ]


class _Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "changed", [lambda recipe: recipe, adversarial, sampled], ids=["plain", "adversarial", "sampled"]
)
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(
    changed: Change,
    radiance_recipe: Recipe,
    train_views: PackedDataset,
    validation_views: PackedDataset,
    tmp_path: Path,
) -> None:
    recipe = changed(radiance_recipe)
    data = {"train_data": train_views, "validation_data": validation_views}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(recipe, whole, **data)
    real = training_step.batch_indices

    def dying(seed: int, step: int, *rest: int) -> Any:
        if step == 6:
            raise _Killed
        return real(seed, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_step, "batch_indices", dying)
        with pytest.raises(_Killed):
            train(recipe, cut, **data)
    assert loop.state_of(cut) == (6, 8)
    assert train(recipe, cut, **data)
    first, second = (load(run).state_dict() for run in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert _rows(whole) == _rows(cut)


def test_data_that_lack_views_are_refused_before_a_folder_is_made(
    radiance_recipe: Recipe, train_views: PackedDataset, train_data: PackedDataset, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="fewer than 4"):
        train(of(radiance_recipe, views=4), tmp_path / "run", train_data=train_views)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in RECIPES if "radiance" in name])
def test_recipes_of_the_catalog_take_two_steps(name: str, tmp_path: Path, packed_views: Path) -> None:
    recipe = get_recipe(name)
    assert Recipe.from_json(recipe.to_json()) == recipe
    shorter = of(
        recipe,
        samples=4,
        views=2,
        rays=min(recipe.train.radiance.rays, 64),
        perceptual_missing="skip",
        local_until=0,
    )
    plain = replace(shorter, train=replace(shorter.train, device="cpu", threads=1, warmup_steps=0))
    step = stepping(plain)
    images = step.images(PackedDataset(packed_views, "train"))
    before = weights(step)
    assert all(bool(step(images, number).is_finite) for number in range(2))
    after = weights(step)
    same = [name for name in before if torch.equal(before[name], after[name])]
    assert len(same) < 0.2 * len(before), same


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("train", {"precision": "bf16"}, "train.precision is bf16"),
        ("train", {"compile": True}, "train.compile is True"),
        ("train", {"flip": True}, "pass --train.no-flip"),
        ("train", {"least_crop": 0.5}, "train.least_crop is 0.5"),
        ("train", {"consistency_weight": 0.1}, "train.consistency_weight is 0.1"),
        ("evaluate", {"task": "instances", "select_by": "ap"}, "radiance models are scored as 'multi_object'"),
    ],
)
def test_what_radiance_models_do_not_have_is_refused(
    part: str, changes: dict[str, Any], words: str, radiance_recipe: Recipe
) -> None:
    with pytest.raises(RecipeError, match=words):
        replace(radiance_recipe, **{part: replace(getattr(radiance_recipe, part), **changes)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rays": 1_000}, r"2 views of 8x8 have 128 pixels"),
        ({"rays": 8, "perceptual_weight": 0.1}, "need whole pictures"),
        ({"rays": 0, "adversarial_weight": 0.1, "coarse_size": 32}, "looks at pictures of 64x64"),
        ({"rays": 0, "adversarial_weight": 0.1, "coarse_size": 64, "fine_from": 0, "views": 6}, "a multiple of 4"),
        ({"crop": 17}, "larger than train.radiance.fine_size 16"),
        ({"views": 1}, "train.radiance.views is 1"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    changes: dict[str, Any], words: str, radiance_recipe: Recipe
) -> None:
    with pytest.raises(RecipeError, match=words):
        of(radiance_recipe, **changes)


def test_built_in_scenes_need_their_own_lens(radiance_recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="take the recipe scenes_radiance_small"):
        replace(get_recipe("clevr567_radiance"), data=get_recipe("scenes_radiance_small").data)


def test_other_weights_of_the_perceptual_loss_are_noticed(radiance_recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    torch.save(PerceptualLoss(None).state_dict(), path)
    recipe = of(radiance_recipe, rays=0, perceptual_weight=0.006, perceptual_from=0, perceptual_file=str(path))
    elsewhere = of(recipe, perceptual_file=str(tmp_path / "elsewhere.pth"))
    assert elsewhere.hash == recipe.hash
    step = stepping(recipe)
    state = step.more_state()
    step.restore(state)
    torch.save(PerceptualLoss(None).state_dict(), path)
    with pytest.raises(RunError, match="other weights than this run began with"):
        step.restore(state)


def test_a_discriminator_without_a_number_is_left_as_it_was(
    radiance_recipe: Recipe, train_views: PackedDataset
) -> None:
    step = stepping(adversarial(radiance_recipe))
    images = step.images(train_views)
    step(images, 3)
    assert step.discriminator is not None
    before = [value.clone() for value in step.discriminator.parameters()]
    with torch.no_grad():
        step.plain_model.background_field.colour[0].weight.fill_(float("nan"))  # type: ignore[union-attr,operator]
    assert not bool(step(images, 5).is_finite)
    assert all(torch.equal(*pair) for pair in zip(before, step.discriminator.parameters(), strict=True))


def test_norms_of_the_models_latest_step_stand_beside_the_discriminators(
    radiance_recipe: Recipe, train_views: PackedDataset
) -> None:
    step = stepping(adversarial(radiance_recipe))
    images = step.images(train_views)
    of_model, of_discriminator = step(images, 4), step(images, 5)
    assert of_discriminator.norm == of_model.norm > 0
    assert of_discriminator.query_norm == of_model.query_norm
    assert {"reconstruction", "discriminator"} <= set(of_discriminator.parts)
    assert 0 < step.more_norms()["object_field_gradient_norm"] < float(of_model.norm)


def test_objects_that_are_dense_nowhere_show_in_the_log(radiance_recipe: Recipe, train_views: PackedDataset) -> None:
    step = stepping(radiance_recipe)
    model = step.plain_model
    assert isinstance(model, RadianceModel)
    assert isinstance(model.object_field.density, torch.nn.Linear)
    torch.nn.init.zeros_(model.object_field.density.weight)
    torch.nn.init.constant_(model.object_field.density.bias, -1.0)
    step(step.images(train_views), 0)
    assert step.more_norms() == {"object_field_gradient_norm": 0.0}
