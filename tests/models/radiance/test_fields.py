"""The fields: one layer in parts equals the whole layer; numbers of parameters and initial weights (uorf 5)."""

import math

import pytest
import torch
from torch import Tensor, nn

from boqsa.models.radiance.fields import ENCODED, Field, encode


def whole(field: Field, encoded: Tensor, slots: Tensor) -> Tensor:
    """The field as the spec words it: every point with every slot, each layer on all that it sees."""

    def joint(layer: nn.Module, *parts: Tensor) -> Tensor:
        maps = [layer.from_point.weight, layer.from_slot.weight]  # type: ignore[union-attr]
        if layer.from_hidden is not None:
            maps.append(layer.from_hidden.weight)  # type: ignore[union-attr]
        weight = torch.cat(maps, dim=1)  # type: ignore[arg-type]
        return nn.functional.linear(torch.cat(parts, dim=-1), weight, layer.from_point.bias)  # type: ignore[union-attr,arg-type]

    batch, count = encoded.shape[:2]
    points = encoded[:, None].expand(batch, slots.shape[1], count, ENCODED)
    conditions = slots[:, :, None].expand(batch, slots.shape[1], count, slots.shape[-1])
    hidden = field.before(joint(field.first, points, conditions).relu())
    hidden = field.after(joint(field.again, points, conditions, hidden).relu())
    if field.density is None:
        return field.colour(hidden)  # type: ignore[no-any-return]
    return torch.cat([field.density(hidden), field.colour(hidden)], dim=-1)


@pytest.mark.parametrize("colour_head", [True, False])
def test_layers_in_parts_equal_whole_layers_values_and_gradients(colour_head: bool) -> None:
    torch.manual_seed(0)
    field = Field(8, colour_head=colour_head).double()
    slots = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    encoded = encode(torch.randn(2, 5, 3, dtype=torch.float64))
    made = field(encoded, slots), whole(field, encoded, slots)
    assert made[0].shape == (2, 3, 5, 4)
    torch.testing.assert_close(made[0], made[1], rtol=1e-12, atol=1e-12)
    weights = [slots, *field.parameters()]
    gradients = [torch.autograd.grad(values.square().sum(), weights) for values in made]
    for in_parts, as_whole in zip(*gradients, strict=True):
        torch.testing.assert_close(in_parts, as_whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("size", "count"), [(40, 30_448), (64, 72_136)])
def test_numbers_of_parameters_are_the_published_ones(size: int, count: int) -> None:
    fields = nn.ModuleList([Field(size, colour_head=True), Field(size, colour_head=False)])
    assert sum(parameter.numel() for parameter in fields.parameters()) == count


def test_the_encoding_has_no_factor_pi() -> None:
    point = torch.tensor([[0.1, -0.2, 0.3]], dtype=torch.float64)
    encoded = encode(point)[0]
    assert encoded.shape == (33,)
    assert encoded[:3].tolist() == [0.1, -0.2, 0.3]
    assert encoded[3].item() == pytest.approx(math.sin(0.1))
    assert encoded[-1].item() == pytest.approx(math.cos(16 * 0.3))


def test_weights_are_drawn_as_for_whole_layers() -> None:
    torch.manual_seed(0)
    layer = Field(64, colour_head=True).again
    drawn = torch.cat([layer.from_point.weight, layer.from_slot.weight, layer.from_hidden.weight], dim=1)  # type: ignore[union-attr]
    assert drawn.std().item() == pytest.approx(math.sqrt(2 / (33 + 64 + 64 + 64)), rel=0.03)
    assert layer.from_point.bias.abs().max() == 0
