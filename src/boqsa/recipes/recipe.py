"""The shape of a recipe: nested frozen dataclasses, JSON in and out, and a hash that goes into every result.

Every field is documented under it; the command line shows that text as its help. Fields that say where and on what
a run executes, not what it computes (`data.root`, `train.device`, `train.threads`), stay out of the hash. Fields that
were added after runs existed are marked `_ADDED_LATER`: they enter it only where they differ from their default.
"""

import hashlib
import json
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin

from boqsa.errors import RecipeError
from boqsa.plain import parse_json
from boqsa.recipes.limits import beyond_limits, is_plain_name

Task = Literal["multi_object", "foreground", "instances"]

_ADDED_LATER = {"added_later": True}
"""Metadata of a field that old recipes lack: at its default they keep their hash, and unfinished runs go on."""

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
    scene_objects: tuple[int, ...] = field(default=(2, 4), metadata=_ADDED_LATER)
    """Fewest and most objects of a rendered scene, 1 to 6; only for "scenes"."""

    def __post_init__(self) -> None:
        _at_least(self, "image_size", 8)
        _at_least(self, "scene_count", 1)
        _at_least(self, "scene_seed", 0)
        if len(self.scene_objects) != 2 or not 1 <= self.scene_objects[0] <= self.scene_objects[1] <= 6:
            raise RecipeError(
                f"data.scene_objects is {self.scene_objects}; give the fewest and the most, each 1 to 6, as 2,4."
            )
        for name in ("name", "train_split", "validation_split", "test_split"):
            value = getattr(self, name)
            if not is_plain_name(value):
                raise RecipeError(f"data.{name} is {value!r}; it must be a name, and no path.")
        _within_limits(self)


@dataclass(frozen=True, kw_only=True)
class MixtureRecipe:
    """The arguments of `boqsa.models.MixtureModel`, except the image size, which is that of the data."""

    num_slots: int = 5
    """Number of slots."""
    slot_size: int = 64
    """Width of a slot."""
    mlp_size: int = 128
    """Hidden width of the feature MLP and of slot attention's MLP."""
    encoder_channels: tuple[int, ...] = (64,) * 4
    """Output channels of each 5x5 convolution (Table 9)."""
    encoder_strides: tuple[int, ...] = (1, 1, 1, 1)
    """Their strides."""
    decoder_channels: tuple[int, ...] = (64,) * 5
    """Output channels of each 5x5 transposed convolution (Table 10)."""
    decoder_strides: tuple[int, ...] = (2, 2, 2, 1, 1)
    """Their strides; decoder_grid times their product is the image size."""
    decoder_grid: int = 8
    """Side of the grid that a slot is broadcast to."""
    iterations: int = 3
    """Slot-attention steps, all counted (spec 1.5)."""
    queries: Literal["learned", "shared_gaussian", "independent_gaussians"] = "learned"
    """Where slots start."""
    gradient: Literal["unrolled", "implicit", "bilevel"] = "bilevel"
    """How the backward pass sees the refinement."""
    perturbation: Literal["multiplicative", "additive"] = "multiplicative"
    """How noise enters learned queries."""
    epsilon: float = 1.0
    """Added when attention is normalised over tokens."""
    epsilon_form: Literal["sum", "entry"] = "sum"
    """Added to a slot's total attention, or to each entry."""
    drop_path: float = 0.2
    """Probability that a sample skips slot attention's MLP in training."""
    initial_weights: Literal["published", "torch"] = "published"
    """Initial weights of slot attention."""
    keys_and_values: Literal["folded", "projected"] = field(default="folded", metadata=_ADDED_LATER)
    """folded: slots are projected instead of tokens, so that no keys and values are kept; equal but for rounding."""
    kind: Literal["mixture"] = field(default="mixture", metadata=_ADDED_LATER)
    """Tells the models apart in JSON; a recipe has one kind for good, and without this field it is a mixture."""

    def __post_init__(self) -> None:
        for name in ("num_slots", "slot_size", "mlp_size", "decoder_grid", "iterations"):
            _at_least(self, name, 1)
        for name in (
            "queries",
            "gradient",
            "perturbation",
            "epsilon_form",
            "initial_weights",
            "keys_and_values",
            "kind",
        ):
            _one_of(self, name)
        for name in ("encoder_channels", "encoder_strides", "decoder_channels", "decoder_strides"):
            _each_at_least_one(self, name)
        _at_least(self, "epsilon", 0)
        _within(self, "drop_path", 0, 0.99)
        _within_limits(self)


