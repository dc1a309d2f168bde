"""BO-QSA with an autoregressive transformer over the tokens of a discrete VAE (paper Sec. 2.1, A.1, A.3.3; spec 3).

The model that wins on photographs. Two parts learn side by side, and no gradient passes between them:

    image -> dVAE -> image                               squared error, summed over pixels
    image -> features -> slots -> tokens of the dVAE     cross-entropy, summed over tokens

Slots attend to CNN features at full resolution, so their attention is the segmentation. With `features="tokens"` they
attend to the embedded tokens instead: SLATE (Singh et al. 2021), whose masks are a quarter of the size.

Shapes: B batch, K slots, N tokens of the feature grid, D slot size, H W image pixels, V vocabulary, h = H/4 and w = W/4
the token grid, L = h w tokens, S = 1 + L with the begin-of-sequence symbol.
"""

from collections.abc import Callable, Sequence
from math import isqrt, prod
from typing import Any, Literal, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from boqsa.layers.convolution import ConvolutionEncoder, require_encoder
from boqsa.layers.position import PositionEmbedding
from boqsa.layers.slot_encoder import Queries, SlotEncoder
from boqsa.models.dvae import DVAE, PATCH, hard_sample, soft_sample
from boqsa.models.image import scaled_image
from boqsa.models.output import Noise, Output
from boqsa.models.token_decoder import TokenDecoder
from boqsa.slots import Gradient
from boqsa.slots.attention import EpsilonForm, InitialWeights, KeysAndValues
from boqsa.slots.queries import Perturbation

Features = Literal["image", "tokens"]


class Generated(NamedTuple):
    """What slots alone decode to."""

    tokens: Int[Tensor, "B h w"]
    image: Float[Tensor, "B 3 H W"]
    """In [0, 1] units, not clamped."""


class TransformerModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="boqsa",
    tags=["object-centric-learning", "slot-attention", "bo-qsa"],
    license="apache-2.0",
):
    """Slot attention with learned queries and bi-level gradient, and a transformer that decodes slots to tokens.

    The defaults are those of Birds (128x128, 3 slots).

    Args:
        image_size: Height and width of the square image, in pixels; divisible by 4.
        num_slots: K.
        slot_size: D.
        mlp_size: Hidden width of the feature MLP and of slot attention's MLP.
        vocab_size: V.
        width: d of the transformer.
        blocks, heads, dropout: Of the transformer. Dropout draws from torch's own random stream.
        dvae_kernel, dvae_channels: Of the `DVAE`; kernel 3 in the paper, 1 in SLATE, 64 channels in both.
        encoder_channels: Output channels of each 5x5 convolution (Table 9).
        encoder_strides: Their strides; 1 throughout means masks at full resolution.
        iterations: Slot-attention steps, all counted (spec 1.5).
        queries: Where slots start (spec 1.7).
        gradient: How the backward pass sees the refinement (spec 1.6).
        perturbation: How noise enters learned queries.
        epsilon, epsilon_form, drop_path, initial_weights: As in `SlotAttention`.
        features: What slots attend to: "image", CNN features (BO-QSA), or "tokens", embedded dVAE tokens (SLATE;
            `encoder_channels` and `encoder_strides` then play no part).
        keys_and_values: As in `SlotAttention`; "folded" needs no keys and values of the whole image in memory.
        recompute: Compute the dVAE, the features and the transformer's blocks again in the backward pass instead of
            keeping their activations: a third more time for a fraction of the memory. Changes no result.

    Raises:
        ValueError: if sizes do not fit together; the message names the fields and the legal values.
    """

    def __init__(
        self,
        image_size: int = 128,
        num_slots: int = 3,
        slot_size: int = 256,
        mlp_size: int = 256,
        vocab_size: int = 1024,
        width: int = 256,
        blocks: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        dvae_kernel: int = 3,
        encoder_channels: Sequence[int] = (64,) * 4,
        encoder_strides: Sequence[int] = (1,) * 4,
        iterations: int = 3,
        queries: Queries = "learned",
        gradient: Gradient = "bilevel",
        perturbation: Perturbation = "multiplicative",
        epsilon: float = 1.0,
        epsilon_form: EpsilonForm = "sum",
        drop_path: float = 0.2,
        initial_weights: InitialWeights = "published",
        features: Features = "image",
        keys_and_values: KeysAndValues = "folded",
        recompute: bool = False,
        dvae_channels: int = 64,
    ) -> None:
        super().__init__()
        _check_sizes(image_size, encoder_channels, encoder_strides, features)
        self.image_size = image_size
        self.num_slots = num_slots
        self.slot_size = slot_size
        self.vocab_size = vocab_size
        self.iterations = iterations
        self.recompute = recompute
        self.token_grid = image_size // PATCH

        self.dvae = DVAE(vocab_size, dvae_kernel, dvae_channels)
        self.encoder: nn.Module | None = None
        self.encoder_position: nn.Module | None = None
        channels = width
        if features == "image":
            grid = image_size // prod(encoder_strides)
            channels = encoder_channels[-1]
            self.encoder = ConvolutionEncoder(encoder_channels, encoder_strides)
            self.encoder_position = PositionEmbedding(channels, grid, grid)
        self.slot_encoder = SlotEncoder(
            channels,
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
        if features == "tokens":
            _initialise_as_slate(self.slot_encoder.feature_mlp)
        self.token_decoder = TokenDecoder(
            vocab_size,
            self.token_grid**2,
            slot_size,
            width=width,
            blocks=blocks,
            heads=heads,
            dropout=dropout,
            recompute=recompute,
        )

    def forward(
        self,
        image: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"],
        *,
        iterations: int | None = None,
        sigma: float = 0.0,
        noise: Noise | None = None,
        tau: float = 0.1,
        num_slots: int | None = None,
        which_slots: Sequence[int] | None = None,
        predict_tokens: bool = True,
    ) -> Output:
        """Discover the objects of a batch of images.

        Args:
            image: uint8, or float in [0, 1].
            iterations: Slot-attention steps; None means the trained number.
            sigma: Strength of the query perturbation in [0, 1], for training.
            noise: The random numbers of this pass. Without Gumbel noise the dVAE decodes the softmax of its
                log-probabilities over `tau`, and the tokens are the most probable ones.
            tau: Temperature of the dVAE's soft sample, above 0.
            num_slots: Another number of slots, for a shared Gaussian.
            which_slots: Which learned queries to use, to run with fewer slots.
            predict_tokens: False leaves the transformer out, which slots and masks do not need: there are no logits
                then, and no cross-entropy.

        Raises:
            ValueError: if the image has another size than the model, or slots are asked for that do not exist.
            TypeError: if the image is neither uint8 nor floating point.
        """
        noise = noise or Noise()
        target = scaled_image(image, size=self.image_size, low=0.0, dtype=self.token_decoder.positions.dtype)
        batch = target.shape[0]  # len() would fix the batch of an exported model

        log_probs = self._recomputed(self.dvae, target)
        reconstruction = self._recomputed(self.dvae.decode, soft_sample(log_probs, tau, noise.gumbel_soft))
        tokens = hard_sample(log_probs, noise.gumbel_hard)  # (B, h, w)

        embedded = self.token_decoder.embed(tokens.flatten(1))  # (B, 1 + L, d)
        initial_slots = self.slot_encoder.initial_slots(
            batch, sigma=sigma, noise=noise.queries, num_slots=num_slots, which_slots=which_slots
        )
        prepared = self._recomputed(self._prepare, target, embedded)
        slots, attention = self.slot_encoder(prepared, initial_slots, iterations=iterations, drop_path=noise.drop_path)
        losses = {"dvae": (reconstruction - target).square().sum() / batch}
        logits = None
        if predict_tokens:
            logits = self.token_decoder(embedded, slots).to(target.dtype)  # (B, L, V)
            cross_entropy = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum")
            losses["cross_entropy"] = cross_entropy / batch
        return Output(
            reconstruction=reconstruction,
            slot_reconstructions=None,
            masks=self._masks(attention),
            slots=slots,
            initial_slots=initial_slots,
            attention=attention,
            losses=losses,
            dvae_log_probs=log_probs,
            tokens=tokens,
            logits=logits,
        )

    def generate(
        self,
        slots: Float[Tensor, "B K D"],
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> Generated:
        """Decode slots, and nothing but slots, to an image; arguments as for `TokenDecoder.generate`.

        The published code never does this: its pictures are the dVAE's, or teacher-forced (spec 3.9).
        """
        was_training = self.training
        self.eval()
        try:
            tokens = self.token_decoder.generate(slots, temperature=temperature, generator=generator, cached=cached)
            tokens = tokens.view(-1, self.token_grid, self.token_grid)  # (B, h, w)
            with torch.no_grad():
                return Generated(tokens, self.dvae.decode_tokens(tokens))
        finally:
            self.train(was_training)

    def teacher_forced(self, output: Output) -> Generated:
        """The most probable token at each position given the *true* ones before it, decoded by the dVAE (spec 3.9)."""
        assert output.logits is not None
        with torch.no_grad():
            tokens = output.logits.argmax(dim=-1).view(-1, self.token_grid, self.token_grid)
            return Generated(tokens, self.dvae.decode_tokens(tokens))

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape, a sample, of each field of `Noise` that this model uses."""
        codes = (self.vocab_size, self.token_grid, self.token_grid)
        return {**self.slot_encoder.noise_shapes, "gumbel_soft": codes, "gumbel_hard": codes}

    def _prepare(self, image: Float[Tensor, "B 3 H W"], embedded: Float[Tensor, "B S d"]) -> Any:
        """What slot attention needs of the image, or in SLATE of its embedded tokens."""
        if self.encoder is None or self.encoder_position is None:
            return self.slot_encoder.prepare(embedded[:, 1:])
        features = self.encoder_position(self.encoder(image))  # (B, C, H', W')
        return self.slot_encoder.prepare(features.flatten(2).mT)  # tokens (B, N, C)

    def _masks(self, attention: Float[Tensor, "B K N"]) -> Float[Tensor, "B K 1 H W"]:
        """Attention as masks; a grid smaller than the image is repeated, as SLATE does."""
        batch, slots, cells = attention.shape
        side = isqrt(cells)
        grid = attention.view(batch, slots, 1, side, side)
        repeat = self.image_size // side
        if repeat == 1:
            return grid
        return grid.repeat_interleave(repeat, dim=3).repeat_interleave(repeat, dim=4)

    def _recomputed(self, part: Callable[..., Any], *inputs: Tensor) -> Any:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)


def _initialise_as_slate(feature_mlp: nn.Sequential) -> None:
    """Baselines 3.7: Kaiming before the ReLU, Xavier after it, no bias to start with."""
    _, widen, _, narrow = feature_mlp
    assert isinstance(widen, nn.Linear)
    assert isinstance(narrow, nn.Linear)
    nn.init.kaiming_uniform_(widen.weight, nonlinearity="relu")
    nn.init.xavier_uniform_(narrow.weight)
    nn.init.zeros_(widen.bias)
    nn.init.zeros_(narrow.bias)


def _check_sizes(
    image_size: int, encoder_channels: Sequence[int], encoder_strides: Sequence[int], features: str
) -> None:
    if image_size < PATCH or image_size % PATCH:
        raise ValueError(f"image_size {image_size} is not divisible by {PATCH}, the pixels of a token; change it.")
    if features not in ("image", "tokens"):
        raise ValueError(f"features is {features!r}; pass 'image' (BO-QSA) or 'tokens' (SLATE).")
    if features == "image":
        require_encoder(image_size, encoder_channels, encoder_strides)
