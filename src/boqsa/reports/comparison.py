"""Learning curves of several runs in one picture: a panel a metric, a colour and a line style a run.

Input are rows of log.jsonl as plain dictionaries. The metrics are `training_loss` (smoothed), `held_out_loss`, and any
number of an `evaluation`, `diagnostics` or `step` row by its name there.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boqsa.errors import InputError
from boqsa.reports.curves import DOTS_AN_INCH, SCORE_STYLES, plain_log_scale, running_mean, series, style_axes
from boqsa.reports.explanations import DIAGNOSTICS, SCORES
from boqsa.reports.palette import slot_colours

Rows = Sequence[Mapping[str, Any]]

TRAINING_LOSS, HELD_OUT_LOSS = "training_loss", "held_out_loss"
_EVENTS = ("evaluation", "diagnostics", "step")
_LINES = ("-", "--", ":", "-.")
_COLOURS = 6
"""Of the palette; the seventh, yellow, is hard to see as a line on white."""
_PANEL = (5.2, 3.0)
_LEGEND_ROW = 0.26
"""Inches, as the sizes of panels."""


class ExpectedRange(NamedTuple):
    """A band to draw behind a metric."""

    steps: Sequence[int]
    low: Sequence[float]
    high: Sequence[float]


def default_metrics(logs: Mapping[str, Rows]) -> list[str]:
    """Both losses and the scores that any run has, in the order of the report."""
    have = [
        name for name in (TRAINING_LOSS, HELD_OUT_LOSS) if any(len(_curve(rows, name)[0]) for rows in logs.values())
    ]
    return have + [name for name in SCORE_STYLES if any(len(_curve(rows, name)[0]) for rows in logs.values())]


def compared_curves(
    logs: Mapping[str, Rows],
    metrics: Sequence[str] = (),
    *,
    bands: Mapping[str, ExpectedRange] | None = None,
    image_format: Literal["png", "svg"] = "png",
) -> bytes:
    """Draw the curves of some runs together.

    Args:
        logs: Rows of the log of each run, by what the legend calls it.
        metrics: A panel for each; none means `default_metrics`.
        bands: Drawn in grey behind the metric of that name.
        image_format: Of the result.

    Returns:
        A PNG or SVG file. A curve has points only where its value is finite.

    Raises:
        InputError: if there is nothing to draw, or no run has one of the metrics; the message names those there are.
    """
    metrics = list(dict.fromkeys(metrics)) or default_metrics(logs)
    curves = {name: {run: _curve(rows, name) for run, rows in logs.items()} for name in metrics}
    for name, by_run in curves.items():
        if not any(len(steps) for steps, _ in by_run.values()):
            raise InputError(f"no run has a curve of {name!r}; there are {', '.join(_known(logs))}.")
    if not metrics:
        raise InputError("the runs have nothing to draw yet; wait for the first row of log.jsonl.")
    from matplotlib.figure import Figure

    across = min(2 if len(metrics) < 5 else 3, len(metrics))
    down = math.ceil(len(metrics) / across)
    in_row = max(1, int(across * _PANEL[0] * 10 // (max(map(len, logs)) + 8)))
    legend_rows = math.ceil((len(logs) + bool(bands)) / in_row)
    figure = Figure(figsize=(across * _PANEL[0], down * _PANEL[1] + legend_rows * _LEGEND_ROW), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    end = max(float(steps.max(initial=0)) for by_run in curves.values() for steps, _ in by_run.values())
    lines: dict[str, Any] = {}
    for axes, name in zip(grid.flat, metrics, strict=False):
        style_axes(axes, "step", _title(name))
        if bands and name in bands:
            band = bands[name]
            lines["expected"] = axes.fill_between(band.steps, band.low, band.high, color="#d9d9d9", linewidth=0)
        for index, (run, (steps, values)) in enumerate(curves[name].items()):
            drawn = running_mean(values) if name == TRAINING_LOSS and len(values) else values
            lines[run] = axes.plot(
                steps,
                drawn,
                color=slot_colours(_COLOURS)[index % _COLOURS] / 255,
                linestyle=_LINES[index // _COLOURS % len(_LINES)],
                linewidth=1.8,
                marker="o" if 0 < len(steps) < 3 else None,  # a line through one point is no line
                markersize=4,
            )[0]
        axes.set_xlim(0, max(end, 1) * 1.02)  # the same in all panels
        _scale(axes, name, [values for _, values in curves[name].values()])
    for axes in list(grid.flat)[len(metrics) :]:
        axes.set_visible(False)
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="outside upper center",
        ncols=min(in_row, len(lines)),
        frameon=False,
        fontsize=9,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format=image_format, dpi=DOTS_AN_INCH)
    return buffer.getvalue()


def _curve(rows: Rows, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a metric; of a name in several kinds of rows, the first kind that has it."""
    event, key = {TRAINING_LOSS: ("step", "loss"), HELD_OUT_LOSS: ("evaluation", "loss")}.get(name, (None, name))
    empty = np.zeros(0), np.zeros(0)
    if key == "step":
        return empty
    for kind in (event,) if event else _EVENTS:
        steps, values = series([row for row in rows if row.get("event") == kind], key)
        if len(steps):
            return steps, values
    return empty


def _known(logs: Mapping[str, Rows]) -> list[str]:
    names = {
        key: None
        for rows in logs.values()
        for row in rows
        if row.get("event") in _EVENTS
        for key, value in row.items()
        if isinstance(value, int | float) and key not in ("step", "loss")
    }
    return [
        name
        for name in (TRAINING_LOSS, HELD_OUT_LOSS, *names)
        if any(len(_curve(rows, name)[0]) for rows in logs.values())
    ]


def _title(name: str) -> str:
    known = {
        **{key: explanation.title for key, explanation in {**SCORES, **DIAGNOSTICS}.items()},
        **{key: title for key, (title, _, _) in SCORE_STYLES.items()},
        TRAINING_LOSS: "training loss, running mean",
        HELD_OUT_LOSS: "held-out loss",
    }
    return known.get(name, name.replace("_", " "))


def _scale(axes: Any, name: str, values: Sequence[NDArray[np.float64]]) -> None:
    """Losses on a logarithmic axis; scores, which end at 1, from 0."""
    everything = np.concatenate(values)
    if name in (TRAINING_LOSS, HELD_OUT_LOSS) and (everything > 0).all():
        plain_log_scale(axes, decades=math.log10(everything.max() / everything.min()))
    elif name in SCORE_STYLES:
        axes.set_ylim(min(0.0, float(everything.min())), 1.0)
