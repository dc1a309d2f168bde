"""One optimiser step of a radiance model: scenes of several views in, and beside the reconstruction two more losses.

Notable choices:
- What a step does is a pure function of its number (`boqsa.training.phases`), and so is every draw: which views, which
  pixels, which noise. Nothing but the discriminator and its optimiser is added to what a checkpoint holds.
- A step that is the discriminator's, or nobody's, renders without a graph, so that the curve of the loss has no gaps;
  the gradient norms of the latest step of the model stand beside it.
- The discriminator is small: each process has a plain copy of it, and gradients are averaged by hand.
- In its own step the discriminator sends no gradient to the model; the published code makes one and throws it away.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boqsa.data import PackedDataset
from boqsa.errors import InputError, RecipeError, RunError
from boqsa.models import Output
from boqsa.models.published import Model
from boqsa.models.radiance import RadianceModel, SceneOutput, all_pixels
from boqsa.models.radiance.discriminator import MOST_IN_A_GROUP, Discriminator
from boqsa.models.radiance.pretrained import PerceptualLoss, digest, read_weights
from boqsa.recipes import Recipe
from boqsa.training.draws import batch_indices, draw_corners, draw_density_noise, draw_rays, draw_views
from boqsa.training.machine import sent
from boqsa.training.phases import Phase, discriminator_rate_factor, discriminator_steps, phase_at, rate_factor
from boqsa.training.step import ParameterGroup, StepResult, TrainImages, TrainStep
from boqsa.training.views import SceneViews

_DIGEST = "perceptual_file_sha256"
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
        self.discriminator: Discriminator | None = None
        of = recipe.train.radiance
        if of.adversarial_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed + 1)
                self.discriminator = Discriminator(group=min(of.views, MOST_IN_A_GROUP)).to(self.device)
            parameters = self.discriminator.parameters()
            self._discriminator_optimizer = torch.optim.Adam(parameters, lr=of.discriminator_rate, betas=_BETAS)
        # Of the model's latest step, for the log.
        self._norm = torch.zeros((), device=self.device)
        self._query_norm = torch.zeros((), device=self.device) if recipe.model.queries == "learned" else None
        self._objects_norm = torch.zeros((), device=self.device)

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
            result = super().__call__(images, step, rate_factor=rate_factor)
            self._norm, self._query_norm = result.norm, result.query_norm
            self._objects_norm = _gradient_norm(cast(RadianceModel, self.plain_model).object_field)
            return result
        with torch.no_grad():
            output = self._of_own_share(images, step)
        losses = {"": output.loss, **output.losses}
        is_finite = torch.ones((), dtype=torch.bool, device=self.device)
        if phase.turn == "discriminator":
            losses["discriminator"], is_finite = self._learn_to_discriminate(output, phase, step, rate_factor)
        loss, parts = self._means(losses)
        return StepResult(loss, self._norm, parts, is_finite & loss.isfinite(), self._query_norm)

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

    def more_norms(self) -> dict[str, float]:
        """That of the objects' field: exactly 0 where no object is dense anywhere, and none can come back (uorf 13)."""
        return {"object_field_gradient_norm": float(self._objects_norm)}

    def more_state(self) -> dict[str, Any]:
        """Weights and optimiser of the discriminator, if there is one, and which weights the perceptual loss has."""
        state: dict[str, Any] = files_used(self.recipe) if self.perceptual is not None else {}
        if self.discriminator is not None:
            state["discriminator"] = self.discriminator.state_dict()
            state["discriminator_optimizer"] = self._discriminator_optimizer.state_dict()
            norms = {"all": self._norm, "queries": self._query_norm, "objects": self._objects_norm}
            state["model_norms"] = {name: norm for name, norm in norms.items() if norm is not None}
        return state

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what `more_state` gave.

        Raises:
            RunError: if the perceptual loss has other weights now than it began with.
        """
        before, now = saved.get(_DIGEST), files_used(self.recipe).get(_DIGEST) if self.perceptual is not None else None
        if before is not None and now is not None and before != now:
            raise RunError(
                f"{self.recipe.train.radiance.perceptual_file} holds other weights than this run began with (sha256 "
                f"{before[:12]} -> {now[:12]}); give the file it began with."
            )
        if self.discriminator is not None:
            self.discriminator.load_state_dict(saved["discriminator"])
            self._discriminator_optimizer.load_state_dict(saved["discriminator_optimizer"])
            norms = {name: norm.to(self.device) for name, norm in saved["model_norms"].items()}
            self._norm, self._query_norm, self._objects_norm = norms["all"], norms.get("queries"), norms["objects"]

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
        if phase.perceptual and self.perceptual is not None and phase.turn == "model":
            of_images = (self._pictures(colour, phase) for colour in (output.colour, output.target))
            losses["perceptual"] = phase.perceptual * self.perceptual(*of_images)
        if phase.adversarial and phase.turn == "model":
            assert self.discriminator is not None
            self.discriminator.requires_grad_(False)
            logits = self.discriminator(2 * self._pictures(output.colour, phase) - 1)
            self.discriminator.requires_grad_(True)
            losses["adversarial"] = phase.adversarial * nn.functional.softplus(-logits).mean()
        return output._replace(losses=losses)

    def _learn_to_discriminate(
        self, output: SceneOutput, phase: Phase, step: int, rate_factor: float
    ) -> tuple[Float[Tensor, ""], Bool[Tensor, ""]]:
        """One step on photographs and renderings, and every so often a second one on the slope (uorf 7).

        Returns:
            The loss of the first, and whether all gradients were numbers; a step that has none is left out.
        """
        assert self.discriminator is not None
        of, softplus = self.recipe.train.radiance, nn.functional.softplus
        factor = rate_factor * discriminator_rate_factor(self.recipe.train, step)
        for entry in self._discriminator_optimizer.param_groups:
            entry["lr"] = of.discriminator_rate * factor
        real, fake = (2 * self._pictures(colour, phase) - 1 for colour in (output.target, output.colour))
        loss = softplus(-self.discriminator(real)).mean() + softplus(self.discriminator(fake)).mean()
        is_finite = self._move_discriminator(loss)
        if of.r1_weight and discriminator_steps(self.recipe.train, step) % of.r1_every == 0:
            real.requires_grad_()
            (slope,) = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
            penalty = of.r1_weight * slope.square().sum(dim=(1, 2, 3)).mean()
            is_finite = self._move_discriminator(penalty) & is_finite
        return loss.detach(), is_finite

    def _move_discriminator(self, loss: Float[Tensor, ""]) -> Bool[Tensor, ""]:
        """Make a step down a loss, in all processes alike, unless its gradient is no number."""
        assert self.discriminator is not None
        parameters = list(self.discriminator.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
            if self.fabric.world_size > 1:
                mean = self.fabric.all_reduce(parameter.grad, reduce_op="mean")
                assert isinstance(mean, Tensor)
                parameter.grad = mean
        is_finite = torch.stack([parameter.grad.isfinite().all() for parameter in parameters]).all()  # type: ignore[union-attr]
        if is_finite:
            self._discriminator_optimizer.step()
        return is_finite

    def _pictures(self, colour: Float[Tensor, "B R 3"], phase: Phase) -> Float[Tensor, "n 3 h w"]:
        """Rays of whole pictures as pictures, all views of all scenes."""
        return colour.view(-1, phase.crop, phase.crop, 3).permute(0, 3, 1, 2)


def step_of(recipe: Recipe, model: Model) -> TrainStep:
    """The step of a recipe's kind of model."""
    return RadianceStep(recipe, model) if isinstance(model, RadianceModel) else TrainStep(recipe, model)


def _gradient_norm(module: nn.Module) -> Float[Tensor, ""]:
    """Of all parameters that have a gradient."""
    return nn.utils.get_total_norm([parameter.grad for parameter in module.parameters() if parameter.grad is not None])


def _perceptual_loss(recipe: Recipe, device: torch.device) -> PerceptualLoss | None:
    of = recipe.train.radiance
    if not _wants_perceptual_loss(recipe):
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
    """For the record of a run: the digest of the weights that its perceptual loss has, or that it goes without."""
    of = recipe.train.radiance
    if recipe.model.kind != "radiance" or not _wants_perceptual_loss(recipe):
        return {}
    if of.perceptual_file is None:
        return {"perceptual_loss": "left out, its weights were not given"}
    try:
        return {_DIGEST: digest(of.perceptual_file)}
    except OSError as error:
        raise InputError(f"cannot read {of.perceptual_file}: {error.strerror}; give a file of weights.") from None


def _wants_perceptual_loss(recipe: Recipe) -> bool:
    of = recipe.train.radiance
    return bool(of.perceptual_weight) and of.perceptual_from < recipe.train.steps
