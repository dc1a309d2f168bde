"""Figure 2: what test-time iterations do to a score, a line a method.

The paper's figure has no readable values, so nothing of it is drawn. Beside the score stands the share of it that is
kept where another number of iterations is run than was trained with.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from boqsa.reports.curves import style_axes
from boqsa.reports.palette import slot_colours
from boqsa.reproduce.figures.canvas import rendered

Scores = Mapping[str, Mapping[int, Sequence[float]]]
"""By method and test-time iterations: a score a seed."""

_COLOURS = 6
"""Of the palette; the seventh, yellow, is hard to see as a line on white."""
_MARKERS = ("o", "s", "^", "v", "D", "P")
_LINES = ("-", "--", ":", "-.")


def share_kept(scores: Scores, *, trained: int = 3) -> dict[str, dict[int, float]]:
    """Each method's mean score as a share of its mean score at the trained number of iterations.

    It is a ratio of means over seeds, as a mean of ratios would follow the seed that failed. NaN where the score at
    the trained number is not above 0.

    Raises:
        ValueError: if there is nothing, or a method has no score at `trained` iterations.
    """
    means = {method: {count: float(np.mean(values)) for count, values in by.items()} for method, by in scores.items()}
    without = [method for method, by in means.items() if trained not in by]
    if without or not means:
        raise ValueError(f"{', '.join(without) or 'no method'} has no score at {trained} iterations; run that too.")
    return {
        method: {count: value / by[trained] if by[trained] > 0 else float("nan") for count, value in by.items()}
        for method, by in means.items()
    }


def iterations_figure(scores: Scores, *, score: str, trained: int = 3) -> UInt8[np.ndarray, "H W 3"]:
    """Draw scores against test-time iterations: on the left as they are, on the right as the share kept.

    Args:
        scores: Lines are means over seeds, bands one sample standard deviation (none for a single seed).
        score: What the left axis is called.
        trained: Iterations in training, marked by a dashed line.

    Raises:
        ValueError: as `share_kept`.
    """
    kept = share_kept(scores, trained=trained)
    from matplotlib.figure import Figure

    in_row = min(3, len(scores))
    legend_rows = -(-len(scores) // in_row)
    figure = Figure(figsize=(8.4, 3.3 + 0.26 * legend_rows), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = sorted({count for by in scores.values() for count in by})
    for axes, title in ((left, score), (right, f"share of the score at {trained}")):
        style_axes(axes, "test-time iterations", title)
        axes.set_xticks(counts)
        axes.axvline(trained, color="#b0b0b0", linewidth=1, linestyle="--", zorder=0)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    lines = {}
    for index, (method, by) in enumerate(scores.items()):
        style = {
            "color": slot_colours(_COLOURS)[index % _COLOURS] / 255,
            "marker": _MARKERS[index % len(_MARKERS)],
            "linestyle": _LINES[index // _COLOURS % len(_LINES)],
            "linewidth": 1.8,
            "markersize": 5,
        }
        at = sorted(by)
        mean = np.array([np.mean(by[count]) for count in at])
        spread = np.array([np.std(by[count], ddof=1) if len(by[count]) > 1 else 0.0 for count in at])
        lines[method] = left.plot(at, mean, **style)[0]
        left.fill_between(at, mean - spread, mean + spread, color=style["color"], alpha=0.15, linewidth=0)
        right.plot(at, [kept[method][count] for count in at], **style)
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=in_row, frameon=False, fontsize=9)
    return rendered(figure)
