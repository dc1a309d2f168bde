"""The paper's figures as pictures, one file a kind. Each takes arrays or tensors and returns uint8 (H, W, 3).

    iterations  Figure 2: scores against test-time iterations
    plane       Figure 3: slots before and after one iteration, in one plane
    attention   Figure 4: where each slot looks, on its own data set and on another
    mask_errors what metrics make of masks that spill into the background
    slots       Figure 6: what each slot paints
    grid        Figures 1, 7 to 17: input, reconstruction, truth, prediction

Nothing here runs a model: `boqsa.reproduce.outputs` does. `boqsa.reports.save_png` writes what is returned.
"""

from boqsa.reproduce.figures.attention import AttentionSet, attention_figure
from boqsa.reproduce.figures.grid import background_slot, grid_figure
from boqsa.reproduce.figures.iterations import iterations_figure, share_kept
from boqsa.reproduce.figures.mask_errors import mask_errors_figure
from boqsa.reproduce.figures.plane import Panel, plane_figure
from boqsa.reproduce.figures.slots import slots_figure

__all__ = [
    "AttentionSet",
    "Panel",
    "attention_figure",
    "background_slot",
    "grid_figure",
    "iterations_figure",
    "mask_errors_figure",
    "plane_figure",
    "share_kept",
    "slots_figure",
]
