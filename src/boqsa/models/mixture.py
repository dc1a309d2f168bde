"""BO-QSA with a mixture decoder: every slot paints the whole image, masks say where it shows (paper A.1, spec 2).

Images are scaled to [-1, 1] inside the model, and the loss is the published one there: mean squared error over
everything. What comes out is back in [0, 1] units.

Shapes: B batch, K slots, N = h w tokens of the feature grid, D slot size, H W image pixels.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from boqsa.layers.convolution import ConvolutionDecoder, ConvolutionEncoder, require_encoder, require_layers
from boqsa.layers.position import PositionEmbedding
from boqsa.layers.slot_encoder import Queries, SlotEncoder
from boqsa.models.image import scaled_image
from boqsa.models.output import Noise, Output
from boqsa.slots import Gradient
from boqsa.slots.attention import EpsilonForm, InitialWeights, KeysAndValues
from boqsa.slots.queries import Perturbation


class MixtureModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="boqsa",
    tags=["object-centric-learning", "slot-attention", "bo-qsa"],
    license="apache-2.0",
):
    """Slot attention with learned queries and bi-level gradient, and a spatial-broadcast mixture decoder.

    The defaults are ObjectsRoom's (64x64, 5 slots). SA, I-SA, BO-SA, QSA, I-QSA and BO-QSA of Table 7 are the
    combinations of `queries` in {"shared_gaussian", "learned"} and `gradient`.

    Args:
        image_size: Height and width of the square image, in pixels.
        num_slots: K.
        slot_size: D.
        mlp_size: Hidden width of the feature MLP and of slot attention's MLP.
        encoder_channels: Output channels of each 5x5 convolution (Table 9).
        encoder_strides: Their strides.
        decoder_channels: Output channels of each 5x5 transposed convolution (Table 10); the final 3x3 follows.
        decoder_strides: Their strides; `decoder_grid` times their product is `image_size`.
        decoder_grid: Side of the grid that a slot is broadcast to.
        iterations: Slot-attention steps, all counted (spec 1.5).
        queries: Where slots start (spec 1.7).
        gradient: How the backward pass sees the refinement (spec 1.6).
        perturbation: How noise enters learned queries.
        epsilon, epsilon_form, drop_path, initial_weights, keys_and_values: As in `SlotAttention`.

    Raises:
        ValueError: if sizes do not fit together; the message names the fields and the legal values.
    """

    def __init__(
        self,
        image_size: int = 64,
        num_slots: int = 5,
        slot_size: int = 64,
        mlp_size: int = 128,
        encoder_channels: Sequence[int] = (64,) * 4,
        encoder_strides: Sequence[int] = (1, 1, 1, 1),
        decoder_channels: Sequence[int] = (64,) * 5,
        decoder_strides: Sequence[int] = (2, 2, 2, 1, 1),
        decoder_grid: int = 8,
        iterations: int = 3,
        queries: Queries = "learned",
        gradient: Gradient = "bilevel",
        perturbation: Perturbation = "multiplicative",
        epsilon: float = 1.0,
        epsilon_form: EpsilonForm = "sum",
        drop_path: float = 0.2,
        initial_weights: InitialWeights = "published",
        keys_and_values: KeysAndValues = "folded",
    ) -> None:
        super().__init__()
        _check_sizes(image_size, encoder_channels, encoder_strides, decoder_channels, decoder_strides, decoder_grid)
        self.image_size = image_size
        self.num_slots = num_slots
        self.slot_size = slot_size
        self.decoder_grid = decoder_grid
        self.iterations = iterations
        grid = image_size // prod(encoder_strides)
        features = encoder_channels[-1]

        self.encoder = ConvolutionEncoder(encoder_channels, encoder_strides)
        self.encoder_position = PositionEmbedding(features, grid, grid)
        self.slot_encoder = SlotEncoder(
            features,
            num_slots,
            slot_size,
            mlp_size,
            iterations=iterations,
            queries=queries,
            gradient=gradient,
            perturbation=perturbation,
            epsilon=epsilon,
            epsilon_form=epsilon_form,
            drop_path=drop_path,
            initial_weights=initial_weights,
            keys_and_values=keys_and_values,
        )
        self.decoder_position = PositionEmbedding(slot_size, decoder_grid, decoder_grid)
        self.decoder = ConvolutionDecoder(slot_size, decoder_channels, decoder_strides)
        self.register_load_state_dict_pre_hook(_take_first_names)  # type: ignore[no-untyped-call]

    def forward(
        self,
        image: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"],
        *,
        iterations: int | None = None,
        sigma: float = 0.0,
        noise: Noise | None = None,
        num_slots: int | None = None,
        which_slots: Sequence[int] | None = None,
    ) -> Output:
        """Discover the objects of a batch of images.

        Args:
            image: uint8, or float in [0, 1].
            iterations: Slot-attention steps; None means the trained number.
            sigma: Strength of the query perturbation in [0, 1], for training.
            noise: The random numbers of this pass; None is deterministic for learned queries.
            num_slots: Another number of slots, for a shared Gaussian.
            which_slots: Which learned queries to use, to run with fewer slots.

        Raises:
            ValueError: if the image has another size than the model, or slots are asked for that do not exist.
            TypeError: if the image is neither uint8 nor floating point.
        """
        noise = noise or Noise()
        dtype = self.decoder_position.project.weight.dtype
        target = scaled_image(image, size=self.image_size, low=-1.0, dtype=dtype)
        initial_slots = self.slot_encoder.initial_slots(
            image.shape[0], sigma=sigma, noise=noise.queries, num_slots=num_slots, which_slots=which_slots
        )
        features = self.encoder_position(self.encoder(target))  # (B, C, h, w)
        tokens = features.flatten(2).mT  # (B, N, C)
        if torch.is_grad_enabled():
            # The feature MLP is a hundredth of the arithmetic and a tenth of the memory, so it is computed again.
            prepared = checkpoint(self.slot_encoder.prepare, tokens, use_reentrant=False, preserve_rng_state=False)
        else:
            prepared = self.slot_encoder.prepare(tokens)
        slots, attention = self.slot_encoder(prepared, initial_slots, iterations=iterations, drop_path=noise.drop_path)
        slot_images, masks = self.decode(slots)
        reconstruction = (slot_images * masks).sum(dim=1)  # (B, 3, H, W)
        return Output(
            reconstruction=(reconstruction + 1) / 2,
            slot_reconstructions=(slot_images + 1) / 2,
            masks=masks,
            slots=slots,
            initial_slots=initial_slots,
            attention=attention,
            losses={"reconstruction": nn.functional.mse_loss(reconstruction, target)},
        )

    def decode(self, slots: Float[Tensor, "B K D"]) -> tuple[Float[Tensor, "B K 3 H W"], Float[Tensor, "B K 1 H W"]]:
        """What each slot paints, in [-1, 1] units, and its share of each pixel."""
        batch, count, _ = slots.shape
        grid = slots.flatten(0, 1)[:, :, None, None].expand(-1, -1, self.decoder_grid, self.decoder_grid)
        decoded = self.decoder(self.decoder_position(grid))  # (B K, 4, H, W)
        # The softmax over slots and the loss stay in the dtype of the parameters, also under autocast.
        decoded = decoded.to(self.decoder_position.project.weight.dtype).unflatten(0, (batch, count))
        slot_images, mask_logits = decoded.split([3, 1], dim=2)
        return slot_images, mask_logits.softmax(dim=1)

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape, a sample, of each field of `Noise` that this model uses."""
        return self.slot_encoder.noise_shapes


