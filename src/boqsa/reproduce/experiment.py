"""What an experiment is: which recipes are trained, and what each trained model is scored on.

`Arm` is one training, repeated over seeds; `Test` is one look at the trained model. Both are plain data, so that a
plan can be shown, counted and compared before anything runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from boqsa.recipes import DataRecipe, Recipe
from boqsa.reproduce.rows import Row

Probe = Literal["scores", "separation", "binding"]
"""How a model is looked at. scores: `boqsa.training.evaluate`; separation: initial and updated slots (Figure 3);
binding: what a slot holds across images (Figure 6)."""

METRICS_OF_TASK: dict[str, tuple[str, ...]] = {
    "multi_object": ("ari_fg", "msc_fg", "ari", "mse", "mse_per_image"),
    "foreground": ("iou", "dice", "border_iou", "border_dice"),
    "instances": ("ap", "pq", "precision", "recall", "f1"),
}
"""What is written down of a model on a set of a task; a table may show fewer. `border_` is chosen without labels."""

VIEW_METRICS = ("nv_ari", "ari", "ari_fg", "lpips", "ssim", "psnr", "nv_ari_fg", "nv_ari_last")
"""Of radiance models, in the order of Table 19; the last two are not in it."""
SEPARATION_METRICS = ("initial_silhouette", "separation_silhouette", "nearest_query_accuracy")
BINDING_PREFIX = "binding_"


@dataclass(frozen=True, kw_only=True)
class Test:
    """One look at a trained model."""

    __test__ = False  # pytest collects what begins with Test

    data: DataRecipe
    """What it is looked at on; its test split."""
    task: str
    """Which metrics: "multi_object", "foreground" or "instances"."""
    metrics: tuple[str, ...]
    """Those that become rows."""
    condition: str = ""
    """What tells rows of one method apart, as `test_iterations=5` or `trained_on=dogs`."""
    iterations: int | None = None
    """Slot-attention steps; None means the trained number."""
    num_slots: int | None = None
    """Slots; None means the trained number. Only slots of a shared Gaussian can be more."""
    generated: int = 0
    """Of a transformer model: images to decode from their slots alone."""
    lpips: tuple[str, ...] = ()
    """Of a radiance model: files of the weights that this metric needs; without them it is left out."""
    probe: Probe = "scores"
    last_alone: bool = False
    """Only the checkpoint `last`, and not those that were chosen."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training setup of an experiment; each seed is a run."""

    method: str
    """As the paper names the row."""
    recipe: Recipe
    """With any seed."""
    tests: tuple[Test, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table, figure or claim of the paper as runs and looks at them."""

    item: str
    """As in `boqsa reproduce ITEM`."""
    title: str
    """What it shows, in a line."""
    arms: tuple[Arm, ...]
    first: str = ""
    """Method that the paper claims to be better than the others; empty for no such claim."""
    compared: tuple[tuple[str, str], ...] = ()
    """Further pairs: the first is claimed to be better than the second."""
    is_grid: bool = False
    """Whether its methods are the grid of queries and gradients, whose interaction is asked."""
    paper_tables: tuple[int, ...] = ()
    """Tables of the paper whose cells stand beside."""
    varies_conditions: bool = False
    """Whether conditions are what is compared: the Markdown table then has a row for each."""
    baseline: str = ""
    """Of the conditions, the one that the others are compared with."""
    shown: tuple[str, ...] = ()
    """Metrics of the Markdown table; none means those of the paper's table, or all. The CSV has all in any case."""
    untrained: Callable[[], list[Row]] | None = None
    """Makes the rows of an item that needs no runs."""
    figures: tuple[str, ...] = ()
    """Kinds of pictures, as `boqsa.reproduce.drawings` knows them."""
    notes: tuple[str, ...] = ()
    """What a reader must know, a sentence each."""
