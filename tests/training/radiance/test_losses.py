"""The losses beside the reconstruction by value, on pictures whose losses can be told by hand (uorf 7)."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from boqsa.inference.load import build_model
from boqsa.models.radiance import SceneOutput
from boqsa.recipes import get_recipe
from boqsa.training.phases import Phase, phase_at
from boqsa.training.radiance_step import RadianceStep, step_of

LEARNS_BEGINS, BOTH = 100_000, 125_000
"""When the discriminator of Room-Diverse begins to learn, and when the model learns again (uorf 7.2)."""
RENDERED, PHOTOGRAPHED = (0.5, 1.0), (1.0, 0.75)
"""The one brightness of each view, in [0, 1]: 0 and 1, and 1 and 0.5 between -1 and 1, where they are judged."""
SIDE = 2
NUMBERS = 3 * SIDE * SIDE
"""Of a picture."""
STEEPNESS, OFFSET = 0.25, -0.5


class Bowl(nn.Module):
    """A discriminator whose logit is STEEPNESS / 2 |x|^2 + OFFSET; its slope at a picture x is STEEPNESS x."""

    def __init__(self) -> None:
        super().__init__()
        self.steepness = nn.Parameter(torch.tensor(STEEPNESS))
        self.offset = nn.Parameter(torch.tensor(OFFSET))

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape == (2, 3, SIDE, SIDE)
        return self.steepness / 2 * image.square().sum(dim=(1, 2, 3)) + self.offset


def logit(brightness: float) -> float:
    """Of a picture of one brightness between -1 and 1."""
    return STEEPNESS / 2 * NUMBERS * brightness**2 + OFFSET


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.fixture
def room_diverse() -> RadianceStep:
    """The published recipe, without weights for the perceptual loss, judged by a bowl."""
    recipe = get_recipe("room_diverse_radiance")
    radiance = replace(recipe.train.radiance, perceptual_missing="skip")
    recipe = replace(recipe, train=replace(recipe.train, device="cpu", radiance=radiance))
    with torch.random.fork_rng():
        step = step_of(recipe, build_model(recipe))
    assert isinstance(step, RadianceStep)
    step.discriminator = Bowl()  # type: ignore[assignment]
    return step


@pytest.fixture
def output() -> SceneOutput:
    """Two views of 2x2, each of one brightness."""

    def pixels(brightnesses: tuple[float, ...]) -> Tensor:
        return torch.tensor(brightnesses).repeat_interleave(SIDE * SIDE)[None, :, None].repeat(1, 1, 3)

    none = torch.zeros(1, 5, 64)
    losses = {"reconstruction": torch.tensor(0.125)}
    return SceneOutput(pixels(RENDERED).requires_grad_(), pixels(PHOTOGRAPHED), none, none, none, losses)


def phase_of(step: RadianceStep, number: int) -> Phase:
    """The phase of that step, in pictures of 2x2."""
    return phase_at(step.recipe.train, number)._replace(crop=SIDE)


def moves(step: RadianceStep, output: SceneOutput, number: int, patch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The losses that the discriminator's step goes down, and the slope of each in the bowl's steepness."""
    made: list[tuple[float, float]] = []

    def move(loss: Tensor) -> Tensor:
        assert isinstance(step.discriminator, Bowl)
        (slope,) = torch.autograd.grad(loss, step.discriminator.steepness, retain_graph=True)
        made.append((float(loss.detach()), float(slope)))
        return torch.tensor(True)

    patch.setattr(step, "_move_discriminator", move)
    detached = output._replace(colour=output.colour.detach())  # as where a step is not the model's
    told, _ = step._learn_to_discriminate(detached, phase_of(step, number), number, 1.0)
    assert float(told) == made[0][0]
    return made


def test_the_discriminator_tells_photographs_from_renderings(
    room_diverse: RadianceStep, output: SceneOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean softplus(-D(photograph)) and mean softplus(D(rendering))."""
    ((loss, _), _) = moves(room_diverse, output, LEARNS_BEGINS + 1, monkeypatch)
    real = (softplus(-logit(1.0)) + softplus(-logit(0.5))) / 2
    fake = (softplus(logit(0.0)) + softplus(logit(1.0))) / 2
    assert loss == pytest.approx(real + fake, rel=1e-6)


def test_the_penalty_is_ten_times_the_mean_squared_slope_at_photographs(
    room_diverse: RadianceStep, output: SceneOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not halved, and not times the steps between two of them; in every 16th step of the discriminator's."""
    (_, (penalty, its_slope)) = moves(room_diverse, output, LEARNS_BEGINS + 1, monkeypatch)
    mean_of_squares = NUMBERS * (1.0**2 + 0.5**2) / 2
    assert penalty == pytest.approx(10 * STEEPNESS**2 * mean_of_squares, rel=1e-6)
    assert its_slope == pytest.approx(10 * 2 * STEEPNESS * mean_of_squares, rel=1e-6)
    lengths = [len(moves(room_diverse, output, LEARNS_BEGINS + 1 + 2 * later, monkeypatch)) for later in range(17)]
    assert lengths == [2, *[1] * 15, 2]


def test_the_model_is_told_a_hundredth_of_how_well_it_is_told_apart(
    room_diverse: RadianceStep, output: SceneOutput
) -> None:
    """0.01 mean softplus(-D(rendering)), with a slope in what is rendered and none in the discriminator."""
    made = room_diverse._with_more_losses(output, phase_of(room_diverse, BOTH))
    assert set(made.losses) == {"reconstruction", "adversarial"}
    expected = 0.01 * (softplus(-logit(0.0)) + softplus(-logit(1.0))) / 2
    assert float(made.losses["adversarial"].detach()) == pytest.approx(expected, rel=1e-6)
    assert float(made.loss.detach()) == pytest.approx(0.125 + expected, rel=1e-6)
    made.loss.backward()
    # Colours are in [0, 1], what is judged between -1 and 1: a factor of 2.
    slopes = [0.01 / 2 * -sigmoid(-logit(value)) * STEEPNESS * value * 2 for value in (0.0, 1.0)]
    assert output.colour.grad is not None
    of_views = output.colour.grad.view(2, NUMBERS)
    for found, slope in zip(of_views, slopes, strict=True):
        assert found.tolist() == pytest.approx([slope] * NUMBERS, rel=1e-5)
    assert room_diverse.discriminator is not None
    assert all(value.grad is None and value.requires_grad for value in room_diverse.discriminator.parameters())


def test_the_perceptual_loss_counts_six_thousandths(room_diverse: RadianceStep, output: SceneOutput) -> None:
    """Of a squared error of features that are the pictures themselves, each view a picture in [0, 1]."""
    seen: list[Tensor] = []

    class Pixels(nn.Module):
        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            seen.extend((one.detach(), other))
            return (one - other).square().mean()

    room_diverse.perceptual = Pixels()  # type: ignore[assignment]
    made = room_diverse._with_more_losses(output, phase_of(room_diverse, BOTH))
    error = (0.5**2 + 0.25**2) / 2
    assert float(made.losses["perceptual"].detach()) == pytest.approx(0.006 * error, rel=1e-6)
    for pictures, brightnesses in zip(seen, (RENDERED, PHOTOGRAPHED), strict=True):
        assert pictures.shape == (2, 3, SIDE, SIDE)
        assert pictures.flatten(1).tolist() == [[value] * NUMBERS for value in brightnesses]
