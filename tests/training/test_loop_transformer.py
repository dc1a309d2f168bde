"""What the loop promises for transformer models: two rates, temperature, noise, dropout, patience; exact resuming."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.errors import RecipeError
from boqsa.inference.load import build_model, load
from boqsa.models import TransformerModel
from boqsa.recipes import Recipe
from boqsa.training import loop
from boqsa.training import step as training_step
from boqsa.training.log import read_log
from boqsa.training.loop import train
from boqsa.training.resume import Saved
from boqsa.training.schedules import gumbel_tau, learning_rate_factor

Change = Callable[..., Recipe]
SLATE = {
    "features": "tokens",
    "queries": "shared_gaussian",
    "gradient": "unrolled",
    "epsilon": 1e-8,
    "epsilon_form": "entry",
    "drop_path": 0.0,
    "dvae_kernel": 1,
}


@pytest.fixture
def both(train_data: PackedDataset, validation_data: PackedDataset) -> dict[str, PackedDataset]:
    return {"train_data": train_data, "validation_data": validation_data}


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / "last" / "model.safetensors")


def identical(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def rows(run: Path, event: str = "step") -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in ("images_per_second", "seconds")}
        for row in read_log(run)
        if row["event"] == event
    ]


def first_weights(recipe: Recipe) -> dict[str, Tensor]:
    torch.manual_seed(recipe.seed)
    return build_model(recipe).state_dict()


class Killed(BaseException):
    """Stands for the end of the process."""


def train_until(monkeypatch: pytest.MonkeyPatch, stop: int, *arguments: Any, **options: Any) -> None:
    """Train, and die at the beginning of step `stop`."""
    real = training_step.batch_indices

    def dying(seed: int, step: int, *rest: int) -> Any:
        if step == stop:
            raise Killed
        return real(seed, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training_step, "batch_indices", dying)
        with pytest.raises(Killed):
            train(*arguments, **options)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ({}, {}),
        ({}, {"precision": "bf16", "accumulate": 2}),
        ({"recompute": True}, {}),
        (SLATE, {"clip_norm_type": "inf", "half_life_steps": 0, "patience": 1}),
    ],
)
def test_resuming_is_exact(
    *,
    model: dict,
    settings: dict,
    tmp_path: Path,
    transformer_recipe: Recipe,
    changed: Change,
    both: dict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = changed(transformer_recipe, model=model, train=settings)
    torch.manual_seed(1)
    train(recipe, tmp_path / "whole", **both)
    torch.manual_seed(2)
    train_until(monkeypatch, 3, recipe, tmp_path / "broken", **both)
    torch.manual_seed(3)
    assert train(recipe, tmp_path / "broken", **both)
    assert identical(tmp_path / "whole", tmp_path / "broken")
    for event in ("step", "evaluation", "diagnostics"):
        assert rows(tmp_path / "broken", event) == rows(tmp_path / "whole", event)
    assert [row["step"] for row in rows(tmp_path / "broken", "resumed")] == [3]


def test_recomputation_draws_the_same_dropout(
    tmp_path: Path, transformer_recipe: Recipe, changed: Change, both: dict
) -> None:
    train(transformer_recipe, tmp_path / "kept", **both)
    train(changed(transformer_recipe, model={"recompute": True}), tmp_path / "recomputed", **both)
    first, second = weights(tmp_path / "kept"), weights(tmp_path / "recomputed")
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-5, atol=1e-6)


def test_dropout_is_on(tmp_path: Path, transformer_recipe: Recipe, changed: Change, both: dict) -> None:
    train(transformer_recipe, tmp_path / "on", **both)
    train(changed(transformer_recipe, model={"dropout": 0.0}), tmp_path / "off", **both)
    first, second = rows(tmp_path / "on")[0], rows(tmp_path / "off")[0]
    assert first["loss_dvae"] == second["loss_dvae"]  # the dVAE has none, and no gradient of the tokens reaches it
    assert first["loss_cross_entropy"] != second["loss_cross_entropy"]


def test_the_stream_of_the_caller_is_left_alone(tmp_path: Path, transformer_recipe: Recipe, both: dict) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(transformer_recipe, tmp_path / "run", **both)
    assert torch.equal(torch.rand(3), expected)


def test_accumulation_equals_the_large_batch(
    tmp_path: Path, transformer_recipe: Recipe, changed: Change, both: dict
) -> None:
    """With the noise of queries, drop-path and Gumbel; dropout, which draws a piece at a time, is off."""
    recipe = changed(transformer_recipe, model={"dropout": 0.0, "drop_path": 0.3})
    train(recipe, tmp_path / "whole", **both)
    train(changed(recipe, train={"accumulate": 4}), tmp_path / "pieces", **both)
    for name in ("loss", "loss_dvae", "loss_cross_entropy", "gradient_norm"):
        whole, pieces = ([row[name] for row in rows(tmp_path / run)] for run in ("whole", "pieces"))
        assert pieces == pytest.approx(whole, rel=1e-5), name
    start, whole, pieces = first_weights(recipe), weights(tmp_path / "whole"), weights(tmp_path / "pieces")
    moved = torch.cat([(whole[name] - start[name]).flatten() for name in start])
    apart = torch.cat([(whole[name] - pieces[name]).flatten() for name in start])
    assert apart.norm() < 1e-3 * moved.norm()


def test_rows_have_both_rates_the_temperature_and_both_losses(
    tmp_path: Path, transformer_recipe: Recipe, both: dict
) -> None:
    train(transformer_recipe, tmp_path / "run", **both)
    for row in rows(tmp_path / "run"):
        step = row["step"] - 1
        assert row["learning_rate"] == 1e-3 * learning_rate_factor(step, warmup_steps=2, half_life_steps=50)
        assert row["learning_rate_dvae"] == 2e-3 * learning_rate_factor(step, warmup_steps=0, half_life_steps=20)
        assert row["tau"] == gumbel_tau(step, tau_start=1.0, tau_end=0.1, tau_steps=4)
        assert row["loss"] == pytest.approx(row["loss_dvae"] + row["loss_cross_entropy"], rel=1e-5)


def test_a_mixture_has_one_rate_and_no_temperature(tmp_path: Path, recipe: Recipe, both: dict) -> None:
    train(recipe, tmp_path / "run", **both)
    own = {"loss", "gradient_norm", "query_gradient_norm", "learning_rate", "sigma"}
    assert set(rows(tmp_path / "run")[0]) == {"event", "step", *own}


def test_the_dvae_moves_while_the_rest_warms_up(
    tmp_path: Path, transformer_recipe: Recipe, changed: Change, both: dict
) -> None:
    recipe = changed(transformer_recipe, train={"steps": 1})
    train(recipe, tmp_path / "run", **both)
    start, end = first_weights(recipe), weights(tmp_path / "run")
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert moved == {name for name in start if name.startswith("dvae.")}


def test_every_parameter_is_in_one_group(transformer_recipe: Recipe) -> None:
    model = build_model(transformer_recipe)
    groups = training_step._parameter_groups(model, transformer_recipe.train)
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    assert [len(group.parameters) for group in groups][1] == len(list(model.dvae.parameters()))


def test_the_model_is_given_temperature_and_noise_of_the_step(
    tmp_path: Path, transformer_recipe: Recipe, both: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = TransformerModel.forward

    def watching(self: TransformerModel, image: Tensor, **options: Any) -> Any:
        if self.training:
            seen.append(options)
        return real(self, image, **options)

    monkeypatch.setattr(TransformerModel, "forward", watching)
    train(transformer_recipe, tmp_path / "run", **both)
    assert [options["tau"] for options in seen] == pytest.approx([1.0, 0.868198, 0.55, 0.231802, 0.1, 0.1], rel=1e-5)
    noises = [options["noise"] for options in seen]
    for noise in noises:
        assert noise.gumbel_soft.shape == noise.gumbel_hard.shape == (8, 12, 4, 4)
        assert not torch.equal(noise.gumbel_soft, noise.gumbel_hard)
    assert not torch.equal(noises[0].gumbel_soft, noises[1].gumbel_soft)


def test_the_norm_that_is_clipped_is_the_one_of_the_recipe(
    tmp_path: Path, transformer_recipe: Recipe, changed: Change, both: dict
) -> None:
    norms = {}
    for kind in ("2", "inf"):
        recipe = changed(transformer_recipe, train={"clip_norm_type": kind, "steps": 1})
        train(recipe, tmp_path / kind, **both)
        norms[kind] = rows(tmp_path / kind)[0]["gradient_norm"]
    model = build_model(recipe)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert norms["inf"] < norms["2"] < norms["inf"] * count**0.5


@pytest.mark.parametrize("kind", ["2", "inf"])
def test_clipping_scales_all_gradients_together(
    *, kind: str, tmp_path: Path, transformer_recipe: Recipe, changed: Change, both: dict, monkeypatch: Any
) -> None:
    clipped: list[Tensor] = []
    real = torch.optim.Adam.step

    def watching(self: torch.optim.Adam, *arguments: Any, **options: Any) -> Any:
        clipped.append(
            torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"] if p.grad is not None])
        )
        return real(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", watching)
    for limit in (0.0, 0.5):
        settings = {"clip_norm_type": kind, "clip_norm": limit, "steps": 1}
        train(changed(transformer_recipe, train=settings), tmp_path / str(limit), **both)
    whole, limited = clipped
    order = float(kind)
    assert whole.norm(order) > 0.5
    torch.testing.assert_close(limited, whole * (0.5 / whole.norm(order)), rtol=1e-4, atol=1e-9)


def constant_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every evaluation finds a held-out loss of 5."""
    real = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *given, **options: {**real(*given, **options), "loss": 5.0})


