"""The authors' weights: their parameter names, mapped one to one to ours (spec 10)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from boqsa.errors import InputError
from boqsa.models.mixture import MixtureModel
from boqsa.slots import LearnedQueries

_IGNORED_SUFFIXES = (".pos_emb.grid", ".self_attn_mask")
"""Buffers that follow from the sizes; released checkpoints carry them, ours need not."""


def published_names(model: MixtureModel) -> dict[str, str]:
    """The published name of every parameter of `model`, by our name."""
    names = {}
    layers = [index for index, layer in enumerate(model.encoder) if isinstance(layer, nn.Conv2d)]
    for number, index in enumerate(layers):
        names[f"encoder.{index}"] = f"encoder.conv.{number}.0"
    layers = [index for index, layer in enumerate(model.decoder) if isinstance(layer, nn.ConvTranspose2d)]
    for number, index in enumerate(layers[:-1]):
        names[f"decoder.{index}"] = f"decoder.conv.{number}.0.conv.0"
    names[f"decoder.{layers[-1]}"] = f"decoder.conv.{len(layers) - 2}.1"  # the 3x3 stands inside the last block
    names |= {
        "encoder_position.project": "slot_attn.pos_emb.dense",
        "decoder_position.project": "decoder.pos_emb.dense",
        "feature_mlp": "slot_attn.mlp",
        "slot_attention.norm_tokens": "slot_attn.slot_attention.norm_feature",
        "slot_attention.norm_slots": "slot_attn.slot_attention.norm_slots",
        "slot_attention.norm_mlp": "slot_attn.slot_attention.norm_mlp",
        "slot_attention.to_keys": "slot_attn.slot_attention.project_k",
        "slot_attention.to_values": "slot_attn.slot_attention.project_v",
        "slot_attention.to_queries": "slot_attn.slot_attention.project_q",
        "slot_attention.gru": "slot_attn.slot_attention.gru",
        "slot_attention.mlp": "slot_attn.slot_attention.mlp",
    }
    if isinstance(model.queries, LearnedQueries):
        names["queries.weight"] = "slot_attn.slots_init.weight"
    else:
        names["queries.mu"] = "slot_attn.slot_mu"
        names["queries.log_sigma"] = "slot_attn.slot_log_sigma"

    published = {}
    for ours in model.state_dict():
        prefix = next(prefix for prefix in names if ours == prefix or ours.startswith(prefix + "."))
        published[ours] = names[prefix] + ours.removeprefix(prefix)
    return published


def load_published(model: MixtureModel, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights that carry the published names into `model`, in place; the model keeps its dtype and device.

    Args:
        model: Built with the sizes of the checkpoint, e.g. from the recipe of its row.
        state_dict: Names with the prefix `model.` or with none. The buffers `*.pos_emb.grid` and
            `*.self_attn_mask` are accepted and not needed.

    Raises:
        InputError: if a weight is missing, left over or of another shape; all of them are named, and the model is
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
            f"these weights do not fit the model ({len(problems)} differences): {'; '.join(problems)}. "
            "Choose the recipe whose sizes and queries the weights were trained with."
        )
    with torch.no_grad():
        for ours, name in names.items():
            own[ours].copy_(given[name])
