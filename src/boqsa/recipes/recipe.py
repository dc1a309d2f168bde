"""The shape of a recipe: nested frozen dataclasses, JSON in and out, and a hash that goes into every result.

Every field is documented under it; the command line shows that text as its help. Fields that say where and on what
a run executes, not what it computes (`data.root`, `train.device`, `train.threads`), stay out of the hash. Fields that
were added after runs existed are marked `ADDED_LATER`: they enter it only where they differ from their default.
"""

import hashlib
import json
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from boqsa.errors import RecipeError
from boqsa.plain import parse_json
from boqsa.recipes.checks import ADDED_LATER, at_least, one_of, within, within_limits
from boqsa.recipes.limits import is_plain_name
from boqsa.recipes.models import FeaturesRecipe, MixtureRecipe, ModelRecipe, RadianceRecipe
from boqsa.recipes.reading import from_dict
from boqsa.recipes.training import TrainRecipe

Task = Literal["multi_object", "foreground", "instances"]

METRIC_OF_TASK = {"multi_object": "ari_fg", "foreground": "iou", "instances": "ap"}
"""Label metric that checkpoints of a task are chosen by."""


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which images, at which size, and how they are split."""

    name: str
    """Data set of the catalog (`boqsa data list`); "scenes" is rendered by the package itself."""
    root: str | None = None
    """Folder that `boqsa data prepare` made. Not needed for "scenes"."""
    image_size: int
    """Height and width in pixels."""
    train_split: str = "train"
    """Split that is trained on."""
    validation_split: str = "val"
    """Split that is looked at during training."""
    test_split: str = "test"
    """Split of the reported scores."""
    scene_count: int = 16384
    """Training scenes to render; only for "scenes"."""
    scene_seed: int = 0
    """Seed of the rendered scenes; only for "scenes". Apart from `seed`, so that seeds share their data."""
    scene_objects: tuple[int, ...] = field(default=(2, 4), metadata=ADDED_LATER)
    """Fewest and most objects of a rendered scene, 1 to 6; only for "scenes"."""
    scene_views: int = field(default=1, metadata=ADDED_LATER)
    """Cameras of a rendered scene; radiance models need several. Only for "scenes"."""

    def __post_init__(self) -> None:
        at_least(self, "image_size", 8)
        at_least(self, "scene_count", 1)
        at_least(self, "scene_seed", 0)
        within(self, "scene_views", 1, 100)
        if len(self.scene_objects) != 2 or not 1 <= self.scene_objects[0] <= self.scene_objects[1] <= 6:
            found = " ".join(map(str, self.scene_objects))
            raise RecipeError(
                f"data.scene_objects is {found}; give the fewest and the most, each 1 to 6, as in "
                "--data.scene-objects 2 4."
            )
        for name in ("name", "train_split", "validation_split", "test_split"):
            value = getattr(self, name)
            if not is_plain_name(value):
                raise RecipeError(f"data.{name} is {value!r}; it must be a name, and no path.")
        within_limits(self)


@dataclass(frozen=True, kw_only=True)
class RadianceEvaluateRecipe:
    """How a radiance model is scored (uorf 10); other models do not use it."""

    views: int = 4
    """Views of a scene: the input, and novel ones."""
    size: int = 128
    """Height and width that they are rendered at."""
    samples: int = 256
    """Samples of a ray."""

    def __post_init__(self) -> None:
        for name, least in (("views", 2), ("size", 11), ("samples", 2)):  # 11: the window of SSIM
            at_least(self, name, least)
        within_limits(self)


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """The metric protocol; part of the recipe, so that a number cannot be separated from how it was made."""

    task: Task = "multi_object"
    """multi_object: ARI, ARI-FG, MSC-FG. foreground: IoU and Dice of the best slot (an oracle choice). instances: AP,
    PQ, precision and recall of whole objects."""
    select_by: Literal["ari_fg", "iou", "ap"] = "ari_fg"
    """Label metric of the checkpoint `best_<metric>`. It uses labels; `last` and `best_loss` do not."""
    batch_size: int = 64
    """Images evaluated at a time; changes nothing else."""
    validation_limit: int = 512
    """Images of the validation split looked at during training, from its start; 0 means all. Of a radiance model:
    scenes."""
    radiance: RadianceEvaluateRecipe = field(default_factory=RadianceEvaluateRecipe, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        at_least(self, "batch_size", 1)
        at_least(self, "validation_limit", 0)
        within_limits(self)
        for name in ("task", "select_by"):
            one_of(self, name)
        if self.select_by != METRIC_OF_TASK[self.task]:
            raise RecipeError(
                f"evaluate.select_by {self.select_by!r} is not a metric of evaluate.task {self.task!r}; "
                f"use {', '.join(f'{metric} with {task}' for task, metric in METRIC_OF_TASK.items())}."
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that defines a run."""

    name: str
    """Name of the recipe; a label, the fields below decide."""
    data: DataRecipe
    model: ModelRecipe = field(default_factory=MixtureRecipe)
    train: TrainRecipe = field(default_factory=TrainRecipe)
    evaluate: EvaluateRecipe = field(default_factory=EvaluateRecipe)
    seed: int = 42
    """Every random draw of the run comes from it."""

    def __post_init__(self) -> None:
        at_least(self, "seed", 0)
        within_limits(self)
        _require_learned_queries(self)
        if isinstance(self.model, RadianceRecipe):
            _require_radiance(self, self.model)
        if isinstance(self.model, FeaturesRecipe):
            _require_features(self, self.model)

    def to_json(self) -> str:
        """Indented JSON; `Recipe.from_json` gives the same recipe back."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read what `to_json` wrote.

        Raises:
            RecipeError: if the text is not JSON, or a field is unknown, missing or of a wrong type or value.
        """
        try:
            values = parse_json(text)
        except ValueError as error:
            raise RecipeError(f"the recipe is not JSON ({error}); write it with Recipe.to_json.") from None
        recipe: Recipe = from_dict(cls, values, "recipe")
        return recipe

    @classmethod
    def model_from(cls, kind: str, values: Any) -> ModelRecipe:
        """The model part of a recipe from plain data, checked as `from_json` checks it.

        Raises:
            RecipeError: as `from_json`.
        """
        choices: Any = ModelRecipe
        model: ModelRecipe = from_dict(choices, {**values, "kind": kind}, "model")
        return model

    @property
    def hash(self) -> str:
        """12 hexadecimal digits of everything that decides the result."""
        model = self.model
        if isinstance(model, FeaturesRecipe):  # which encoder it was is a fact of the data, as their place is
            model = replace(model, encoder=None, encoder_sha256=None)
        defining = replace(
            self,
            data=replace(self.data, root=None),
            model=model,
            train=replace(
                self.train,
                device="auto",
                threads=0,
                radiance=replace(self.train.radiance, perceptual_file=None),
            ),
        )
        return hashlib.sha256(json.dumps(_hashed(defining), sort_keys=True).encode()).hexdigest()[:12]


