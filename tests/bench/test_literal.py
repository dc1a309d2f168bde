"""The literal step computes what the model computes: losses and gradients, in float64."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from boqsa.bench.literal import LiteralStep
from boqsa.inference.load import build_model
from boqsa.models import Noise
from boqsa.models.published import Model
from boqsa.recipes import Recipe
from boqsa.training.draws import draw_gumbel, draw_noise

TIGHT = 1e-9
"""Of the largest entry; float64 rounds at 1e-16, over sums of some thousand terms and a chain of some dozen layers."""

VARIANTS: list[dict[str, Any]] = [
    {"gradient": "bilevel"},
    {"gradient": "implicit"},
    {"gradient": "unrolled"},
    {"gradient": "bilevel", "perturbation": "additive"},
    {"gradient": "bilevel", "queries": "shared_gaussian"},
    {"gradient": "unrolled", "queries": "independent_gaussians", "epsilon": 1e-8, "epsilon_form": "entry"},
]


def noise_of(model: Model) -> Noise:
    """Of four images, as in training."""
    shapes = model.noise_shapes()
    noise = draw_noise(shapes, seed=1, step=2, positions=range(4), perturb_queries=True)
    if "gumbel_soft" in shapes:
        soft, hard = draw_gumbel(shapes["gumbel_soft"], seed=1, step=2, positions=range(4))
        noise = noise._replace(gumbel_soft=soft, gumbel_hard=hard)
    return noise


def require_equal(recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = build_model(recipe).double().train()
    image = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    noise = noise_of(model)
    options = {"tau": 0.7} if recipe.model.kind == "transformer" else {}
    output = model(image, sigma=0.5, noise=noise, **options)
    output.loss.backward()
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)

    losses = LiteralStep(model, recipe).losses(image, sigma=0.5, tau=0.7, noise=noise)
    sum(losses.values()).backward()

    assert losses.keys() == output.losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, output.losses[name], rtol=TIGHT, atol=0)
    reached = {name for name, gradient in wanted.items() if gradient is not None and gradient.any()}
    queries = {name for name in wanted if ".queries." in name}
    assert set(wanted) - reached == (queries if recipe.model.gradient == "implicit" else set())
    for name, parameter in model.named_parameters():
        if name.endswith("norm_slots.bias"):
            continue  # it shifts the logits of all slots alike, so its gradient is 0 but for rounding
        if name in reached:
            scale = float(wanted[name].abs().max())
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=0, atol=TIGHT * scale, msg=name)
        else:
            assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("fields", VARIANTS, ids=lambda fields: " ".join(map(str, fields.values())))
def test_mixture(mixture_recipe: Recipe, fields: dict[str, Any]) -> None:
    require_equal(replace(mixture_recipe, model=replace(mixture_recipe.model, **fields)))


@pytest.mark.parametrize(
    "fields", [*VARIANTS, {"features": "tokens"}], ids=lambda fields: " ".join(map(str, fields.values()))
)
def test_transformer(transformer_recipe: Recipe, fields: dict[str, Any]) -> None:
    require_equal(replace(transformer_recipe, model=replace(transformer_recipe.model, **fields)))


@pytest.mark.parametrize("kind", ["mixture", "transformer"])
def test_a_step_trains_all_weights_with_its_own_draws(kind: str, request: pytest.FixtureRequest) -> None:
    recipe: Recipe = request.getfixturevalue(f"{kind}_recipe")
    torch.manual_seed(0)
    model = build_model(recipe).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    literal = LiteralStep(model, recipe)
    image = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    first, second = literal.step(image), literal.step(image)
    assert all(bool(loss.isfinite()) for loss in (first | second).values())
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_dropout_drops(transformer_recipe: Recipe) -> None:
    recipe = replace(transformer_recipe, model=replace(transformer_recipe.model, dropout=0.5))
    model = build_model(recipe).train()
    literal, noise = LiteralStep(model, recipe), noise_of(model)
    image = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    one, other = (literal.losses(image, sigma=0.5, tau=0.7, noise=noise) for _ in range(2))
    assert one["dvae"] == other["dvae"]
    assert one["cross_entropy"] != other["cross_entropy"]
