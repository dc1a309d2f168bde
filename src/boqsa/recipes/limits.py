"""Bounds of the fields of a recipe that may come from a stranger: nobody needs more, and more fills memory or hours.

Sizes whose product counts (width times blocks, ...) are bounded again where a model is built, by its parameters.
"""

import re
from dataclasses import fields
from typing import Any

MOST_KEPT = 100
"""Checkpoints that a run keeps at most, `last` included: the oldest is `last-99`."""

_MOST = {
    **dict.fromkeys(("num_slots", "iterations", "blocks", "threads", "decoder_layers"), 1_000),
    **dict.fromkeys(
        ("image_size", "input_size", "coarse_size", "fine_size", "crop", "size", "decoder_grid", "patch_size"), 4_096
    ),
    **dict.fromkeys(("slot_size", "mlp_size", "vocab_size", "width", "heads", "dvae_channels"), 1_000_000),
    **dict.fromkeys(("feature_size", "decoder_size"), 1_000_000),
    **dict.fromkeys(("encoder_channels", "decoder_channels"), 1_000_000),
    **dict.fromkeys(("encoder_strides", "decoder_strides"), 64),
    **dict.fromkeys(("batch_size", "validation_limit", "accumulate", "rays", "samples", "views"), 10_000_000),
    "dvae_kernel": 99,
    "keep_last": MOST_KEPT,
    "scene_count": 100_000_000,
    "seed": 2**63 - 1,  # what torch's generator takes
    "scene_seed": 2**63 - 1,
}
"""By the name of the field; of a list the bound of each entry."""

_MOST_LAYERS = 100
_MOST_LETTERS = 200


def beyond_limits(section: Any) -> tuple[str, str] | None:
    """The first field of a part of a recipe that is out of bounds, and what is wrong with it; None if there is none."""
    for entry in fields(section):
        value = getattr(section, entry.name)
        most = _MOST.get(entry.name)
        if most is not None:
            values = value if isinstance(value, tuple) else (value,)
            if len(values) > _MOST_LAYERS:
                return entry.name, f"has {len(values)} entries; at most {_MOST_LAYERS} are possible."
            if any(number > most for number in values):
                return entry.name, f"is {value}; it must be at most {most}."
        if type(value) is str and entry.name in ("name", "root", "init_from", "encoder", "encoder_sha256"):
            # A name goes to terminals, which obey what cannot be printed.
            if len(value) > _MOST_LETTERS and entry.name == "name":
                return entry.name, f"has {len(value)} letters; at most {_MOST_LETTERS} are possible."
            if not value.isprintable():
                return entry.name, f"is {value!r}; it must have printable letters alone."
    return None


def is_plain_name(name: str) -> bool:
    """Whether a name can be part of a file name anywhere: letters, digits, and inside it also `.`, `-` and `_`."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", name) is not None
