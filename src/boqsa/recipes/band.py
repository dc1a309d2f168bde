"""Expected bands: where the curves of a recipe lay over several of our own seeds, so that a run knows where it stands.

`bands/NAME.json` beside this file holds the band of the recipe of that name: at each evaluation the lowest and the
highest value that any seed had. It counts for that recipe alone, compared by `curve_hash`, and for the data that it
was measured on. `benchmarks/expected_band.py` writes it from finished runs.

How tolerant: the lowest of three seeds is undercut by a fourth in one of four runs, though nothing is wrong. So the
band is widened, on the side that is worse, by half its width, and by at least 0.03 of a score or a tenth of a loss, for
few seeds can lie together by chance. And a run may be one evaluation late: where curves are steep, seeds differ in time
more than in height. Of the six seeds of the demo, each judged by the other five, 6 in 100 evaluations are then called
behind.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from typing import Any

from boqsa.errors import InputError
from boqsa.recipes.recipe import Recipe
from boqsa.recipes.training import TrainRecipe

LEAST_SEEDS = 3
MARGIN = 0.5
"""As a share of the band's width."""
LEAST_SCORE_MARGIN = 0.03
LEAST_LOSS_MARGIN = 0.1
"""As a share of the loss."""

CURVES = {
    "multi_object": ("loss", "ari_fg", "msc_fg", "ari"),
    "foreground": ("loss", "iou", "dice"),
    "instances": ("loss", "ap", "pq"),
}
"""What a band is made of, by task: names of values of `evaluation` rows. ARI beside ARI-FG, which does not see the
background."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One value of the evaluations: the lowest and the highest of all seeds, at each step of the band."""

    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Band:
    """What several seeds of one recipe reached at each evaluation."""

    recipe: str
    """Name of the recipe."""
    recipe_hash: str
    """`curve_hash` of the recipe."""
    data: str
    """What the seeds were trained and scored on: a fingerprint, or the version of the renderer."""
    boqsa: str
    """Version of the package that the seeds were trained with."""
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    """Finished steps of each evaluation."""
    curves: dict[str, Curve]

    def behind(self, step: int, values: Mapping[str, Any]) -> list[str]:
        """What is worse than the band at a step, in words, as `ari_fg 0.120, expected 0.300 to 0.450`.

        Args:
            step: Finished steps.
            values: Of the evaluation there. One that is missing or not a number is no reason to be behind.

        Returns:
            Empty where nothing is worse, or where the band has no evaluation at this step.
        """
        if step not in self.steps:
            return []
        at = self.steps.index(step)
        found = []
        for name in self.curves:
            value = values.get(name)
            if not isinstance(value, int | float):
                continue
            low, high = self.limits(name, at)
            if value > high if name == "loss" else value < low:
                digits = 5 if name == "loss" else 3
                found.append(f"{name} {value:.{digits}f}, expected {low:.{digits}f} to {high:.{digits}f}")
        return found

    def limits(self, name: str, at: int) -> tuple[float, float]:
        """What is expected of a curve at an evaluation, counted from 0: widened on the side that is worse."""
        curve = self.curves[name]
        low, high = curve.low[at], curve.high[at]
        before = max(at - 1, 0)  # a run may be one evaluation late
        if name == "loss":
            margin = max(MARGIN * (high - low), LEAST_LOSS_MARGIN * abs(high))
            return low, max(high + margin, curve.high[before])
        return min(low - max(MARGIN * (high - low), LEAST_SCORE_MARGIN), curve.low[before]), high

    def standing(self, step: int, values: Mapping[str, Any]) -> str:
        """How a run stands at a step, in words: on track, or behind and where to look; arguments as for `behind`."""
        behind = self.behind(step, values)
        if behind:
            return f"behind ({'; '.join(behind)} at this step): look at docs/collapsed.md"
        return f"on track, by seeds {', '.join(map(str, self.seeds))}" if step in self.steps else "no band at this step"

    def to_json(self) -> str:
        """Indented JSON; `Band.from_json` gives the same band back."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Band":
        """Read what `to_json` wrote; the package's own files, which a test reads, so nothing is checked here."""
        values = json.loads(text)
        curves = {
            name: Curve(low=tuple(curve["low"]), high=tuple(curve["high"]))
            for name, curve in values.pop("curves").items()
        }
        values |= {name: tuple(values[name]) for name in ("seeds", "steps")}
        return cls(curves=curves, **values)


def curve_hash(recipe: Recipe) -> str:
    """`Recipe.hash` with the seed set aside, and how often a row is logged, which decides nothing."""
    return replace(recipe, seed=0, train=replace(recipe.train, log_every=TrainRecipe.log_every)).hash


def expected_band(recipe: Recipe, data: str) -> tuple[Band | None, str]:
    """The band that counts for a recipe on this data, and if there is none, why, in a sentence.

    Args:
        recipe: Whose run it is.
        data: A fingerprint, or the version of the renderer, as in `Band.data`.
    """
    path = files("boqsa.recipes") / "bands" / f"{recipe.name}.json"
    if not path.is_file():
        return None, f"no band measured for {recipe.name}: nothing tells how far a run should be at which step"
    band = Band.from_json(path.read_text(encoding="utf-8"))
    if band.recipe_hash != curve_hash(recipe):
        return None, f"no band: the recipe differs from the {recipe.name} that the band was measured with"
    if band.data != data:
        return None, f"no band: the data are others than those that the band of {recipe.name} was measured on"
    return band, ""


def make_band(runs: Sequence[tuple[Recipe, Sequence[Mapping[str, Any]]]], *, data: str, boqsa: str) -> Band:
    """The band of finished runs of one recipe with different seeds.

    Args:
        runs: The recipe and the rows of the log of each.
        data: What all of them were trained on, as in `Band.data`.
        boqsa: Version of the package that they were trained with.

    Raises:
        InputError: if there are fewer than three seeds, or the runs are not finished runs of one recipe.
    """
    seeds = sorted({recipe.seed for recipe, _ in runs})
    if len(seeds) < LEAST_SEEDS or len(seeds) < len(runs):
        raise InputError(
            f"{len(runs)} runs with {len(seeds)} different seeds; a band needs {LEAST_SEEDS} or more, each seed once."
        )
    recipe = runs[0][0]
    if len({curve_hash(other) for other, _ in runs}) > 1:
        raise InputError("the runs are not of one recipe; `boqsa runs DIR` shows what differs.")
    evaluations = [{row["step"]: row for row in rows if row.get("event") == "evaluation"} for _, rows in runs]
    steps = tuple(sorted(evaluations[0]))
    for (other, _), rows in zip(runs, evaluations, strict=True):
        if tuple(sorted(rows)) != steps or recipe.train.steps not in rows:
            raise InputError(f"the run of seed {other.seed} is not finished, or was evaluated at other steps.")
    curves = {}
    for name in CURVES[recipe.evaluate.task]:
        values: list[list[Any]] = [[rows[step].get(name) for rows in evaluations] for step in steps]
        if all(isinstance(value, int | float) for at_step in values for value in at_step):
            curves[name] = Curve(
                low=tuple(round(min(at_step), 6) for at_step in values),
                high=tuple(round(max(at_step), 6) for at_step in values),
            )
    return Band(
        recipe=recipe.name,
        recipe_hash=curve_hash(recipe),
        data=data,
        boqsa=boqsa,
        seeds=tuple(seeds),
        steps=steps,
        curves=curves,
    )
