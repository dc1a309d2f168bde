"""Loading weights by their published names: prefixes, buffers, and refusals that name everything."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from boqsa.errors import InputError
from boqsa.models import MixtureModel, TransformerModel, load_published
from boqsa.models.published import Model, published_names


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


def tiny_transformer(seed: int = 0, **changes: object) -> TransformerModel:
    torch.manual_seed(seed)
    arguments: dict[str, object] = {
        "image_size": 16,
        "num_slots": 3,
        "slot_size": 8,
        "mlp_size": 12,
        "vocab_size": 12,
        "width": 8,
        "blocks": 2,
        "heads": 2,
        "encoder_channels": (6, 6),
        "encoder_strides": (1, 1),
    }
    return TransformerModel(**{**arguments, **changes})  # type: ignore[arg-type]


def published(model: Model, prefix: str = "") -> dict[str, Tensor]:
    state = model.state_dict()
    return {prefix + name: state[ours].clone() for ours, name in published_names(model).items()}


@pytest.mark.parametrize("queries", ["learned", "shared_gaussian", "independent_gaussians"])
@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("build", [tiny, tiny_transformer])
def test_weights_arrive_whatever_the_prefix(build: Callable[..., Model], queries: str, prefix: str) -> None:
    source, target = build(1, queries=queries), build(2, queries=queries)
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


def test_names_of_the_transformer_are_one_to_one() -> None:
    model = TransformerModel()
    names = published_names(model)
    assert names.keys() == model.state_dict().keys()
    assert len(set(names.values())) == len(names)
    for ours, published_name in {
        "encoder.6.bias": "backbone.conv.3.0.bias",
        "encoder_position.project.weight": "slot_attn.pos_emb.dense.weight",
        "dvae.encoder.0.convolution.weight": "dvae.encoder.0.m.weight",
        "dvae.encoder.6.norm.bias": "dvae.encoder.6.bias",
        "dvae.encoder.7.bias": "dvae.encoder.7.bias",
        "dvae.decoder.9.norm.weight": "dvae.decoder.9.weight",
        "dvae.decoder.11.weight": "dvae.decoder.11.weight",
        "token_decoder.positions": "positional_encoder.pe",
        "token_decoder.dictionary.weight": "dictionary.dictionary.weight",
        "token_decoder.transformer.blocks.3.cross_attention.to_keys.weight": (
            "tf_dec.blocks.3.encoder_decoder_attn.proj_k.weight"
        ),
        "token_decoder.transformer.blocks.0.norm_self.weight": "tf_dec.blocks.0.self_attn_layer_norm.weight",
        "token_decoder.transformer.blocks.2.feed_forward.2.bias": "tf_dec.blocks.2.ffn.2.bias",
        "token_decoder.transformer.norm.weight": "tf_dec.layer_norm.weight",
        "token_decoder.head.weight": "out.weight",
    }.items():
        assert names[ours] == published_name


def test_transformers_of_any_size_and_their_outputs_arrive() -> None:
    """Strides, kernel and blocks change neither the rule of the names nor what the weights compute."""
    changes: dict[str, object] = {"blocks": 3, "dvae_kernel": 1, "encoder_strides": (2, 1), "recompute": True}
    source, target = tiny_transformer(1, **changes).eval(), tiny_transformer(2, **changes).eval()
    load_published(target, published(source))
    image = torch.rand(2, 3, 16, 16)
    for one, other in zip(source(image).losses.values(), target(image).losses.values(), strict=True):
        assert torch.equal(one, other)


def test_slate_has_no_published_names() -> None:
    model = tiny_transformer(features="tokens")
    with pytest.raises(InputError, match=r"no SLATE.*choose a \*_transformer recipe"):
        published_names(model)
    with pytest.raises(InputError, match="no SLATE"):
        load_published(model, {})


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
