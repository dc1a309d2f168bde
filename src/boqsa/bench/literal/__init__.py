"""A literal training step: the published algorithm as it reads, in eager PyTorch and fp32.

It takes the weights of a model and writes out everything that the package does in another way (spec 1.3 to 1.7, 2, 3.4
to 3.7):
- the graph goes through all slot-attention steps, and the early ones are then cut off;
- tokens are mapped to keys and values before the steps;
- dropout and attention are PyTorch's own operations, with weights (B, G, L, L) in memory;
- both Gumbel-softmax samples are whole (B, V, h, w) softmaxes, and the hard one goes on as one-hot codes;
- the memory layout is contiguous, nothing is computed twice to save memory, and Adam is not fused.

Layers are written as functions of their weights, so that no fast form of a layer comes in by the back door.
"""

import torch
from torch import Tensor, nn

from boqsa.bench.literal.mixture import LiteralMixture
from boqsa.bench.literal.transformer import LiteralTransformer
from boqsa.models import MixtureModel, Noise, TransformerModel
from boqsa.models.published import Model
from boqsa.recipes import Recipe, TransformerRecipe
from boqsa.training.schedules import gumbel_tau, query_sigma

__all__ = ["LiteralStep"]


class LiteralStep:
    """`losses = LiteralStep(model, recipe).step(image)`: forward, backward, clipping, Adam.

    Args:
        model: Whose weights are trained, on its device.
        recipe: Its recipe: learning rates, clipping, dropout; sigma and tau are those of the first step.
    """

    def __init__(self, model: Model, recipe: Recipe) -> None:
        settings = recipe.train
        self.model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.clip_norm, self.clip_norm_type = settings.clip_norm, float(settings.clip_norm_type)
        self.sigma = query_sigma(0, sigma_steps=settings.sigma_steps)
        self.tau = 1.0
        groups: list[dict[str, object]] = [{"params": list(model.parameters()), "lr": settings.learning_rate}]
        self._literal: LiteralMixture | LiteralTransformer
        if isinstance(model, TransformerModel):
            assert isinstance(recipe.model, TransformerRecipe)
            own = settings.dvae
            self.tau = gumbel_tau(0, tau_start=own.tau_start, tau_end=own.tau_end, tau_steps=own.tau_steps)
            self._literal = LiteralTransformer(model, recipe.model.dropout)
            dvae = list(model.dvae.parameters())
            rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("dvae.")]
            groups = [
                {"params": dvae, "lr": own.learning_rate},
                {"params": rest, "lr": settings.learning_rate},
            ]
        else:
            assert isinstance(model, MixtureModel)
            self._literal = LiteralMixture(model)
        self.optimizer = torch.optim.Adam(groups)

    def step(self, image: Tensor) -> dict[str, Tensor]:
        """One optimiser step on uint8 images (B, 3, H, W), which draws its own random numbers."""
        self.optimizer.zero_grad()
        losses = self.losses(image, sigma=self.sigma, tau=self.tau)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        if self.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm, norm_type=self.clip_norm_type)
        self.optimizer.step()
        return losses

    def losses(self, image: Tensor, *, sigma: float, tau: float, noise: Noise | None = None) -> dict[str, Tensor]:
        """The losses by name, of uint8 images.

        Args:
            image: (B, 3, H, W).
            sigma: Strength of the query perturbation.
            tau: Temperature of the Gumbel-softmax; a mixture has none.
            noise: All random numbers but those of dropout; None draws them here.
        """
        if isinstance(self._literal, LiteralTransformer):
            return self._literal.losses(image, sigma=sigma, tau=tau, noise=noise)
        return self._literal.losses(image, sigma=sigma, noise=noise)
