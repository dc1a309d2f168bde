"""Loading weights by their published names: prefixes, buffers, and refusals that name everything."""

import pytest
import torch
from torch import Tensor

from boqsa.errors import InputError
from boqsa.models import MixtureModel, load_published
from boqsa.models.published import published_names


def tiny(seed: int = 0, **changes: object) -> MixtureModel:
    torch.manual_seed(seed)
    arguments: dict[str, object] = {
        "image_size": 16,
        "num_slots": 3,
        "slot_size": 8,
        "mlp_size": 12,
        "encoder_channels": (6,),
        "encoder_strides": (1,),
        "decoder_channels": (6, 6),
        "decoder_strides": (2, 1),
    }
    return MixtureModel(**{**arguments, **changes})  # type: ignore[arg-type]


def published(model: MixtureModel, prefix: str = "") -> dict[str, Tensor]:
    state = model.state_dict()
    return {prefix + name: state[ours].clone() for ours, name in published_names(model).items()}


@pytest.mark.parametrize("queries", ["learned", "shared_gaussian", "independent_gaussians"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_arrive_whatever_the_prefix(queries: str, prefix: str) -> None:
    source, target = tiny(1, queries=queries), tiny(2, queries=queries)
    weights = published(source, prefix)
    weights[prefix + "slot_attn.pos_emb.grid"] = torch.zeros(1, 16, 16, 4)
    weights[prefix + "tf_dec.blocks.0.self_attn_mask"] = torch.zeros(2, 2)
    load_published(target, weights)
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


def test_model_keeps_its_dtype() -> None:
    model = tiny().double()
    load_published(model, published(tiny(1)))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


def test_names_are_one_to_one() -> None:
    names = published_names(MixtureModel())
    assert len(set(names.values())) == len(names)
    assert names["decoder.10.weight"] == "decoder.conv.4.1.weight"
    assert names["decoder.8.weight"] == "decoder.conv.4.0.conv.0.weight"
    assert names["slot_encoder.queries.weight"] == "slot_attn.slots_init.weight"


def test_every_difference_is_named_and_nothing_changes() -> None:
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = published(tiny(1))
    del weights["encoder.conv.0.0.bias"]
    weights["surprise"] = torch.zeros(1)
    weights["slot_attn.slots_init.weight"] = torch.zeros(4, 8)
    with pytest.raises(InputError) as caught:
        load_published(model, weights)
    message = str(caught.value)
    assert "3 differences" in message
    assert "missing encoder.conv.0.0.bias" in message
    assert "left over surprise" in message
    assert "slot_attn.slots_init.weight is (4, 8), the model has (3, 8)" in message
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
