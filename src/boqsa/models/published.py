"""The authors' weights: their parameter names, mapped one to one to ours (spec 10)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from boqsa.errors import InputError
from boqsa.layers.slot_encoder import SlotEncoder
from boqsa.models.features import FeaturesModel
from boqsa.models.mixture import MixtureModel
from boqsa.models.radiance import RadianceModel
from boqsa.models.transformer import TransformerModel
from boqsa.slots import LearnedQueries

Model = MixtureModel | TransformerModel | RadianceModel | FeaturesModel

_IGNORED_SUFFIXES = (".pos_emb.grid", ".self_attn_mask")
"""Buffers that follow from the sizes; released checkpoints carry them, ours need not."""
_MOST_NAMED = 12
"""Differences that a refusal lists."""


def published_names(model: Model) -> dict[str, str]:
    """The published name of every parameter of `model`, by our name.

    Raises:
        InputError: for a model that the authors' code does not know: SLATE, whose slots attend to tokens.
    """
    if isinstance(model, RadianceModel):
        raise InputError("the authors' radiance models have no converter; choose a mixture or a transformer.")
    if isinstance(model, FeaturesModel):
        raise InputError("the authors' code has no model of frozen features; choose a mixture or a transformer.")
    names = _of_slot_encoder(model.slot_encoder)
    names |= _of_mixture(model) if isinstance(model, MixtureModel) else _of_transformer(model)
    published = {}
    for ours in model.state_dict():
        prefix = next(prefix for prefix in names if ours == prefix or ours.startswith(prefix + "."))
        published[ours] = names[prefix] + ours.removeprefix(prefix)
    return published


def _of_slot_encoder(encoder: SlotEncoder) -> dict[str, str]:
    """Both models start with these; parts of a name stand for all parameters below them."""
    names = {
        "encoder_position.project": "slot_attn.pos_emb.dense",
        "slot_encoder.feature_mlp": "slot_attn.mlp",
        "slot_encoder.slot_attention.norm_tokens": "slot_attn.slot_attention.norm_feature",
        "slot_encoder.slot_attention.norm_slots": "slot_attn.slot_attention.norm_slots",
        "slot_encoder.slot_attention.norm_mlp": "slot_attn.slot_attention.norm_mlp",
        "slot_encoder.slot_attention.to_keys": "slot_attn.slot_attention.project_k",
        "slot_encoder.slot_attention.to_values": "slot_attn.slot_attention.project_v",
        "slot_encoder.slot_attention.to_queries": "slot_attn.slot_attention.project_q",
        "slot_encoder.slot_attention.gru": "slot_attn.slot_attention.gru",
        "slot_encoder.slot_attention.mlp": "slot_attn.slot_attention.mlp",
    }
    if isinstance(encoder.queries, LearnedQueries):
        return {**names, "slot_encoder.queries.weight": "slot_attn.slots_init.weight"}
    return {
        **names,
        "slot_encoder.queries.mu": "slot_attn.slot_mu",
        "slot_encoder.queries.log_sigma": "slot_attn.slot_log_sigma",
    }


def _of_mixture(model: MixtureModel) -> dict[str, str]:
    names = _of_image_encoder(model.encoder, "encoder")
    layers = [index for index, layer in enumerate(model.decoder) if isinstance(layer, nn.ConvTranspose2d)]
    for number, index in enumerate(layers[:-1]):
        names[f"decoder.{index}"] = f"decoder.conv.{number}.0.conv.0"
    names[f"decoder.{layers[-1]}"] = f"decoder.conv.{len(layers) - 2}.1"  # the 3x3 stands inside the last block
    return {**names, "decoder_position.project": "decoder.pos_emb.dense"}


def _of_transformer(model: TransformerModel) -> dict[str, str]:
    if model.encoder is None:
        raise InputError("the authors' code has no SLATE, so no published names fit it; choose a *_transformer recipe.")
    names = _of_image_encoder(model.encoder, "backbone")
    for part in ("encoder", "decoder"):
        for index, layer in enumerate(getattr(model.dvae, part)):
            if isinstance(layer, nn.Conv2d):
                names[f"dvae.{part}.{index}"] = f"dvae.{part}.{index}"
            else:
                names[f"dvae.{part}.{index}.convolution"] = f"dvae.{part}.{index}.m"
                names[f"dvae.{part}.{index}.norm"] = f"dvae.{part}.{index}"
    names |= {
        "token_decoder.positions": "positional_encoder.pe",
        "token_decoder.dictionary": "dictionary.dictionary",
        "token_decoder.project_slots": "slot_proj",
        "token_decoder.transformer.norm": "tf_dec.layer_norm",
        "token_decoder.head": "out",
    }
    projections = {"to_queries": "proj_q", "to_keys": "proj_k", "to_values": "proj_v", "project": "proj_o"}
    for number in range(len(model.token_decoder.transformer.blocks)):
        ours, published = f"token_decoder.transformer.blocks.{number}", f"tf_dec.blocks.{number}"
        for norm, other in (("self", "self_attn"), ("cross", "encoder_decoder_attn"), ("feed_forward", "ffn")):
            names[f"{ours}.norm_{norm}"] = f"{published}.{other}_layer_norm"
        for attention, other in (("self_attention", "self_attn"), ("cross_attention", "encoder_decoder_attn")):
            for projection, its in projections.items():
                names[f"{ours}.{attention}.{projection}"] = f"{published}.{other}.{its}"
        names[f"{ours}.feed_forward"] = f"{published}.ffn"
    return names


def _of_image_encoder(encoder: nn.Module, published: str) -> dict[str, str]:
    layers = [index for index, layer in enumerate(encoder.children()) if isinstance(layer, nn.Conv2d)]
    return {f"encoder.{index}": f"{published}.conv.{number}.0" for number, index in enumerate(layers)}


def load_published(model: Model, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights that carry the published names into `model`, in place; the model keeps its dtype and device.

    Args:
        model: Built with the sizes of the checkpoint, e.g. from the recipe of its row.
        state_dict: Names with the prefix `model.` or with none. The buffers `*.pos_emb.grid` and
            `*.self_attn_mask` are accepted and not needed.

    Raises:
        InputError: if a weight is missing, left over or of another shape; the first are named, and the model is
            left as it was.
    """
    given = {
        name.removeprefix("model."): value for name, value in state_dict.items() if not name.endswith(_IGNORED_SUFFIXES)
    }
    names = published_names(model)
    own = model.state_dict()
    problems = [f"missing {name}" for name in names.values() if name not in given]
    problems += [f"left over {name}" for name in given if name not in set(names.values())]
    problems += [
        f"{name} is {tuple(given[name].shape)}, the model has {tuple(own[ours].shape)}"
        for ours, name in names.items()
        if name in given and given[name].shape != own[ours].shape
    ]
    if problems:
        raise InputError(
            f"these weights do not fit the model ({len(problems)} differences): {'; '.join(problems[:_MOST_NAMED])}"
            f"{'; and more' if len(problems) > _MOST_NAMED else ''}. "
            "Choose the recipe whose sizes and queries the weights were trained with."
        )
    with torch.no_grad():
        for ours, name in names.items():
            own[ours].copy_(given[name])
