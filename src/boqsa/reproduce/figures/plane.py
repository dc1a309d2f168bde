"""Figure 3: slots before and after the first iteration in one plane, a panel a method, a colour a slot index."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from boqsa.reports.palette import slot_colours
from boqsa.reproduce.figures.canvas import rendered
from boqsa.reproduce.separation import Separation

_ACROSS = 3
_INK = "#282828"


class Panel(NamedTuple):
    """What is drawn of a method."""

    plane: Float[np.ndarray, "2 N K 2"]
    """From `boqsa.reproduce.separation.slot_plane`."""
    separation: Separation
    """Of the same slots, or of more of them: it stands in the title."""


def plane_figure(panels: Mapping[str, Panel]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a panel for each method: initial slots as large crosses, slots after one iteration as dots.

    Learned queries are one cross a slot index. Sampled slots have one a slot and image, smaller and below the dots.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not panels:
        raise ValueError("there is nothing to draw; pass at least one method.")
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    across = min(_ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(3.7 * across, 3.7 * down + 0.6), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (method, panel) in zip(grid.flat, panels.items(), strict=False):
        initial, updated = panel.plane
        found = panel.separation
        axes.set_title(method, fontsize=11, pad=18)
        axes.annotate(
            f"silhouette {found.silhouette:.2f}, nearest query {found.nearest_query_accuracy:.0%} "
            f"(chance {found.chance:.0%})",
            (0.5, 1.0),
            xytext=(0, 5),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=_INK,
        )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("#b0b0b0")
        for slot, colour in enumerate(slot_colours(initial.shape[1]) / 255):
            axes.scatter(*updated[:, slot].T, s=9, color=colour, linewidth=0, zorder=2)
            crosses = np.unique(initial[:, slot], axis=0)
            alone = len(crosses) == 1
            axes.scatter(
                *crosses.T,
                s=170 if alone else 30,
                marker="X",
                color=colour,
                edgecolor=_INK,
                linewidth=1.0 if alone else 0.3,
                alpha=1 if alone else 0.5,
                zorder=3 if alone else 1,
            )
    most = max(panel.plane.shape[2] for panel in panels.values())
    marks = [
        Line2D([], [], linestyle="", marker="o", color=colour, label=f"slot {slot}")
        for slot, colour in enumerate(slot_colours(most) / 255, start=1)
    ]
    marks += [
        Line2D([], [], linestyle="", marker="X", markersize=9, color="white", markeredgecolor=_INK, label="initial"),
        Line2D([], [], linestyle="", marker="o", markersize=3.5, color=_INK, label="after one iteration"),
    ]
    in_row = min(len(marks), 3 * across + 1)
    figure.legend(handles=marks, loc="outside upper center", ncols=in_row, frameon=False, fontsize=9)
    return rendered(figure)
