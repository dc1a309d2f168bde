"""Where a log goes beside `log.jsonl`: TensorBoard and Weights & Biases, each an extra of the package.

Notable choices:
- A sink shows a run and decides nothing, so it is no field of a recipe: not in `recipe.json`, not in the hash.
- Numbers of `step`, `evaluation` and `diagnostics` rows become curves, lists one curve an entry; other rows do not.
- A package that is missing is said before anything is made. What fails later is `Log`'s to bear.
"""

import importlib.util
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from boqsa.atomic import write_text
from boqsa.errors import InputError
from boqsa.plain import read_json
from boqsa.recipes import Recipe

SINKS = ("tensorboard", "wandb")
"""Names of the sinks; each is also the name of its package and of the extra that installs it."""

TENSORBOARD = "tensorboard"
"""Folder of a run that TensorBoard reads."""
WANDB = "wandb.json"
"""File of a run that names its run at Weights & Biases, so that a resumed one goes on there."""

_GROUPS = {"step": "train", "evaluation": "validation", "diagnostics": "diagnostics"}


class Sink(Protocol):
    """Something that shows a run while it trains."""

    def row(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Take in what a row of the log holds."""

    def picture(self, name: str, step: int, picture: Image.Image) -> None:
        """Take in an RGB picture."""

    def close(self) -> None:
        """Write what is still held back, and end."""


def require_sinks(names: Sequence[str]) -> None:
    """Raise where a sink cannot be opened here; nothing is imported or made.

    Raises:
        InputError: if there is no sink of a name, or its package is not installed; the message says what to type.
    """
    for name in names:
        if name not in SINKS:
            raise InputError(f"there is no log {name!r}; --log-to takes {' and '.join(SINKS)}.")
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"--log-to {name} needs the package {name}, which is not installed; "
                f"type: pip install 'boqsa[{name}]'. log.jsonl is written without it."
            )


def open_sink(name: str, run: Path, *, recipe: Recipe, start: int) -> Sink:
    """Open a sink of a run that exists.

    Args:
        name: One of `SINKS`.
        run: Run folder.
        recipe: Shown beside the curves, where the sink can.
        start: Finished steps: 0, or where the run is resumed. What a killed process showed past it is hidden, where
            the sink can.
    """
    if name == "tensorboard":
        return TensorBoardSink(run, recipe=recipe, start=start)
    return WandbSink(run, recipe=recipe, start=start)


def scalars(event: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row by the name of their curve, as `validation/ari_fg` or `diagnostics/slot_share/0`."""
    if event not in _GROUPS:
        return {}
    found: dict[str, float] = {}
    for key, value in values.items():
        entries = {f"/{index}": entry for index, entry in enumerate(value)} if isinstance(value, list) else {"": value}
        for index, entry in entries.items():
            if isinstance(entry, int | float) and not isinstance(entry, bool):
                found[f"{_GROUPS[event]}/{key}{index}"] = float(entry)
    return found


class TensorBoardSink:
    """Event files in RUN/tensorboard, for `tensorboard --logdir`."""

    def __init__(self, run: Path, *, recipe: Recipe, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run / TENSORBOARD
        # TensorBoard hides what earlier files hold from this step on: a killed process may have gone further.
        purge = start + 1 if folder.exists() else None
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge)
        if not start:
            self._writer.add_text("recipe", f"```\n{recipe.to_json()}\n```", 0)

    def row(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """One point of each curve; seen at the latest after an evaluation."""
        for name, value in scalars(event, values).items():
            self._writer.add_scalar(name, value, step)
        if event != "step":
            self._writer.flush()

    def picture(self, name: str, step: int, picture: Image.Image) -> None:
        """A picture under its name; TensorBoard keeps some of all steps."""
        self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still held back."""
        self._writer.close()


class WandbSink:
    """A run at Weights & Biases, in the project that WANDB_PROJECT names, or "boqsa".

    Curves go by the log's `step`. Rows that a resumed run writes again are sent again, with the same numbers: points
    that were sent cannot be taken back.
    """

    def __init__(self, run: Path, *, recipe: Recipe, start: int) -> None:
        import wandb

        del start  # nothing can be hidden there
        self._wandb = wandb
        there = _read(run / WANDB)
        self._run = wandb.init(
            project=there.get("project") or os.environ.get("WANDB_PROJECT", "boqsa"),
            entity=there.get("entity"),
            id=there.get("id") or uuid.uuid4().hex[:8],
            name=run.resolve().name,
            dir=str(run),
            config={**asdict(recipe), "recipe_hash": recipe.hash},
            resume="allow",
            settings={"console": "off"},  # the progress bar is no output to keep
        )
        self._run.define_metric("*", step_metric="step")
        named = {name: getattr(self._run, name, None) for name in ("id", "project", "entity")}
        write_text(run / WANDB, json.dumps({name: value for name, value in named.items() if value}))

    def row(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """One point of each curve."""
        if numbers := scalars(event, values):
            self._run.log({"step": step, **numbers})

    def picture(self, name: str, step: int, picture: Image.Image) -> None:
        """A picture under its name."""
        self._run.log({"step": step, name: self._wandb.Image(picture)})

    def close(self) -> None:
        """Wait until everything is sent."""
        self._run.finish()


def _read(path: Path) -> dict[str, str]:
    """The strings of a small JSON file; nothing of one that is absent or damaged."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in values.items() if isinstance(value, str)} if isinstance(values, dict) else {}
