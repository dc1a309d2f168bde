"""Which slots a picture needs: empty ones are left out, and of several that explain one object one stays. No labels.

A model has a fixed number of slots, however many objects are in a picture (paper, appendix C). A slot is *needed* if
the others cannot paint its part: if without it the error of the picture rises. The slot that is missed least goes
first, and the question is asked again, until every slot that is left is missed. An empty slot is not missed; of two
slots on one object either is not, as the other takes over.

What the error is, and who takes over, is the decoder's matter (`boqsa.models.fewer_slots`).

Shapes: B batch, K slots, H W image pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boqsa.models.features import FeaturesModel
from boqsa.models.fewer_slots import FewerSlots, of_features, of_paintings, of_tokens
from boqsa.models.mixture import MixtureModel
from boqsa.models.output import Output
from boqsa.models.transformer import TransformerModel

LEAST_RISE = 7.5e-4
"""Of the mean squared error of a picture in [0, 1]: an object on a hundredth of the picture, off by a quarter of the
range. Chosen by the labels of other scenes of one to six objects (docs/adaptive.md)."""
LEAST_RISE_OF_TOKENS = 0.02
"""Of the cross-entropy in nats a token: an object on a hundredth of the picture, whose tokens take two nats more each.
Chosen by the labels of other scenes of one to four objects (docs/adaptive.md)."""
LEAST_RISE_OF_FEATURES = 0.01
"""Of the squared error of features as a share of that of their mean: an object on a hundredth of the picture, made no
better than by the mean. Chosen by nothing: no pretrained encoder was at hand."""
BORDER_SHARE = 0.25
"""A slot with so much of the border is background and no object."""
LEAST_AREA = 1 / 128
"""Share of the picture below which a slot is no object, eight pixels of 32x32."""


class NeededSlots(NamedTuple):
    """What is left of the slots of some pictures."""

    is_needed: Bool[Tensor, "B K"]
    masks: Float[Tensor, "B K 1 H W"]
    """Shares of the needed slots, which sum to 1; the others have 0."""

    def segmentation(self) -> Int[Tensor, "B H W"]:
        """Index of the needed slot that owns each pixel."""
        return self.masks.squeeze(2).argmax(dim=1)

    def objects(self) -> Int[Tensor, "B"]:
        """How many objects there are: needed slots with more than a few pixels that do not hold the border."""
        labels = self.segmentation()
        owned = torch.nn.functional.one_hot(labels, self.masks.shape[1])  # (B, H, W, K)
        share = owned.double().mean(dim=(1, 2))  # (B, K)
        is_object = (share >= LEAST_AREA) & (_border(owned).double().mean(dim=1) < BORDER_SHARE)
        return (is_object & self.is_needed).sum(dim=1)


def has_adaptive_slots(model: nn.Module) -> bool:
    """Whether `needed_slots` knows how well a model does without a slot: all but radiance models."""
    return isinstance(model, MixtureModel | TransformerModel | FeaturesModel)


def least_rise_of(model: nn.Module | None) -> float:
    """From which rise of the error a slot of such a model is needed; None means a mixture."""
    if isinstance(model, TransformerModel):
        return LEAST_RISE_OF_TOKENS
    return LEAST_RISE_OF_FEATURES if isinstance(model, FeaturesModel) else LEAST_RISE


@torch.no_grad()
def needed_slots(
    output: Output,
    given: Float[Tensor, "B 3 H W"] | Float[Tensor, "B N F"],
    model: nn.Module | None = None,
    *,
    least_rise: float | None = None,
) -> NeededSlots:
    """Leave out, one by one, the slots of each picture that the others can do without.

    Where slots are the memory of a transformer, it decodes again for each slot that is left in each round.

    Args:
        output: Of the model, in eval mode.
        given: What it was given: images in [0, 1], or features.
        model: It; a mixture's output alone is enough.
        least_rise: Rise of the error from which a slot is needed; None means `least_rise_of(model)`, and 0 keeps all
            that help at all. The error is of a mixture the mean squared error of the picture, of a transformer model
            the cross-entropy in nats a token, and of a features model the squared error as a share of that which the
            mean feature of the picture makes.

    Raises:
        ValueError: if neither the output nor a model tells how well the picture is made without a slot, the model is in
            training mode, or `least_rise` is negative.
    """
    least_rise = least_rise_of(model) if least_rise is None else least_rise
    if not least_rise >= 0:
        raise ValueError(f"least_rise is {least_rise}; give 0 or more.")
    fewer = _fewer_slots(output, given, model)
    every = torch.ones(output.masks.shape[:2], dtype=torch.bool, device=output.masks.device)
    is_needed = without_least_missed(fewer.error, every, least_rise)
    return NeededSlots(is_needed, fewer.masks(is_needed))


def without_least_missed(
    error: Callable[[Bool[Tensor, "B K"]], Float[Tensor, "B"]], kept: Bool[Tensor, "B K"], least_rise: float
) -> Bool[Tensor, "B K"]:
    """Of each picture, leave out the slot without which its error rises least, and again, until each rise is too large.

    Args:
        error: Of each picture, made by the slots that are kept alone.
        kept: Those to begin with, at least one of each picture; one always stays.
        least_rise: The least one that is too large.
    """
    kept, before = kept.clone(), error(kept)
    goes_on = torch.ones(len(kept), dtype=torch.bool, device=kept.device)
    while True:
        may_go = kept & (goes_on & (kept.sum(dim=1) > 1))[:, None]  # (B, K)
        errors = torch.full(kept.shape, torch.inf, device=kept.device)
        for slot in may_go.any(dim=0).nonzero().flatten().tolist():
            these, without = may_go[:, slot], kept.clone()
            without[these, slot] = False
            errors[these, slot] = error(without)[these]
        rise, least = (errors - before[:, None]).min(dim=1)
        goes_on = rise < least_rise
        if not goes_on.any():
            return kept
        kept[goes_on, least[goes_on]] = False
        before = torch.where(goes_on, errors.gather(1, least[:, None]).squeeze(1), before)


def _fewer_slots(output: Output, given: Tensor, model: nn.Module | None) -> FewerSlots:
    if output.slot_reconstructions is not None:
        return of_paintings(output, given)
    if not isinstance(model, TransformerModel | FeaturesModel):
        raise ValueError(
            "the slots of this output paint no pictures of their own; give needed_slots the transformer or features "
            "model that made it, which decodes again without a slot."
        )
    if model.training:
        raise ValueError("the model is in training mode, where it decodes at random; call model.eval() first.")
    if isinstance(model, TransformerModel):
        return of_tokens(output, model)
    return of_features(output, model, model.features_of(given))


def _border(owned: Int[Tensor, "B H W K"]) -> Int[Tensor, "B P K"]:
    """The pixels of a frame as wide as a sixteenth of the shorter side."""
    height, width = owned.shape[1:3]
    inner = torch.zeros(height, width, dtype=torch.bool, device=owned.device)
    edge = max(1, min(height, width) // 16)
    inner[edge : height - edge, edge : width - edge] = True
    return owned[:, ~inner]
