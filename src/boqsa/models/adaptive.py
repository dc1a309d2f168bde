"""Which slots a picture needs: empty ones are left out, and of several that explain one object one stays. No labels.

A model has a fixed number of slots, however many objects are in a picture (paper, appendix C). A slot is *needed* if
the others cannot paint its part: if without it the error of the picture rises. The slot that is missed least goes
first, and the question is asked again, until every slot that is left is missed. An empty slot is not missed; of two
slots on one object either is not, as the other takes over. A piece of the room is large, so that a faint difference in
shade makes the error rise as an object would; in mixtures the rise must also be large for the part.

What the error is, and who takes over, is the decoder's matter (`boqsa.models.fewer_slots`).

Shapes: B batch, K slots, H W image pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from boqsa.models.features import FeaturesModel
from boqsa.models.fewer_slots import FewerSlots, of_features, of_paintings, of_tokens
from boqsa.models.mixture import MixtureModel
from boqsa.models.output import Output
from boqsa.models.transformer import TransformerModel

LEAST_RISE = 7.5e-4
"""Of the mean squared error of a picture in [0, 1]: an object on a hundredth of the picture, off by a quarter of the
range. Chosen by the labels of other scenes of one to six objects (docs/adaptive.md)."""
LEAST_CONTRAST = 0.125
"""By how much of the range a slot's part is off without it, root mean square: an eighth; of mixtures alone. Chosen by
the labels of validation scenes of one to six objects, with LEAST_RISE as it stood (docs/adaptive.md)."""
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


def least_contrast_of(model: nn.Module | None) -> float:
    """How large the rise must also be for the part of a slot of such a model; None means a mixture."""
    return 0.0 if isinstance(model, TransformerModel | FeaturesModel) else LEAST_CONTRAST


@torch.no_grad()
def needed_slots(
    output: Output,
    given: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"] | Float[Tensor, "B N F"],
    model: nn.Module | None = None,
    *,
    least_rise: float | None = None,
    least_contrast: float | None = None,
) -> NeededSlots:
    """Leave out, one by one, the slots of each picture that the others can do without.

    Where slots are the memory of a transformer, it decodes again for each slot that is left in each round.

    Args:
        output: Of the model, in eval mode.
        given: What it was given: images, uint8 or float in [0, 1], or features.
        model: It; a mixture's output alone is enough.
        least_rise: Rise of the error from which a slot is needed; None means `least_rise_of(model)`. The error is of a
            mixture the mean squared error of the picture, of a transformer model the cross-entropy in nats a token, and
            of a features model the squared error as a share of that which the mean feature of the picture makes.
        least_contrast: How far the slot's part must be off without it, too: the root of the rise over the slot's share
            of the picture; None means `least_contrast_of(model)`. With 0 for both all slots stay that help at all.

    Raises:
        ValueError: if neither the output nor a model tells how well the picture is made without a slot, the model is in
            training mode, or a least value is negative.
    """
    least_rise = least_rise_of(model) if least_rise is None else least_rise
    least_contrast = least_contrast_of(model) if least_contrast is None else least_contrast
    for name, value in (("least_rise", least_rise), ("least_contrast", least_contrast)):
        if not value >= 0:
            raise ValueError(f"{name} is {value}; give 0 or more.")
    fewer = _fewer_slots(output, given, model)

    def least_rises(kept: Bool[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        if not least_contrast:
            return torch.full(kept.shape, least_rise, device=kept.device)
        shares = fewer.masks(kept).mean(dim=(2, 3, 4))  # (B, K), of the picture
        return (least_contrast**2 * shares).clamp(min=least_rise)

    every = torch.ones(output.masks.shape[:2], dtype=torch.bool, device=output.masks.device)
    is_needed = without_least_missed(fewer.error, every, least_rises)
    return NeededSlots(is_needed, fewer.masks(is_needed))


def without_least_missed(
    error: Callable[[Bool[Tensor, "b K"], Int[Tensor, "b"]], Float[Tensor, "b"]],
    kept: Bool[Tensor, "B K"],
    least_rises: Callable[[Bool[Tensor, "B K"]], Float[Tensor, "B K"]],
) -> Bool[Tensor, "B K"]:
    """Of each picture, leave out the slot that is missed least, and again, until each that is left is missed.

    Args:
        error: Of some of the pictures, named by their places, made by the slots that are kept of each alone.
        kept: Those to begin with, at least one of each picture; one always stays.
        least_rises: Takes the slots that are kept; from which rise of the error each is missed. The slot goes whose
            rise is the smallest part of that.
    """
    kept, before = kept.clone(), error(kept, torch.arange(len(kept), device=kept.device))
    goes_on = torch.ones(len(kept), dtype=torch.bool, device=kept.device)
    while True:
        may_go = kept & (goes_on & (kept.sum(dim=1) > 1))[:, None]  # (B, K)
        errors = torch.full(kept.shape, torch.inf, device=kept.device)
        for slot in may_go.any(dim=0).nonzero().flatten().tolist():
            pictures = may_go[:, slot].nonzero()[:, 0]  # (b,)
            without = kept[pictures]
            without[:, slot] = False
            errors[pictures, slot] = error(without, pictures)
        rises, least = errors - before[:, None], least_rises(kept)  # (B, K)
        missed_least = (rises / least.clamp(min=1e-12)).argmin(dim=1, keepdim=True)  # (B, 1)
        goes_on = (rises < least).gather(1, missed_least)[:, 0]
        if not goes_on.any():
            return kept
        kept[goes_on, missed_least[goes_on, 0]] = False
        before = torch.where(goes_on, errors.gather(1, missed_least)[:, 0], before)


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