def test_patience_halves_all_rates_and_outlives_a_resume(
    tmp_path: Path,
    transformer_recipe: Recipe,
    changed: Change,
    both: dict,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    constant_loss(monkeypatch)
    settings = {"patience": 2, "evaluate_every": 1, "log_every": 1, "warmup_steps": 0, "half_life_steps": 0}
    recipe = changed(transformer_recipe, train={**settings, "steps": 7})
    recipe = changed(recipe, train={"dvae": changed(recipe.train, dvae={"half_life_steps": 0}).dvae})
    train(recipe, tmp_path / "whole", **both)
    # The first evaluation is the best; the third and the fifth are the second in a row that are not better.
    factors = [1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert [row["learning_rate"] for row in rows(tmp_path / "whole")] == [1e-3 * factor for factor in factors]
    assert [row["learning_rate_dvae"] for row in rows(tmp_path / "whole")] == [2e-3 * factor for factor in factors]
    assert capsys.readouterr().err.count("rates are halved") == 3
    train_until(monkeypatch, 4, recipe, tmp_path / "broken", **both)
    train(recipe, tmp_path / "broken", **both)
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
    assert identical(tmp_path / "broken", tmp_path / "whole")


def test_patience_needs_a_validation_split(
    tmp_path: Path, transformer_recipe: Recipe, changed: Change, train_data: PackedDataset
) -> None:
    recipe = changed(transformer_recipe, train={"patience": 2})
    with pytest.raises(RecipeError, match=r"no validation split; pass --train\.patience 0"):
        train(recipe, tmp_path / "run", train_data=train_data)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_an_earlier_version_is_resumed(
    tmp_path: Path, recipe: Recipe, both: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows nothing of parts of the loss and of patience."""
    train(recipe, tmp_path / "whole", **both)
    train_until(monkeypatch, 6, recipe, tmp_path / "run", **both)
    real = loop.saved_training

    def first_version(*arguments: Any, **options: Any) -> Saved | None:
        saved = real(*arguments, **options)
        unknown = ("parts", "plateau", "skipped", "images")
        return saved and saved._replace(
            trainer={name: value for name, value in saved.trainer.items() if name not in unknown}
        )

    monkeypatch.setattr(loop, "saved_training", first_version)
    train(recipe, tmp_path / "run", **both)
    assert identical(tmp_path / "whole", tmp_path / "run")


def test_a_trained_transformer_is_loaded(tmp_path: Path, transformer_recipe: Recipe, both: dict) -> None:
    train(transformer_recipe, tmp_path / "run", **both)
    model = load(tmp_path / "run")
    assert isinstance(model, TransformerModel)
    assert all(torch.equal(value, weights(tmp_path / "run")[name]) for name, value in model.state_dict().items())