@dataclass(frozen=True, kw_only=True)
class TransformerRecipe:
    """The arguments of `boqsa.models.TransformerModel`, except the image size, which is that of the data."""

    num_slots: int = 3
    """Number of slots."""
    slot_size: int = 256
    """Width of a slot."""
    mlp_size: int = 256
    """Hidden width of the feature MLP and of slot attention's MLP."""
    vocab_size: int = 1024
    """Different tokens of the dVAE; a token stands for 4x4 pixels."""
    width: int = 256
    """Width of the transformer."""
    blocks: int = 4
    """Blocks of the transformer."""
    heads: int = 4
    """Attention heads of each block; they divide the width."""
    dropout: float = 0.1
    """Probability that the transformer drops a number in training (spec 3.6, 3.7)."""
    dvae_kernel: int = 3
    """Kernel of the dVAE's inner convolutions: 3 in the paper, 1 in SLATE."""
    encoder_channels: tuple[int, ...] = (64,) * 4
    """Output channels of each 5x5 convolution (Table 9); used where features is "image"."""
    encoder_strides: tuple[int, ...] = (1, 1, 1, 1)
    """Their strides."""
    iterations: int = 3
    """Slot-attention steps, all counted (spec 1.5)."""
    queries: Literal["learned", "shared_gaussian", "independent_gaussians"] = "learned"
    """Where slots start."""
    gradient: Literal["unrolled", "implicit", "bilevel"] = "bilevel"
    """How the backward pass sees the refinement."""
    perturbation: Literal["multiplicative", "additive"] = "multiplicative"
    """How noise enters learned queries."""
    epsilon: float = 1.0
    """Added when attention is normalised over tokens."""
    epsilon_form: Literal["sum", "entry"] = "sum"
    """Added to a slot's total attention, or to each entry."""
    drop_path: float = 0.2
    """Probability that a sample skips slot attention's MLP in training."""
    initial_weights: Literal["published", "torch"] = "published"
    """Initial weights of slot attention."""
    features: Literal["image", "tokens"] = "image"
    """What slots attend to: a CNN's features at full resolution (BO-QSA), or the embedded tokens (SLATE)."""
    keys_and_values: Literal["folded", "projected"] = "folded"
    """folded: slots are projected instead of tokens, so that no keys and values are kept; equal but for rounding."""
    recompute: bool = False
    """Compute the largest activations anew in the backward pass: less memory, more time, the same result."""
    dvae_channels: int = 64
    """Width of the dVAE's hidden layers."""
    kind: Literal["transformer"] = "transformer"
    """Tells the models apart in JSON; a recipe has one kind for good."""

    def __post_init__(self) -> None:
        for name in ("num_slots", "slot_size", "mlp_size", "width", "blocks", "heads", "iterations", "dvae_channels"):
            _at_least(self, name, 1)
        _at_least(self, "vocab_size", 2)
        for name in ("queries", "gradient", "perturbation", "epsilon_form", "initial_weights", "kind"):
            _one_of(self, name)
        _one_of(self, "features")
        _one_of(self, "keys_and_values")
        for name in ("encoder_channels", "encoder_strides"):
            _each_at_least_one(self, name)
        _at_least(self, "epsilon", 0)
        for name in ("dropout", "drop_path"):
            _within(self, name, 0, 0.99)
        _within_limits(self)
        if self.dvae_kernel < 1 or self.dvae_kernel % 2 == 0:
            raise RecipeError(f"model.dvae_kernel is {self.dvae_kernel}; it must be odd, as 1 or 3.")
        if self.width % self.heads:
            raise RecipeError(
                f"model.width {self.width} cannot be divided into model.heads {self.heads} parts; choose others."
            )


