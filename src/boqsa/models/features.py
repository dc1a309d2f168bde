"""BO-QSA on frozen features: slots over the patches of a pretrained vision transformer, which they have to rebuild.

The first limitation that the paper names (section C), and where the field went: on photographs, pixels are no good
target, and features of a self-supervised network are (DINOSAUR, baselines 7.1; SPOT, 7.2, took learned queries and the
bi-level gradient into its second stage). The network is no part of this model. Its features come from a packed set
(`boqsa data features`), and `use_encoder` attaches it where a picture is to be looked at.

    features -> feature MLP -> slots -> decoder -> features       mean squared error over everything

Shapes: B batch, K slots, N = n n patches, row-major, F feature size, D slot size, H W image pixels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from boqsa.errors import InputError
from boqsa.layers.slot_encoder import Queries, SlotEncoder
from boqsa.models.feature_decoders import ORDERS, AutoregressiveFeatureDecoder, MLPFeatureDecoder
from boqsa.models.output import Noise, Output
from boqsa.models.pretrained_vit import PretrainedViT
from boqsa.slots import Gradient
from boqsa.slots.attention import EpsilonForm, InitialWeights, KeysAndValues
from boqsa.slots.queries import Perturbation

FeatureDecoder = Literal["mlp", "autoregressive"]


class FeaturesModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="boqsa",
    tags=["object-centric-learning", "slot-attention", "bo-qsa"],
    license="apache-2.0",
):
    """Slot attention with learned queries and bi-level gradient on frozen features, and a decoder to these features.

    The defaults are DINOSAUR's for COCO, with the queries and the gradient of BO-QSA as SPOT has them: epsilon 1e-8 on
    each entry, no drop-path. There is no position embedding before the slots: the features carry their place.

    Args:
        image_size: Height and width of the square image, in pixels; divisible by `patch_size`.
        patch_size: Side of a patch of the encoder, in pixels.
        feature_size: F of the encoder.
        num_slots: K.
        slot_size: D.
        mlp_size: Hidden width of slot attention's MLP; that of the feature MLP is F.
        decoder: "mlp" (DINOSAUR) or "autoregressive" (SPOT).
        decoder_size, decoder_layers: Of the MLP: width and number of its hidden layers.
        blocks, heads: Of the autoregressive decoder, whose width is F.
        random_orders: Whether the autoregressive decoder walks in one of nine orders, drawn for each image in training.
        iterations: Slot-attention steps, all counted (spec 1.5).
        queries: Where slots start (spec 1.7).
        gradient: How the backward pass sees the refinement (spec 1.6).
        perturbation: How noise enters learned queries.
        epsilon, epsilon_form, drop_path, initial_weights, keys_and_values: As in `SlotAttention`.
        encoder: Name of the encoder that the features are from, for the record: a folder, or a name on the hub.
        encoder_sha256: Of its weights; another encoder is refused. None takes any of the right sizes.

    Raises:
        ValueError: if sizes do not fit together; the message names the fields and the legal values.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        feature_size: int = 768,
        num_slots: int = 7,
        slot_size: int = 256,
        mlp_size: int = 1024,
        decoder: FeatureDecoder = "mlp",
        decoder_size: int = 2048,
        decoder_layers: int = 3,
        blocks: int = 4,
        heads: int = 6,
        random_orders: bool = True,
        iterations: int = 3,
        queries: Queries = "learned",
        gradient: Gradient = "bilevel",
        perturbation: Perturbation = "multiplicative",
        epsilon: float = 1e-8,
        epsilon_form: EpsilonForm = "entry",
        drop_path: float = 0.0,
        initial_weights: InitialWeights = "published",
        keys_and_values: KeysAndValues = "projected",
        encoder: str | None = None,
        encoder_sha256: str | None = None,
    ) -> None:
        super().__init__()
        if patch_size < 1 or image_size % patch_size:
            raise ValueError(
                f"image_size {image_size} is no whole number of patches of patch_size {patch_size} pixels."
            )
        if decoder not in ("mlp", "autoregressive"):
            raise ValueError(f"decoder is {decoder!r}; pass 'mlp' (DINOSAUR) or 'autoregressive' (SPOT).")
        self.image_size = image_size
        self.patch_size = patch_size
        self.feature_size = feature_size
        self.grid = image_size // patch_size
        self.num_slots = num_slots
        self.slot_size = slot_size
        self.iterations = iterations
        self.encoder_name = encoder
        self.encoder_sha256 = encoder_sha256
        self._encoder: tuple[PretrainedViT, ...] = ()  # in a tuple, so that it is no part of the model's weights

        self.slot_encoder = SlotEncoder(
            feature_size,
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
            feature_mlp_size=feature_size,
        )
        self.decoder: MLPFeatureDecoder | AutoregressiveFeatureDecoder
        if decoder == "mlp":
            self.decoder = MLPFeatureDecoder(
                self.grid**2, slot_size, feature_size, hidden_size=decoder_size, layers=decoder_layers
            )
        else:
            self.decoder = AutoregressiveFeatureDecoder(
                self.grid, slot_size, feature_size, blocks=blocks, heads=heads, random_orders=random_orders
            )

    def forward(
        self,
        features: Float[Tensor, "B N F"] | Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"],
        *,
        iterations: int | None = None,
        sigma: float = 0.0,
        noise: Noise | None = None,
        num_slots: int | None = None,
        which_slots: Sequence[int] | None = None,
        mask_size: tuple[int, int] | None = None,
    ) -> Output:
        """Discover the objects of a batch of images.

        Args:
            features: Of the encoder. Or images, uint8 or float in [0, 1], if `use_encoder` has attached it.
            iterations: Slot-attention steps; None means the trained number.
            sigma: Strength of the query perturbation in [0, 1], for training.
            noise: The random numbers of this pass; None is deterministic for learned queries.
            num_slots: Another number of slots, for a shared Gaussian.
            which_slots: Which learned queries to use, to run with fewer slots.
            mask_size: Height and width of the masks, in pixels; None means those of the image.

        Returns:
            Without reconstructions of the image; `feature_reconstruction` is what the slots made of the features. Masks
            are each slot's share of the patches, enlarged bilinearly, in one step.

        Raises:
            ValueError: if the features, or the images, have other sizes than the model, or slots are asked for that do
                not exist.
            InputError: if images are given and no encoder is attached.
        """
        noise = noise or Noise()
        target = self.features_of(features)
        initial_slots = self.slot_encoder.initial_slots(
            target.shape[0], sigma=sigma, noise=noise.queries, num_slots=num_slots, which_slots=which_slots
        )
        prepared = self.slot_encoder.prepare(target)
        slots, attention = self.slot_encoder(prepared, initial_slots, iterations=iterations, drop_path=noise.drop_path)
        if isinstance(self.decoder, MLPFeatureDecoder):
            rebuilt, shares = self.decoder(slots)
        else:
            rebuilt, shares = self.decoder(slots, target, noise.patch_order)
        return Output(
            reconstruction=None,
            slot_reconstructions=None,
            masks=self.masks_of(shares, mask_size or (self.image_size, self.image_size)),
            slots=slots,
            initial_slots=initial_slots,
            attention=attention,
            losses={"features": nn.functional.mse_loss(rebuilt, target)},
            feature_reconstruction=rebuilt,
        )

    def use_encoder(self, encoder: PretrainedViT) -> None:
        """Attach the frozen encoder, so that images can be given in place of features. It is not saved with the model.

        Raises:
            InputError: if it is not the encoder that the model was trained with, or has other sizes.
        """
        found, expected = (encoder.patch_size, encoder.feature_size), (self.patch_size, self.feature_size)
        if found != expected:
            raise InputError(
                f"the encoder {encoder.name} has patches of {found[0]} pixels and {found[1]} features; the model was "
                f"made for {expected[0]} and {expected[1]}{self._known_as()}."
            )
        if self.encoder_sha256 not in (None, encoder.sha256):
            raise InputError(
                f"the encoder {encoder.name} has weights of sha256 {encoder.sha256[:12]}...; the model was trained on "
                f"features of {str(self.encoder_sha256)[:12]}...{self._known_as()}. Name the folder of that one."
            )
        self._encoder = (encoder,)

    @property
    def has_encoder(self) -> bool:
        """Whether images can be given."""
        return bool(self._encoder)

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape, a sample, of each field of `Noise` that this model uses."""
        several = isinstance(self.decoder, AutoregressiveFeatureDecoder) and len(self.decoder.orders) == ORDERS
        return {**self.slot_encoder.noise_shapes, **({"patch_order": ()} if several else {})}

    def features_of(self, given: Tensor) -> Float[Tensor, "B N F"]:
        """What slots look at, in the dtype of the parameters: the features, or those that the encoder makes of images.

        Raises:
            ValueError, InputError: as `forward`.
        """
        dtype = self.slot_encoder.slot_attention.to_keys.weight.dtype
        if given.dim() != 4:
            expected = (self.grid**2, self.feature_size)
            if given.dim() != 3 or tuple(given.shape[1:]) != expected:
                raise ValueError(
                    f"features have shape {tuple(given.shape)}; expected (batch, {expected[0]}, {expected[1]})."
                )
            return given.to(dtype)
        if not self._encoder:
            raise InputError(
                f"the model takes features, and images only after model.use_encoder(boqsa.inference.load_encoder(DIR))"
                f"{self._known_as()}."
            )
        if tuple(given.shape[1:]) != (3, self.image_size, self.image_size):
            size = self.image_size
            raise ValueError(f"image has shape {tuple(given.shape)}; expected (batch, 3, {size}, {size}).")
        with torch.autocast(given.device.type, enabled=False):
            encoded: Tensor = self._encoder[0].to(given.device)(given)
            return encoded.to(dtype)

    def masks_of(self, shares: Float[Tensor, "B K N"], size: tuple[int, int]) -> Float[Tensor, "B K 1 H W"]:
        """Each slot's share of the patches as its share of the pixels of this size, enlarged bilinearly."""
        grid = shares.view(*shares.shape[:2], self.grid, self.grid)
        return nn.functional.interpolate(grid, size=size, mode="bilinear").unsqueeze(2)

    def _known_as(self) -> str:
        return "" if self.encoder_name is None else f"; its encoder was {self.encoder_name}"
