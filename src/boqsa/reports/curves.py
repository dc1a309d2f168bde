"""Curves of a run as PNG: training loss, validation scores, and how much each slot is used.

Input are rows of RUN/log.jsonl as plain dictionaries. matplotlib is imported late and without pyplot: there
is no global state, no window, and `boqsa --help` does not wait for it.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boqsa.reports.palette import slot_colours

_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
_GREY = "#8a8a8a"
DOTS_AN_INCH = 160

SCORE_STYLES = {
    "ari_fg": ("ARI-FG", _BLUE, "o"),
    "msc_fg": ("MSC-FG", _ORANGE, "s"),
    "ari": ("ARI", _GREEN, "^"),
    "iou": ("oracle slot: IoU", _BLUE, "o"),
    "dice": ("oracle slot: Dice", _ORANGE, "s"),
    "border_iou": ("off-border slot: IoU", _GREEN, "^"),
    "fixed_iou": ("fixed slot: IoU", _PURPLE, "v"),
    "ap": ("AP", _ORANGE, "s"),
    "pq": ("PQ", _PURPLE, "v"),
}


def loss_curve(log: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Training loss against step on a logarithmic axis, with its running mean and the schedules.

    Learning rate and sigma are thin lines, each as a share of its own maximum.

    Returns:
        PNG, or None where the log has no two finite losses.
    """
    rows = [row for row in log if row.get("event") == "step"]
    steps, losses = series(rows, "loss")
    if len(steps) < 2:
        return None
    figure, axes = _figure("step", "training loss")
    axes.plot(steps, losses, color=_BLUE, alpha=0.3, linewidth=1, label="loss")
    axes.plot(steps, running_mean(losses), color=_BLUE, linewidth=2, label="running mean")
    if (losses > 0).all():
        plain_log_scale(axes)
    schedules = [("learning_rate", "learning rate", "--"), ("sigma", "sigma", ":")]
    drawn = [(*series(rows, key), title, line) for key, title, line in schedules]
    drawn = [schedule for schedule in drawn if schedule[1].max(initial=0) > 0]
    if drawn:
        share = axes.twinx()
        share.spines[["top", "left"]].set_visible(False)
        for at, values, title, line in drawn:
            share.plot(at, values / values.max(), color=_GREY, linewidth=1, linestyle=line, label=title)
        share.set_ylim(0, 1.05)
        share.set_ylabel("share of maximum", color=_GREY)
        share.tick_params(colors=_GREY)
    _legend(figure)
    return _png(figure)


def score_curve(log: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Validation scores of the main masks against step.

    Returns:
        PNG, or None where the log has no finite score.
    """
    rows = [row for row in log if row.get("event") == "evaluation"]
    curves = [(series(rows, key), *style) for key, style in SCORE_STYLES.items()]
    curves = [curve for curve in curves if len(curve[0][0])]
    if not curves:
        return None
    figure, axes = _figure("step", "validation score")
    for (steps, values), title, colour, marker in curves:
        axes.plot(steps, values, color=colour, marker=marker, markersize=4, linewidth=2, label=title)
    axes.set_ylim(min(0.0, *(float(curve[0][1].min()) for curve in curves), 0.0), 1.0)
    _legend(figure)
    return _png(figure)


def slot_use_bars(mask_area: Sequence[float]) -> bytes | None:
    """A bar for the mean mask area of each slot, in the slot's colour; a dashed line marks equal shares.

    Args:
        mask_area: Share of all pixels that each slot owns, 0 to 1.

    Returns:
        PNG, or None where an area is missing or not finite.
    """
    if not mask_area or not all(_is_finite(area) for area in mask_area):
        return None
    figure, axes = _figure("slot", "mean share of the picture")
    count = len(mask_area)
    axes.bar(range(1, count + 1), mask_area, color=slot_colours(count) / 255, width=0.7)
    axes.axhline(1 / count, color=_GREY, linewidth=1, linestyle="--", label="equal shares")
    for slot, area in enumerate(mask_area, start=1):
        axes.annotate(f"{area:.0%}", (slot, area), ha="center", va="bottom", fontsize=9)
    axes.set_xticks(range(1, count + 1))
    axes.set_ylim(0, max(*mask_area, 1 / count) * 1.15)
    _legend(figure)
    return _png(figure)


def series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of the rows in which `key` is a finite number."""
    pairs = [(row["step"], row[key]) for row in rows if _is_finite(row.get(key)) and _is_finite(row.get("step"))]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last twentieth of the curve, fewer at its beginning, so that it never looks ahead."""
    window = max(2, len(values) // 20)
    sums = np.concatenate([[0.0], values.cumsum()])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    mean: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return mean


def _figure(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    style_axes(axes, x, y)
    return figure, axes


def style_axes(axes: Any, x: str, y: str) -> None:
    """What all curves share: pale lines across, no frame above and to the right."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plain_log_scale(axes: Any, *, decades: float = 2) -> None:
    """A logarithmic axis with ticks in plain numbers: at 1, 2 and 5, for most losses stay within two decades, and at 1
    alone where the values span more than three."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades <= 3 else (1.0,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _legend(figure: Any) -> None:
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_AN_INCH)  # Figure without pyplot draws with Agg
    return buffer.getvalue()