@dataclass(frozen=True, kw_only=True)
class DVAETrainRecipe:
    """How the dVAE of a transformer model learns (Table 12); mixture models do not use it."""

    learning_rate: float = 3e-4
    """Adam's, of the dVAE alone, at the end of its warm-up."""
    warmup_steps: int = 0
    """Steps of linear warm-up from 0."""
    half_life_steps: int = 50_000
    """Its learning rate halves every so many steps, counted from step 0; 0 means no decay."""
    tau_start: float = 1.0
    """Temperature of the Gumbel-softmax at step 0."""
    tau_end: float = 0.1
    """Temperature from `tau_steps` on."""
    tau_steps: int = 30_000
    """Steps over which the temperature falls (half a cosine)."""

    def __post_init__(self) -> None:
        for name in ("warmup_steps", "half_life_steps", "tau_steps"):
            _at_least(self, name, 0)
        for name in ("learning_rate", "tau_start", "tau_end"):
            _above_zero(self, name)


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """The optimisation (Table 11) and how the run keeps itself."""

    steps: int = 250_000
    """Optimiser steps."""
    batch_size: int = 128
    """Images in one optimiser step, over all processes and accumulation together."""
    accumulate: int = 1
    """Number of pieces that a batch is computed in, to save memory; changes nothing else but the draws of dropout."""
    learning_rate: float = 4e-4
    """Adam's, at the end of the warm-up; of all but the dVAE."""
    warmup_steps: int = 5_000
    """Steps of linear warm-up from 0."""
    half_life_steps: int = 50_000
    """The learning rate halves every so many steps, counted from step 0; 0 means no decay."""
    dvae: DVAETrainRecipe = field(default_factory=DVAETrainRecipe, metadata=_ADDED_LATER)
    patience: int = field(default=0, metadata=_ADDED_LATER)
    """All learning rates halve after so many evaluations in a row without a lower held-out loss; 0 means never."""
    clip_norm: float = 1.0
    """Global norm that gradients are clipped to; 0 turns it off."""
    clip_norm_type: Literal["2", "inf"] = field(default="2", metadata=_ADDED_LATER)
    """That norm: 2, or inf for the largest absolute entry (SLATE)."""
    sigma_steps: int = 30_000
    """Steps over which the perturbation of the queries falls from 1 to 0 (half a cosine); 0 means none."""
    query_update: Literal["gradient", "running_mean", "kmeans"] = field(default="gradient", metadata=_ADDED_LATER)
    """What moves learned queries (Table 17). running_mean, kmeans: after each step, the mean of each final slot over
    the batch, or the centres of clusters of all of them. Queries then have no gradient and no perturbation
    (`sigma_steps` plays no part), and start Xavier-normal."""
    query_momentum: float = field(default=1.0, metadata=_ADDED_LATER)
    """Share of the new value when running_mean or kmeans move a query, in (0, 1]; 0.1 in the paper's rows "-M"."""
    consistency_weight: float = field(default=0.0, metadata=_ADDED_LATER)
    """Weight of the loss ||sg(final slots) - initial slots||^2 (Table 17: 0.01, for learned queries); 0 means none."""
    flip: bool = field(default=False, metadata=_ADDED_LATER)
    """Mirror half of the images, left to right. Off in the paper."""
    least_crop: float = field(default=1.0, metadata=_ADDED_LATER)
    """Cut a random square out of each image, its side between this share of the image's and all of it, and enlarge it
    to the image's size; 1 means the whole image, as in the paper. For sets of a few hundred photographs."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """fp32, or bf16 autocast; slot attention and the loss stay in fp32."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    threads: int = 0
    """CPU threads of torch; 0 keeps torch's choice. Results are bit-identical only at an equal number."""
    channels_last: bool = True
    """Memory layout of weights and images: channels innermost, as fast convolutions have it."""
    compile: bool = field(default=False, metadata=_ADDED_LATER)
    """Compile the model with `torch.compile`, as one graph: for GPUs. Takes a minute or more before the first step, and
    a C++ compiler. Dropout then draws other numbers."""
    checkpoint_every: int = 5_000
    """Steps between checkpoints."""
    evaluate_every: int = 5_000
    """Steps between evaluations on the validation split."""
    keep_last: int = field(default=2, metadata=_ADDED_LATER)
    """Checkpoints to keep that a run can go on from: `last`, the one before it as `last-1`, and so on. With 1 there is
    no other one when `last` is damaged."""
    nonfinite_patience: int = field(default=10, metadata=_ADDED_LATER)
    """Steps in a row whose loss or gradient is not a number, and which are skipped, before the run stops; 0 skips none
    and stops at the first."""
    deterministic: bool = field(default=False, metadata=_ADDED_LATER)
    """On a GPU, take algorithms alone that give the same bits each time, which are slower. A CPU does so anyway."""
    log_every: int = 100
    """Steps between lines of the log."""
    init_from: str | None = None
    """Run whose weights to start from, or one of its checkpoints: RUN/checkpoints/best_loss."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate"):
            _at_least(self, name, 1)
        for name in ("checkpoint_every", "evaluate_every", "log_every", "keep_last"):
            _at_least(self, name, 1)
        for name in ("warmup_steps", "half_life_steps", "sigma_steps", "patience", "threads", "clip_norm"):
            _at_least(self, name, 0)
        for name in ("nonfinite_patience", "consistency_weight"):
            _at_least(self, name, 0)
        _within(self, "least_crop", 0.1, 1)
        for name in ("precision", "device", "clip_norm_type", "query_update"):
            _one_of(self, name)
        _above_zero(self, "query_momentum")
        _within(self, "query_momentum", 0, 1)
        _above_zero(self, "learning_rate")
        _within_limits(self)
        if self.batch_size % self.accumulate:
            raise RecipeError(
                f"train.batch_size {self.batch_size} cannot be computed in {self.accumulate} equal pieces; "
                "choose train.accumulate that divides it."
            )
        if self.query_update == "gradient" and self.query_momentum != 1:
            raise RecipeError(
                f"train.query_momentum is {self.query_momentum}, which train.query_update 'gradient' does not have; "
                "pass --train.query-update running_mean or kmeans, or leave it at 1."
            )
        if self.query_update != "gradient" and self.consistency_weight:
            raise RecipeError(
                f"train.consistency_weight is {self.consistency_weight}, but train.query_update {self.query_update!r} "
                "gives queries no gradient; pass --train.consistency-weight 0 or --train.query-update gradient."
            )


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
    """Images of the validation split looked at during training, from its start; 0 means all."""

    def __post_init__(self) -> None:
        _at_least(self, "batch_size", 1)
        _at_least(self, "validation_limit", 0)
        _within_limits(self)
        for name in ("task", "select_by"):
            _one_of(self, name)
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
    model: MixtureRecipe | TransformerRecipe = field(default_factory=MixtureRecipe)
    train: TrainRecipe = field(default_factory=TrainRecipe)
    evaluate: EvaluateRecipe = field(default_factory=EvaluateRecipe)
    seed: int = 42
    """Every random draw of the run comes from it."""

    def __post_init__(self) -> None:
        _at_least(self, "seed", 0)
        _within_limits(self)
        _require_learned_queries(self)

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
        recipe: Recipe = _from_dict(cls, values, "recipe")
        return recipe

    @classmethod
    def model_from(cls, kind: str, values: Any) -> MixtureRecipe | TransformerRecipe:
        """The model part of a recipe from plain data, checked as `from_json` checks it.

        Raises:
            RecipeError: as `from_json`.
        """
        choices: Any = MixtureRecipe | TransformerRecipe
        model: MixtureRecipe | TransformerRecipe = _from_dict(choices, {**values, "kind": kind}, "model")
        return model

    @property
    def hash(self) -> str:
        """12 hexadecimal digits of everything that decides the result."""
        defining = replace(
            self,
            data=replace(self.data, root=None),
            train=replace(self.train, device="auto", threads=0),
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


def _from_dict(kind: type[Any], values: Any, where: str) -> Any:
    """Build a dataclass from JSON values, strictly: every key known, every type right.

    Where `kind` is a union of dataclasses, the field `kind` of the values chooses; without it the first one is meant.
    """
    choices = get_args(kind) or (kind,)
    kind = choices[0]
    if isinstance(values, dict) and len(choices) > 1 and "kind" in values:
        by_name = {choice.kind: choice for choice in choices}
        if not isinstance(values["kind"], str) or values["kind"] not in by_name:
            raise RecipeError(f"{where}.kind is {values['kind']!r}; expected one of {', '.join(map(repr, by_name))}.")
        kind = by_name[values["kind"]]
    if not isinstance(values, dict):
        raise RecipeError(f"{where} is {values!r}; expected an object with the fields of {kind.__name__}.")
    known = {entry.name: entry for entry in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise RecipeError(f"{where} has unknown fields {', '.join(unknown)}; known are {', '.join(known)}.")
    arguments = {}
    for name, value in values.items():
        expected: Any = known[name].type
        if any(is_dataclass(choice) for choice in get_args(expected) or (expected,)):
            arguments[name] = _from_dict(expected, value, f"{where}.{name}")
        else:
            arguments[name] = _convert(expected, value, f"{where}.{name}")
    try:
        return kind(**arguments)
    except TypeError as error:
        raise RecipeError(f"{where} is incomplete: {str(error).split('() ')[-1]}.") from None


def _convert(expected: Any, value: Any, where: str) -> Any:
    if get_origin(expected) is tuple:
        if not isinstance(value, list) or not all(type(entry) is int for entry in value):
            raise RecipeError(f"{where} is {value!r}; expected a list of whole numbers.")
        return tuple(value)
    if expected is float and type(value) is int:
        return float(value)
    if get_origin(expected) is Literal:
        if value not in get_args(expected):
            raise RecipeError(f"{where} is {value!r}; expected one of {', '.join(map(repr, get_args(expected)))}.")
        return value
    choices = get_args(expected) or (expected,)
    if type(value) not in choices:  # not isinstance: True would pass as a whole number
        wanted = " or ".join(choice.__name__ for choice in choices)
        raise RecipeError(f"{where} is {value!r}; expected {wanted}.")
    return value


_SECTIONS = {
    "DataRecipe": "data.",
    "MixtureRecipe": "model.",
    "TransformerRecipe": "model.",
    "TrainRecipe": "train.",
    "DVAETrainRecipe": "train.dvae.",
    "EvaluateRecipe": "evaluate.",
}


def _field_name(section: Any, name: str) -> str:
    return _SECTIONS.get(type(section).__name__, "") + name


def _at_least(section: Any, name: str, least: float) -> None:
    value = getattr(section, name)
    if value == float("inf"):
        raise RecipeError(f"{_field_name(section, name)} is {value}; it must be finite.")
    if not value >= least:
        raise RecipeError(f"{_field_name(section, name)} is {value}; it must be at least {least}.")


def _above_zero(section: Any, name: str) -> None:
    value = getattr(section, name)
    if not value > 0:
        raise RecipeError(f"{_field_name(section, name)} is {value}; it must be above 0.")
    _at_least(section, name, 0)  # refuses infinity


def _each_at_least_one(section: Any, name: str) -> None:
    value = getattr(section, name)
    if any(entry < 1 for entry in value):
        raise RecipeError(f"{_field_name(section, name)} is {value}; each must be at least 1.")


def _within_limits(section: Any) -> None:
    beyond = beyond_limits(section)
    if beyond is not None:
        raise RecipeError(f"{_field_name(section, beyond[0])} {beyond[1]}")


def _within(section: Any, name: str, least: float, most: float) -> None:
    value = getattr(section, name)
    if not least <= value <= most:
        raise RecipeError(f"{_field_name(section, name)} is {value}; it must be between {least} and {most}.")


def _require_learned_queries(recipe: Recipe) -> None:
    """For what is done to queries: samples of a Gaussian belong to no slot."""
    for name, idle in (("query_update", "gradient"), ("consistency_weight", 0)):
        value = getattr(recipe.train, name)
        if value != idle and recipe.model.queries != "learned":
            raise RecipeError(
                f"train.{name} is {value!r} and needs learned queries, but model.queries is {recipe.model.queries!r}; "
                f"pass --model.queries learned or --train.{name.replace('_', '-')} {idle}."
            )


def _one_of(section: Any, name: str) -> None:
    choices = get_args(next(entry.type for entry in fields(section) if entry.name == name))
    value = getattr(section, name)
    if value not in choices:
        raise RecipeError(f"{_field_name(section, name)} is {value!r}; pass one of {', '.join(map(repr, choices))}.")
