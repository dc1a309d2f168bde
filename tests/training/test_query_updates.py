"""Queries that something else than the gradient moves, and the consistency loss, in training (spec 6).

What every way of training promises holds here too: exact resuming, accumulation, skipped steps. That two processes do
what one does stands in tests/system.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.inference.load import build_model
from boqsa.metrics.matching import cheapest_matching
from boqsa.recipes import Recipe
from boqsa.slots import KMeans
from boqsa.training import step as training_step
from boqsa.training.data import StepImages
from boqsa.training.draws import clusters_seed
from boqsa.training.log import read_log
from boqsa.training.loop import train
from boqsa.training.start import starting_model
from boqsa.training.step import StepResult, TrainStep

Change = Callable[..., Recipe]
TIMES = ("images_per_second", "seconds")
QUERIES = "slot_encoder.queries.weight"
KINDS = ["mixture", "transformer"]

UPDATES: dict[str, dict[str, Any]] = {
    "running_mean": {"query_update": "running_mean"},
    "running_mean-M": {"query_update": "running_mean", "query_momentum": 0.1},
    "kmeans": {"query_update": "kmeans"},
    "kmeans-M": {"query_update": "kmeans", "query_momentum": 0.1},
}
WAYS = {name: UPDATES[name] for name in ("running_mean-M", "kmeans-M")} | {"consistency": {"consistency_weight": 0.01}}
"""With momentum, under which a step depends on all before it."""


@pytest.fixture
def of_kind(recipe: Recipe, transformer_recipe: Recipe, changed: Change) -> Callable[..., Recipe]:
    """`of_kind("mixture", query_update="kmeans")` is the tiny recipe of a kind with fields of `train`."""

    def make(kind: str, **fields: Any) -> Recipe:
        made: Recipe = changed({"mixture": recipe, "transformer": transformer_recipe}[kind], train=fields)
        return made

    return make


@pytest.fixture
def images(train_data: PackedDataset) -> StepImages:
    return StepImages(train_data, torch.device("cpu"))


def queries(model: Any) -> Tensor:
    weight: Tensor = model.slot_encoder.queries.weight
    return weight.detach().clone()


def everything_in(step: TrainStep) -> list[Tensor]:
    """Weights, and moments and step counts of the optimiser."""
    moments = [value for state in step.optimizer.optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in (*step.plain_model.parameters(), *moments)]


def watched(step: TrainStep, images: StepImages, number: int) -> tuple[StepResult, list[Any]]:
    """A step, and what the model gave for each piece of the batch."""
    outputs: list[Any] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        # Initial slots are a view of the queries, which the step goes on to change.
        slots, initial = (tensor.detach().float().clone() for tensor in (output.slots, output.initial_slots))
        outputs.append(output._replace(slots=slots, initial_slots=initial))

    hook = step.plain_model.register_forward_hook(keep)
    with step.own_stream():
        result = step(images, number)
    hook.remove()
    return result, outputs


def rows(run: Path, *events: str) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_log(run)
        if row["event"] in events
    ]


def weights(run: Path, name: str = "last") -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / name / "model.safetensors")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("update", UPDATES)
def test_after_a_step_queries_are_what_the_update_makes_of_the_whole_batch(
    update: str, kind: str, precision: str, of_kind: Callable[..., Recipe], images: StepImages
) -> None:
    recipe = of_kind(kind, accumulate=2, precision=precision, **UPDATES[update])
    momentum = recipe.train.query_momentum
    step = TrainStep(recipe, starting_model(recipe, None).train())
    for number in range(3):
        before = queries(step.plain_model)
        _, outputs = watched(step, images, number)
        assert len(outputs) == 2
        slots = torch.cat([output.slots for output in outputs])  # (8, K, D)
        assert all(torch.equal(output.initial_slots[0], before) for output in outputs), "no perturbation"
        if recipe.train.query_update == "running_mean":
            made = slots.numpy().astype(np.float64).mean(axis=0)
        else:
            one = KMeans(match=cheapest_matching)
            made = one(before, slots, seed=clusters_seed(recipe.seed, number)).numpy()
        expected = momentum * made + (1 - momentum) * before.numpy()
        np.testing.assert_allclose(queries(step.plain_model).numpy(), expected, rtol=1e-5, atol=1e-6)
        assert not torch.equal(queries(step.plain_model), before)


@pytest.mark.parametrize("gradient", ["bilevel", "implicit", "unrolled"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_optimiser_does_not_know_such_queries(
    kind: str, gradient: str, of_kind: Callable[..., Recipe], changed: Change, images: StepImages
) -> None:
    recipe = changed(of_kind(kind, query_update="running_mean"), model={"gradient": gradient})
    step = TrainStep(recipe, starting_model(recipe, None).train())
    result, _ = watched(step, images, 0)
    weight = step.plain_model.slot_encoder.queries.weight
    assert weight.grad is None
    assert float(result.query_norm) == 0
    known = [id(parameter) for group in step.optimizer.param_groups for parameter in group["params"]]
    others = [parameter for parameter in step.plain_model.parameters() if parameter is not weight]
    assert sorted(known) == sorted(map(id, others))
    assert all(parameter.grad is not None for parameter in others)
    assert step.options(0)["sigma"] == 0
    assert TrainStep(of_kind(kind), starting_model(of_kind(kind), None)).options(0)["sigma"] == 1


def test_such_queries_start_xavier_normal_and_all_else_as_ever(recipe: Recipe, changed: Change) -> None:
    wide = replace(recipe, model=replace(recipe.model, num_slots=100, slot_size=64))
    usual = starting_model(wide, None)
    torch.manual_seed(99)
    moved = starting_model(changed(wide, train={"query_update": "kmeans"}), None)
    again = starting_model(changed(wide, train={"query_update": "running_mean"}), None)
    ours = moved.state_dict()
    for name, value in usual.state_dict().items():
        assert torch.equal(value, ours[name]) == (name != QUERIES), name
    assert torch.equal(queries(moved), queries(again)), "the seed of the recipe decides, and no other stream"
    deviation = (2 / (100 + 64)) ** 0.5
    # The deviation of 6400 draws has a standard error of 0.9 %; a uniform one would end at sqrt(3) of it.
    assert float(queries(moved).std()) == pytest.approx(deviation, rel=0.05)
    assert float(queries(moved).abs().max()) > 2.5 * deviation
    assert float(queries(usual).abs().max()) <= 3**0.5 * deviation


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("update", ["running_mean", "kmeans"])
def test_a_skipped_step_changes_no_query(
    update: str, what: str, of_kind: Callable[..., Recipe], images: StepImages
) -> None:
    recipe = of_kind("mixture", query_update=update)
    step = TrainStep(recipe, starting_model(recipe, None).train())
    for number in range(2):
        step(images, number)
    before = everything_in(step)
    encoder = step.plain_model.slot_encoder
    if what == "loss":
        hook = encoder.register_forward_hook(lambda module, arguments, output: (output[0] * float("nan"), output[1]))
    else:
        hook = encoder.slot_attention.to_values.weight.register_hook(lambda gradient: gradient * float("inf"))
    result, outputs = watched(step, images, 2)
    hook.remove()
    assert not bool(result.is_finite)
    assert bool(outputs[0].slots.isfinite().all()) == bool(result.loss.isfinite()) == (what == "gradient")
    assert all(torch.equal(one, other) for one, other in zip(before, everything_in(step), strict=True))
    assert bool(step(images, 3).is_finite)
    assert not torch.equal(queries(step.plain_model), before[_place_of_queries(step)])


def _place_of_queries(step: TrainStep) -> int:
    names = [name for name, _ in step.plain_model.named_parameters()]
    return names.index(QUERIES)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(("way", "precision"), [*((way, "fp32") for way in WAYS), ("kmeans-M", "bf16")])
def test_resuming_is_exact(
    *,
    way: str,
    precision: str,
    tmp_path: Path,
    of_kind: Callable[..., Recipe],
    train_data: PackedDataset,
    validation_data: PackedDataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = of_kind("mixture", precision=precision, **WAYS[way])
    both = {"train_data": train_data, "validation_data": validation_data}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe, whole, **both)
    real = training_step.batch_indices
    for stop in (2, 7, 11):

        def dying(seed: int, step: int, *rest: int, stop: int = stop) -> Any:
            if step == stop:
                raise Killed
            return real(seed, step, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(training_step, "batch_indices", dying)
            with pytest.raises(Killed):
                train(recipe, broken, **both)
    assert train(recipe, broken, **both)
    for name in ("last", "last-1", "best_loss"):
        one, other = weights(whole, name), weights(broken, name)
        assert all(torch.equal(one[key], other[key]) for key in one), name
    events = ("started", "step", "evaluation", "diagnostics", "finished")
    assert rows(broken, *events) == rows(whole, *events)
    assert [row["step"] for row in rows(broken, "resumed")] == [4, 8]


@pytest.mark.parametrize("way", WAYS)
def test_four_pieces_of_four_are_a_batch_of_sixteen(
    way: str, tmp_path: Path, of_kind: Callable[..., Recipe], train_data: PackedDataset
) -> None:
    """But for rounding: sums of float32 in another order, over twelve steps."""
    recipe = of_kind("mixture", batch_size=16, log_every=1, **WAYS[way])
    train(recipe, tmp_path / "whole", train_data=train_data)
    pieces = replace(recipe, train=replace(recipe.train, accumulate=4))
    train(pieces, tmp_path / "pieces", train_data=train_data)
    losses = [[row["loss"] for row in rows(tmp_path / run, "step")] for run in ("whole", "pieces")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    one, other = (weights(tmp_path / run)[QUERIES] for run in ("whole", "pieces"))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert float((one - queries(starting_model(recipe, None))).norm()) > 0.01, "queries that stay would show nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_the_consistency_loss_is_one_of_the_losses(
    kind: str, of_kind: Callable[..., Recipe], images: StepImages
) -> None:
    found = {}
    for weight in (0.0, 0.5):
        recipe = of_kind(kind, consistency_weight=weight)
        step = TrainStep(recipe, starting_model(recipe, None).train())
        result, (output,) = watched(step, images, 0)
        found[weight] = result
    slots, initial = output.slots.numpy(), output.initial_slots.numpy()
    lengths = [[sum((slots[b, k] - initial[b, k]) ** 2) for k in range(3)] for b in range(8)]
    parts = found[0.5].parts
    assert float(parts["consistency"]) == pytest.approx(0.5 * np.mean(lengths), rel=1e-5)
    assert float(found[0.5].loss) == pytest.approx(sum(map(float, parts.values())), rel=1e-6)
    assert float(found[0.5].loss - found[0.0].loss) == pytest.approx(float(parts["consistency"]), rel=1e-3)
    assert "consistency" not in found[0.0].parts
    assert ("reconstruction" in parts) == (kind == "mixture")


def test_it_reaches_queries_that_have_no_other_gradient(
    of_kind: Callable[..., Recipe], changed: Change, images: StepImages
) -> None:
    found = {}
    for weight in (0.0, 0.5):
        recipe = changed(of_kind("mixture", consistency_weight=weight, clip_norm=0.0), model={"gradient": "implicit"})
        step = TrainStep(recipe, starting_model(recipe, None).train())
        before = queries(step.plain_model)
        result, (output,) = watched(step, images, 0)
        found[weight] = float(result.query_norm)
    assert found[0.0] == 0
    # The noise of the queries is multiplicative, and its factor not in the gradient: that of each sample is added up.
    expected = 0.5 * 2 * (output.initial_slots - output.slots).mean(dim=0) / 3
    assert found[0.5] == pytest.approx(float(expected.norm()), rel=1e-5)
    assert torch.equal(before, queries(step.plain_model)), "the first step of a warm-up has rate zero"


@pytest.mark.parametrize("kind", KINDS)
def test_it_asks_nothing_of_the_device(
    kind: str, of_kind: Callable[..., Recipe], images: StepImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = of_kind(kind, consistency_weight=0.01)
    step = TrainStep(recipe, starting_model(recipe, None).train())
    with step.own_stream():
        step(images, 0)

        def refuse(*_: object) -> None:
            raise AssertionError("a step read a number from the device")

        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu"):
            monkeypatch.setattr(torch.Tensor, name, refuse)
        step(images, 1)


def test_the_log_has_it(tmp_path: Path, of_kind: Callable[..., Recipe], train_data: PackedDataset) -> None:
    recipe = of_kind("mixture", consistency_weight=0.01)
    train(recipe, tmp_path / "run", train_data=train_data)
    for row in rows(tmp_path / "run", "step"):
        assert row["loss_consistency"] > 0
        assert row["loss"] == pytest.approx(row["loss_reconstruction"] + row["loss_consistency"], rel=1e-5)
    train(of_kind("mixture", query_update="kmeans"), tmp_path / "moved", train_data=train_data)
    row = rows(tmp_path / "moved", "step")[0]
    assert (row["sigma"], row["query_gradient_norm"]) == (0, 0)


def test_models_of_other_runs_give_their_queries_too(
    tmp_path: Path, of_kind: Callable[..., Recipe], train_data: PackedDataset
) -> None:
    train(of_kind("mixture"), tmp_path / "first", train_data=train_data)
    recipe = of_kind("mixture", query_update="running_mean", init_from=str(tmp_path / "first"))
    torch.testing.assert_close(queries(starting_model(recipe, None)), weights(tmp_path / "first")[QUERIES])
    assert not torch.equal(queries(build_model(recipe)), weights(tmp_path / "first")[QUERIES])
