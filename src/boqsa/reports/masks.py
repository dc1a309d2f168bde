"""Which masks a model is judged by, decided here once for the console, the log, the report and `best_<metric>`."""

from collections.abc import Mapping
from typing import Any

MASKS = {
    "decoder_masks": "Masks of the decoder",
    "attention_masks": "Masks of attention",
    "adaptive_masks": "Needed slots alone",
}
"""Mask sources in the scores of a checkpoint, the one that counts first."""


def main_masks(scores: Mapping[str, Any]) -> Mapping[str, Any]:
    """The label metrics of the decoder's masks where there are any, else of attention's (transformer models).

    Args:
        scores: Of a checkpoint, as `boqsa.training.evaluate` returns them.

    Returns:
        A value for each metric, and `left_out`; empty where the data has no masks.
    """
    for source in MASKS:
        if isinstance(scores.get(source), Mapping):
            return dict(scores[source])
    return {}
