"""One optimiser step of a radiance model: scenes of several views in, and beside the reconstruction two more losses.

Notable choices:
- What a step does is a pure function of its number (`boqsa.training.phases`), and so is every draw: which views, which
  pixels, which noise. Nothing but the discriminator and its optimiser is added to what a checkpoint holds.
- A step that is the discriminator's, or nobody's, renders without a graph: its loss is that of the model all the same.
- In its own step the discriminator sends no gradient to the model; the published code makes one and throws it away.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boqsa.data import PackedDataset
from boqsa.errors import InputError, RecipeError
from boqsa.models import Output
from boqsa.models.published import Model
from boqsa.models.radiance import RadianceModel, SceneOutput, all_pixels
from boqsa.models.radiance.discriminator import Discriminator
from boqsa.models.radiance.pretrained import PerceptualLoss, digest, read_weights
from boqsa.recipes import Recipe
from boqsa.training.draws import batch_indices, draw_corners, draw_density_noise, draw_rays, draw_views
from boqsa.training.machine import sent
from boqsa.training.phases import Phase, discriminator_rate_factor, discriminator_steps, phase_at, rate_factor
from boqsa.training.step import ParameterGroup, StepResult, TrainImages, TrainStep
from boqsa.training.views import SceneViews

_BETAS = (0.0, 0.9)
"""Of the discriminator's Adam (uorf 8.1)."""


