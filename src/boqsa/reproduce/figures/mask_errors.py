"""What metrics make of true masks that grow into the background, as curves (paper B.4)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from boqsa.reports.curves import style_axes
from boqsa.reports.palette import slot_colours
from boqsa.reproduce.figures.canvas import rendered
from boqsa.reproduce.rows import Row

_NAMES = {"ari_fg": "ARI-FG", "msc_fg": "MSC-FG", "ari": "ARI", "background_given": "background given to objects"}
_MARKERS = ("o", "s", "^", "v")


def mask_errors_figure(rows: Sequence[Row]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a line a metric; the last place is that of objects that share out the whole background.

    Args:
        rows: Of the item `mask_errors`, whose conditions are `grown=PIXELS` or `grown=all`.
    """
    from matplotlib.figure import Figure

    steps = list(dict.fromkeys(row.condition.removeprefix("grown=") for row in rows))
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    style_axes(axes, "pixels that the true masks have grown by", "mean over images")
    axes.set_xticks(range(len(steps)), steps)
    for index, (metric, name) in enumerate(_NAMES.items()):
        at = [(steps.index(row.condition.removeprefix("grown=")), row.value) for row in rows if row.metric == metric]
        colour = slot_colours(len(_NAMES))[index] / 255
        axes.plot(*zip(*at, strict=True), color=colour, marker=_MARKERS[index], linewidth=1.8, markersize=5, label=name)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return rendered(figure)
