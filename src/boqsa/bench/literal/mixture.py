"""The losses of the mixture model as the paper reads (spec 2)."""

from torch import Tensor
from torch.nn.functional import mse_loss

from boqsa.bench.literal.layers import add_position, run_layers
from boqsa.bench.literal.slots import literal_slots
from boqsa.models import MixtureModel, Noise


class LiteralMixture:
    """Takes the weights of a model; `losses` is its forward pass, written out."""

    def __init__(self, model: MixtureModel) -> None:
        self.model = model

    def losses(self, image: Tensor, *, sigma: float, noise: Noise | None) -> dict[str, Tensor]:
        """The one loss of uint8 images (B, 3, H, W); arguments as for `LiteralStep.losses`."""
        model = self.model
        target = image.to(model.decoder_position.project.weight.dtype) / 255 * 2 - 1
        features = add_position(run_layers(model.encoder, target), model.encoder_position)  # (B, C, h, w)
        tokens = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C)
        slots = literal_slots(model.slot_encoder, tokens, sigma=sigma, noise=noise)

        batch, count, _ = slots.shape
        side = model.decoder_grid
        grid = slots.flatten(0, 1)[:, :, None, None].repeat(1, 1, side, side)  # (B K, D, h, w)
        painted = run_layers(model.decoder, add_position(grid, model.decoder_position))  # (B K, 4, H, W)
        painted = painted.view(batch, count, 4, *painted.shape[-2:])
        masks = painted[:, :, 3:].softmax(dim=1)
        reconstruction = (painted[:, :, :3] * masks).sum(dim=1)  # (B, 3, H, W)
        return {"reconstruction": mse_loss(reconstruction, target)}
