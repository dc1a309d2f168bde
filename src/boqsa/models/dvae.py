"""The discrete VAE under the transformer models: an image becomes a grid of tokens, a quarter of its size (spec 3.2).

Trained by itself on squared error: the transformer's loss sends no gradient here.

Shapes: B batch, V vocabulary, H W image pixels, h = H/4 and w = W/4 the token grid.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

PATCH = 4
"""Pixels of an image side that one token stands for."""


class Block(nn.Module):
    """Convolution without bias, GroupNorm with one group, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        padding = 0 if stride > 1 else kernel // 2
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.norm = nn.GroupNorm(1, outputs)
        nn.init.kaiming_uniform_(self.convolution.weight, nonlinearity="relu")

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B c h w"]:
        """Features of the next layer."""
        normalised: Tensor = self.norm(self.convolution(features))
        return normalised.relu()


class DVAE(nn.Module):
    """`log_probs = dvae(image)`, `image = dvae.decode(soft)`, `image = dvae.decode_tokens(tokens)`.

    Args:
        vocab_size: V.
        kernel: Of the encoder's six blocks on the token grid, and of the decoder's third: 3 is BO-QSA's, 1 is
            SLATE's, whose tokens see nothing beyond their own 4x4 pixels.
        channels: Width of the hidden layers.

    Raises:
        ValueError: if the kernel is even.
    """

    def __init__(self, vocab_size: int, kernel: int = 3, channels: int = 64) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"dvae_kernel is {kernel}; pass an odd number, 3 (BO-QSA) or 1 (SLATE).")
        self.encoder = nn.Sequential(
            Block(3, channels, kernel=PATCH, stride=PATCH),
            *(Block(channels, channels, kernel) for _ in range(6)),
            nn.Conv2d(channels, vocab_size, 1),
        )
        self.decoder = nn.Sequential(
            Block(vocab_size, channels, 1),
            Block(channels, channels, 3),
            Block(channels, channels, kernel),
            Block(channels, channels, 1),
            Block(channels, 4 * channels, 1),
            nn.PixelShuffle(2),
            Block(channels, channels, 3),
            Block(channels, channels, 1),
            Block(channels, channels, 1),
            Block(channels, 4 * channels, 1),
            nn.PixelShuffle(2),
            nn.Conv2d(channels, 3, 1),
        )
        for last in (self.encoder[-1], self.decoder[-1]):
            assert isinstance(last, nn.Conv2d)
            nn.init.xavier_uniform_(last.weight)
            assert last.bias is not None
            nn.init.zeros_(last.bias)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B V h w"]:
        """Log-probabilities of the tokens of an image in [0, 1]."""
        logits: Tensor = self.encoder(image)
        channels_last = logits.to(image.dtype).permute(0, 2, 3, 1)  # not in the low precision of autocast
        return channels_last.log_softmax(dim=-1).permute(0, 3, 1, 2)  # over V as it lies in memory: 30 times as fast

    def decode(self, codes: Float[Tensor, "B V h w"]) -> Float[Tensor, "B 3 H W"]:
        """The image of a weighting of tokens that sums to 1 over V; in [0, 1] units, not clamped."""
        image: Tensor = self.decoder(codes)
        return image.to(codes.dtype)

    def decode_tokens(self, tokens: Int[Tensor, "B h w"]) -> Float[Tensor, "B 3 H W"]:
        """The image of hard tokens: `decode` of their one-hot codes, which are looked up instead of multiplied."""
        first = self.decoder[0]
        assert isinstance(first, Block)
        table = first.convolution.weight[:, :, 0, 0].T  # (V, C)
        features = first.norm(embedding(tokens, table).permute(0, 3, 1, 2)).relu()  # (B, C, h, w)
        image: Tensor = self.decoder[1:](features)
        return image.to(table.dtype)


def soft_sample(
    log_probs: Float[Tensor, "B V h w"], tau: float, gumbel: Float[Tensor, "B V h w"] | None
) -> Float[Tensor, "B V h w"]:
    """Gumbel-softmax: a weighting of tokens, the closer to one token the smaller the temperature tau > 0 is.

    Raises:
        ValueError: if tau is not above 0.
    """
    if not tau > 0:
        raise ValueError(f"tau is {tau}; it must be above 0.")
    noisy = log_probs if gumbel is None else log_probs + gumbel.to(log_probs.dtype)
    return (noisy / tau).permute(0, 2, 3, 1).softmax(dim=-1).permute(0, 3, 1, 2)


def hard_sample(log_probs: Float[Tensor, "B V h w"], gumbel: Float[Tensor, "B V h w"] | None) -> Int[Tensor, "B h w"]:
    """A token for each cell, without gradient; the most probable one without noise. No temperature changes it."""
    with torch.no_grad():
        return (log_probs if gumbel is None else log_probs + gumbel.to(log_probs.dtype)).argmax(dim=1)
