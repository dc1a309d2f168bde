"""What a decoder makes of some of the slots of a picture: how wrong it is then, and whose each pixel is.

- Where each slot paints everywhere (mixture models, the MLP decoder of features models), the part of a slot that is
  left out goes to the others in the ratio of their own shares, which is what the softmax over those alone gives.
  Nothing is decoded again.
- Where slots are the memory of a transformer, it decodes again with the others as its memory, from the true tokens or
  features before each: nothing is drawn.

Shapes: B pictures, b of them, c of those; K slots, k of them; D slot size, C colours or features; H W pixels, or
patches; N patches, L tokens.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from boqsa.models.feature_decoders import AutoregressiveFeatureDecoder, MLPFeatureDecoder
from boqsa.models.features import FeaturesModel
from boqsa.models.image import scaled_image
from boqsa.models.output import Output
from boqsa.models.transformer import TransformerModel


class FewerSlots(NamedTuple):
    """Both take which slots of each picture are kept, at least one."""

    error: Callable[[Bool[Tensor, "b K"], Int[Tensor, "b"]], Float[Tensor, "b"]]
    """Of some of the pictures, named by their places, each made by its kept slots alone."""
    masks: Callable[[Bool[Tensor, "B K"]], Float[Tensor, "B K 1 H W"]]
    """Shares of the kept slots of all pictures, which sum to 1; the others have 0."""


def of_paintings(output: Output, image: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]) -> FewerSlots:
    """Of a mixture: the error is the mean squared error of the picture, in [0, 1] units."""
    assert output.slot_reconstructions is not None
    painted, masks = output.slot_reconstructions.float(), output.masks.float()
    image = scaled_image(image, size=painted.shape[-1], low=0.0, dtype=torch.float32)
    return FewerSlots(
        error=lambda kept, some: _squared_error(painted[some], _shared(masks[some], kept), image[some]),
        masks=lambda kept: _shared(masks, kept),
    )


def of_tokens(output: Output, model: TransformerModel) -> FewerSlots:
    """Of a transformer model: the error is the cross-entropy in nats a token; masks are the attention's, shared."""
    assert output.tokens is not None
    slots, masks, tokens = output.slots, output.masks.float(), output.tokens.flatten(1)  # tokens (B, L)
    embedded = model.token_decoder.embed(tokens)  # (B, 1 + L, d)

    def error(kept: Bool[Tensor, "b K"], some: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
        errors = masks.new_empty(len(kept))
        for rows, which in _batches(kept):
            pictures = some[rows]
            logits = model.token_decoder(embedded[pictures], slots[pictures[:, None], which])  # (c, L, V)
            of_each = nn.functional.cross_entropy(logits.float().mT, tokens[pictures], reduction="none")  # (c, L)
            errors[rows] = of_each.mean(dim=1)
        return errors

    return FewerSlots(error, masks=lambda kept: _shared(masks, kept))


def of_features(output: Output, model: FeaturesModel, features: Float[Tensor, "B N F"]) -> FewerSlots:
    """Of a features model: the error is a share of the error that the mean feature of the picture makes.

    That has no units: how large features are differs between encoders.
    """
    if isinstance(model.decoder, MLPFeatureDecoder):
        return _of_painted_features(output, model, model.decoder, features)
    return _of_remembered_features(output, model, model.decoder, features)


def _of_painted_features(
    output: Output, model: FeaturesModel, decoder: MLPFeatureDecoder, features: Float[Tensor, "B N F"]
) -> FewerSlots:
    painted, shares = decoder.of_each(output.slots)  # (B, K, N, F), (B, K, N)
    painted, shares = painted.float().mT.unsqueeze(-1), shares.float()[:, :, None, :, None]  # H W are N 1
    target, spread = features.float().mT.unsqueeze(-1), _spread(features)  # (B, F, N, 1)
    size = _size_of(output.masks)
    return FewerSlots(
        error=lambda kept, some: (
            _squared_error(painted[some], _shared(shares[some], kept), target[some]) / spread[some]
        ),
        masks=lambda kept: model.masks_of(_shared(shares, kept).flatten(2), size),
    )


def _of_remembered_features(
    output: Output, model: FeaturesModel, decoder: AutoregressiveFeatureDecoder, features: Float[Tensor, "B N F"]
) -> FewerSlots:
    """Masks are the attention of the decoder to the kept slots."""
    slots, spread, size = output.slots, _spread(features), _size_of(output.masks)

    def error(kept: Bool[Tensor, "b K"], some: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
        errors = spread.new_empty(len(kept))
        for rows, which in _batches(kept):
            pictures = some[rows]
            rebuilt, _ = decoder(slots[pictures[:, None], which], features[pictures])  # (c, N, F)
            errors[rows] = (rebuilt.float() - features[pictures].float()).square().mean(dim=(1, 2))
        return errors / spread[some]

    def masks(kept: Bool[Tensor, "B K"]) -> Float[Tensor, "B K 1 H W"]:
        shares = features.new_zeros(*kept.shape, features.shape[1])  # (B, K, N)
        for pictures, which in _batches(kept):
            _, shares[pictures[:, None], which] = decoder(slots[pictures[:, None], which], features[pictures])
        return model.masks_of(shares.float(), size)

    return FewerSlots(error, masks)


def _batches(kept: Bool[Tensor, "b K"]) -> Iterator[tuple[Int[Tensor, "c"], Int[Tensor, "c k"]]]:
    """The rows that keep equally many slots, and which those are: a decoder takes any number, one for a batch."""
    counts = kept.sum(dim=1)
    for count in sorted(set(counts.tolist())):
        rows = (counts == count).nonzero()[:, 0]
        yield rows, kept[rows].nonzero()[:, 1].view(-1, count)


def _shared(masks: Float[Tensor, "B K 1 H W"], kept: Bool[Tensor, "B K"]) -> Float[Tensor, "B K 1 H W"]:
    """The masks of the slots that are kept, scaled to sum to 1: what the softmax over these alone would give."""
    some = masks.clamp(min=1e-12) * kept[:, :, None, None, None]
    return some / some.sum(dim=1, keepdim=True).clamp(min=1e-12)


def _squared_error(
    painted: Float[Tensor, "B K C H W"], masks: Float[Tensor, "B K 1 H W"], image: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B"]:
    return ((painted * masks).sum(dim=1) - image).square().mean(dim=(1, 2, 3))


def _size_of(masks: Float[Tensor, "B K 1 H W"]) -> tuple[int, int]:
    return masks.shape[-2], masks.shape[-1]


def _spread(features: Float[Tensor, "B N F"]) -> Float[Tensor, "B"]:
    """The squared error of the mean feature of each picture."""
    apart = features.float() - features.float().mean(dim=1, keepdim=True)
    return apart.square().mean(dim=(1, 2)).clamp(min=1e-12)