def differences(one: Recipe, other: Recipe) -> list[str]:
    """The fields in which two recipes differ, each as `train.steps: 100 -> 200`."""
    before, after = flat(one), flat(other)
    absent = object()  # recipes of two kinds of model do not have the same fields
    return [
        f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in before | after
        if before.get(name, absent) != after.get(name, absent)
    ]


def flat(recipe: Recipe) -> dict[str, Any]:
    """Every field by its dotted name, as `train.steps`."""
    return _flatten(asdict(recipe))


def _hashed(section: Any) -> dict[str, Any]:
    """What decides the result, as plain data: all fields but those added later that have their default."""
    values = {}
    for entry in fields(section):
        value = getattr(section, entry.name)
        if not (entry.metadata.get("added_later") and value == _default(entry)):
            values[entry.name] = _hashed(value) if is_dataclass(value) else value
    return values


def _default(entry: "Field[Any]") -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _require_learned_queries(recipe: Recipe) -> None:
    """For what is done to queries: samples of a Gaussian belong to no slot."""
    for name, idle in (("query_update", "gradient"), ("consistency_weight", 0)):
        value = getattr(recipe.train, name)
        if value != idle and recipe.model.queries != "learned":
            raise RecipeError(
                f"train.{name} is {value!r} and needs learned queries, but model.queries is {recipe.model.queries!r}; "
                f"pass --model.queries learned or --train.{name.replace('_', '-')} {idle}."
            )


def _as_option(name: str, value: object) -> str:
    """A field of the training as it is typed: a switch has no value."""
    typed = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--train.{typed}" if value else f"--train.no-{typed}"
    return f"--train.{typed} {value}"


def _require_features(recipe: Recipe, model: FeaturesRecipe) -> None:
    """For what is done to images, and cannot be done to their features."""
    idle: dict[str, object] = {"flip": False, "least_crop": 1}
    for name, value in idle.items():
        if getattr(recipe.train, name) != value:
            raise RecipeError(
                f"train.{name} is {getattr(recipe.train, name)}, but features are computed once and are no images; "
                f"pass {_as_option(name, value)}."
            )
    if recipe.data.image_size % model.patch_size:
        raise RecipeError(
            f"data.image_size {recipe.data.image_size} is no whole number of patches of model.patch_size "
            f"{model.patch_size} pixels; change one of them."
        )


def _require_radiance(recipe: Recipe, model: RadianceRecipe) -> None:
    """For what the 2D models do, and a radiance model does not."""
    train, of = recipe.train, recipe.train.radiance
    idle: dict[str, object] = {
        "precision": "fp32",  # rays and encoded points need it
        "compile": False,
        "flip": False,
        "least_crop": 1,
        "query_update": "gradient",
        "consistency_weight": 0,
    }
    for name, value in idle.items():
        if getattr(train, name) != value:
            raise RecipeError(
                f"train.{name} is {getattr(train, name)}, which radiance models do not have; "
                f"pass {_as_option(name, value)}."
            )
    if recipe.evaluate.task != "multi_object":
        raise RecipeError(f"evaluate.task is {recipe.evaluate.task!r}; radiance models are scored as 'multi_object'.")
    sizes = [of.coarse_size, *([of.fine_size] if of.fine_from else [])]
    if of.rays > of.views * min(sizes) ** 2:
        raise RecipeError(
            f"train.radiance.rays is {of.rays}, but {of.views} views of {min(sizes)}x{min(sizes)} have "
            f"{of.views * min(sizes) ** 2} pixels; lower it, or pass 0 for all of them."
        )
    if recipe.data.name == "scenes" and abs(model.focal_x * 0.92 - 1) + abs(model.focal_y * 0.92 - 1) > 1e-3:
        raise RecipeError(
            f"model.focal_x and model.focal_y are {model.focal_x:.4g} and {model.focal_y:.4g}, but the built-in scenes "
            f"are seen through a lens of {1 / 0.92:.4g}; take the recipe scenes_radiance_small."
        )
