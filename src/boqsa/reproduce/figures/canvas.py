"""From a matplotlib figure to its pixels."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from boqsa.reports.curves import DOTS_AN_INCH


def rendered(figure: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a `matplotlib.figure.Figure` with Agg: no window, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DOTS_AN_INCH)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels: UInt8[np.ndarray, "H W 4"] = np.asarray(canvas.buffer_rgba())
    return pixels[..., :3].copy()