class RadianceStep(TrainStep):
    """Model, discriminator and optimisers of a radiance recipe, on its device; arguments as for `TrainStep`.

    Raises:
        RecipeError: as `TrainStep`; or if the perceptual loss is wanted and its weights are not given.
        InputError: if these weights cannot be read.
    """

    def __init__(self, recipe: Recipe, model: RadianceModel) -> None:
        super().__init__(recipe, model)
        self.perceptual = _perceptual_loss(recipe, self.device)
        self.discriminator: nn.Module | None = None
        if recipe.train.radiance.adversarial_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed + 1)
                plain = Discriminator()
            optimizer = torch.optim.Adam(plain.parameters(), lr=recipe.train.radiance.discriminator_rate, betas=_BETAS)
            self.discriminator, self._discriminator_optimizer = self.fabric.setup(plain, optimizer)

    def images(self, data: PackedDataset) -> TrainImages:
        """The scenes of a split."""
        scenes = SceneViews(data, self.device, least=self.recipe.train.radiance.views)
        first = scenes.views([0], np.zeros((1, 1), np.int64))
        model = self.plain_model
        assert isinstance(model, RadianceModel)
        model.typical_camera.copy_(first.camera[0, 0])
        model.typical_azimuth.copy_(first.azimuth[0, 0])
        return cast(TrainImages, scenes)

    def __call__(self, images: TrainImages, step: int, *, rate_factor: float = 1.0) -> StepResult:
        """Make the step of this number, counted from 0, whoever's it is."""
        phase = phase_at(self.recipe.train, step)
        if phase.turn == "model":
            return super().__call__(images, step, rate_factor=rate_factor)
        with torch.no_grad():
            output = self._of_own_share(images, step)
        if phase.turn == "discriminator":
            self._learn_to_discriminate(output, phase, step)
        loss, parts = self._means({"": output.losses["reconstruction"], **output.losses})
        still = loss.new_zeros(())  # the model has no gradient here
        return StepResult(loss, still, parts, loss.isfinite(), still)

    def forward(self, images: TrainImages, indices: Int[np.ndarray, "b"], step: int, positions: range) -> Output:
        """What the model makes of some scenes, with all losses of the phase."""
        settings, phase = self.recipe.train, phase_at(self.recipe.train, step)
        of, seed = settings.radiance, self.recipe.seed
        scenes = cast(SceneViews, images)
        drawn = {"seed": seed, "step": step, "positions": positions}
        chosen = draw_views(scenes.counts[indices].tolist(), of.views, **drawn)  # type: ignore[arg-type]
        views = scenes.views(indices, chosen)
        pixels = self._pixels(phase, drawn)
        options = self.options(step)
        noise = self._noise(step, positions, perturb_queries=options["sigma"] > 0)
        density_noise = None
        if phase.density_noise:
            shape = (self.recipe.model.num_slots, pixels.shape[1], of.samples)
            density_noise = phase.density_noise * sent(draw_density_noise(shape, **drawn), self.device)  # type: ignore[arg-type]
        output: SceneOutput = self.model(
            views,
            pixels,
            size=phase.size,
            samples=of.samples,
            local=phase.local,
            sigma=options["sigma"],
            noise=noise,
            density_noise=density_noise,
        )
        return cast(Output, self._with_more_losses(output, phase))

    def rate_factor(self, group: ParameterGroup, step: int) -> float:
        """A decay that begins after the warm-up and stops at the fine stage (uorf 8.2)."""
        return rate_factor(self.recipe.train, step)

    def more_state(self) -> dict[str, Any]:
        """Weights and optimiser of the discriminator, if there is one."""
        if self.discriminator is None:
            return {}
        return {
            "discriminator": self.discriminator.state_dict(),
            "discriminator_optimizer": self._discriminator_optimizer.state_dict(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what `more_state` gave."""
        if self.discriminator is not None:
            self.discriminator.load_state_dict(saved["discriminator"])
            self._discriminator_optimizer.load_state_dict(saved["discriminator_optimizer"])

    def _of_own_share(self, images: TrainImages, step: int) -> SceneOutput:
        """The whole share of this process at once."""
        size = self.recipe.train.batch_size
        share = size // self.fabric.world_size
        begin = self.fabric.global_rank * share
        indices = batch_indices(self.recipe.seed, step, size, len(images))[begin : begin + share]
        return cast(SceneOutput, self.forward(images, indices, step, range(begin, begin + share)))

    def _pixels(self, phase: Phase, drawn: dict[str, Any]) -> Int[Tensor, "B R 3"]:
        """View, row and column of what a step renders."""
        of, count = self.recipe.train.radiance, len(drawn["positions"])
        if of.rays:
            rays = draw_rays(of.rays, views=of.views, size=phase.size, **drawn)
            return sent(torch.from_numpy(rays), self.device)
        pixels = all_pixels(of.views, phase.crop, scenes=count)
        if phase.crop < phase.size:
            corner = torch.from_numpy(draw_corners(phase.size - phase.crop, **drawn))
            pixels = pixels + nn.functional.pad(corner, (1, 0))[:, None]
        return sent(pixels, self.device)

    def _with_more_losses(self, output: SceneOutput, phase: Phase) -> SceneOutput:
        losses = dict(output.losses)
        if phase.perceptual and self.perceptual is not None:
            of_images = (self._pictures(colour, phase) for colour in (output.colour, output.target))
            losses["perceptual"] = phase.perceptual * self.perceptual(*of_images)
        if phase.adversarial and phase.turn == "model":
            assert self.discriminator is not None
            logits = self.discriminator(2 * self._pictures(output.colour, phase) - 1)
            losses["adversarial"] = phase.adversarial * nn.functional.softplus(-logits).mean()
        return output._replace(losses=losses)

    def _learn_to_discriminate(self, output: SceneOutput, phase: Phase, step: int) -> None:
        """One step on photographs and renderings, and every so often a second one on the slope (uorf 7)."""
        assert self.discriminator is not None
        of, optimizer = self.recipe.train.radiance, self._discriminator_optimizer
        for entry in optimizer.param_groups:
            entry["lr"] = of.discriminator_rate * discriminator_rate_factor(self.recipe.train, step)
        real, fake = (2 * self._pictures(colour, phase) - 1 for colour in (output.target, output.colour))
        optimizer.zero_grad(set_to_none=True)
        softplus = nn.functional.softplus
        self.fabric.backward(softplus(-self.discriminator(real)).mean() + softplus(self.discriminator(fake)).mean())
        optimizer.step()
        if of.r1_weight and discriminator_steps(self.recipe.train, step) % of.r1_every == 0:
            real.requires_grad_()
            optimizer.zero_grad(set_to_none=True)
            (slope,) = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
            self.fabric.backward(of.r1_weight * slope.square().sum(dim=(1, 2, 3)).mean())
            optimizer.step()

    def _pictures(self, colour: Float[Tensor, "B R 3"], phase: Phase) -> Float[Tensor, "n 3 h w"]:
        """Rays of whole pictures as pictures, all views of all scenes."""
        return colour.view(-1, phase.crop, phase.crop, 3).permute(0, 3, 1, 2)


def step_of(recipe: Recipe, model: Model) -> TrainStep:
    """The step of a recipe's kind of model."""
    return RadianceStep(recipe, model) if isinstance(model, RadianceModel) else TrainStep(recipe, model)


def _perceptual_loss(recipe: Recipe, device: torch.device) -> PerceptualLoss | None:
    of = recipe.train.radiance
    if not of.perceptual_weight or of.perceptual_from >= recipe.train.steps:
        return None
    if of.perceptual_file is None:
        if of.perceptual_missing == "skip":
            return None
        raise RecipeError(
            "the perceptual loss needs VGG16's ImageNet weights, which are not downloaded: pass "
            "--train.radiance.perceptual-file FILE, a state dictionary with torchvision's names; or train without it, "
            "by --train.radiance.perceptual-weight 0."
        )
    return PerceptualLoss(read_weights(of.perceptual_file)).to(device)


def files_used(recipe: Recipe) -> dict[str, str]:
    """For the record of a run: the digest of the perceptual loss's weights, if it has any."""
    path = recipe.train.radiance.perceptual_file
    try:
        return {} if path is None else {"perceptual_file_sha256": digest(path)}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a file of weights.") from None