def _take_first_names(_: nn.Module, weights: dict[str, Tensor], prefix: str, *__: Any) -> None:
    """Weights of the first version, where the parts of the slot encoder stood in the model itself, fit too."""
    for name in list(weights):
        inner = name.removeprefix(prefix)
        if inner.startswith(("feature_mlp.", "queries.", "slot_attention.")):
            weights[f"{prefix}slot_encoder.{inner}"] = weights.pop(name)


def _check_sizes(
    image_size: int,
    encoder_channels: Sequence[int],
    encoder_strides: Sequence[int],
    decoder_channels: Sequence[int],
    decoder_strides: Sequence[int],
    decoder_grid: int,
) -> None:
    require_layers("decoder", decoder_channels, decoder_strides)
    require_encoder(image_size, encoder_channels, encoder_strides)
    if any(stride not in (1, 2) for stride in decoder_strides):
        raise ValueError(f"decoder_strides {tuple(decoder_strides)} must each be 1 or 2.")
    if decoder_grid * prod(decoder_strides) != image_size:
        raise ValueError(
            f"decoder_grid {decoder_grid} times decoder_strides {tuple(decoder_strides)} gives "
            f"{decoder_grid * prod(decoder_strides)} pixels, but image_size is {image_size}; make them equal."
        )
