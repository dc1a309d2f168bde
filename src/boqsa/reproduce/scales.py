"""Two scales of the same experiments: the paper's recipes on its data, and small ones on what fits two CPU cores.

An item asks a scale for the recipes of a data set of the paper and a family of models. The paper's scale gives the
catalog's recipe; the small one gives a network and a budget of minutes, on the data set itself at 32x32 or on what
stands in for it where the original is out of reach.

The small settings are the same for all methods. How they are fixed, and whether they are, is in docs/reproduction.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from boqsa.recipes import (
    DataRecipe,
    DVAETrainRecipe,
    EvaluateRecipe,
    MixtureRecipe,
    Recipe,
    TrainRecipe,
    TransformerRecipe,
    get_recipe,
)
from boqsa.recipes.fields import with_fields
from boqsa.recipes.paper import as_slot_attention
from boqsa.recipes.radiance import half_schedule

Family = Literal["mixture", "transformer", "slot_attention", "slate", "radiance"]

STAND_INS: dict[str, tuple[str, ...]] = {
    "shapestacks": ("scenes",),
    "dogs": ("flowers17", "weizmann_horses"),
    **dict.fromkeys(("clevr567", "room_chair", "room_diverse"), ("scenes",)),
}
"""Data set of the paper -> what stands in for it at the small scale. The others are themselves, at 32x32."""

_SLOTS = {"scenes": 5, "objectsroom": 5, "ptr": 7, "birds": 3, "ycb": 6, "scannet": 6, "coco": 6}
"""Slots at the small scale; Table 13's where the data set is the paper's. Not named: 2, one thing in a photograph."""

_CLEVRTEX = ("clevrtex_full", "clevrtex_outd", "clevrtex_camo")
_INSTANCES = ("ycb", "scannet", "coco")
_FOREGROUND = ("birds", "dogs", "cars", "flowers", "flowers17", "weizmann_horses")


@dataclass(frozen=True)
class Scale:
    """How large an experiment is."""

    name: str
    recipes: Callable[[str, Family], list[Recipe]]
    """(data set of the paper, family) -> the recipe to start from, or one for each data set that stands in."""
    data_names: Callable[[str], tuple[str, ...]]
    """Data set of the paper -> the data sets of this scale."""
    at_once: int | None
    """Runs at a time, where the user names no number; None leaves it to the machine."""

    def with_fields(self, fields: Mapping[str, str]) -> "Scale":
        """The scale with fields set in every recipe that items start from; what an item sets itself stays its own."""
        return replace(
            self,
            recipes=lambda dataset, family: [with_fields(recipe, fields) for recipe in self.recipes(dataset, family)],
        )


def task_of(dataset: str) -> str:
    """Which metrics a data set is scored by."""
    if dataset in _FOREGROUND:
        return "foreground"
    return "instances" if dataset in _INSTANCES else "multi_object"


def _paper(dataset: str, family: Family) -> list[Recipe]:
    """The catalog's. Those that it lacks are made from it: Slot Attention rows, and the built-in scenes."""
    if dataset == "scenes":
        recipe = get_recipe(f"objectsroom_{family}")
        return [replace(recipe, name=f"scenes_{family}", data=DataRecipe(name="scenes", image_size=64))]
    name = "clevrtex" if dataset in _CLEVRTEX else dataset
    if family == "slot_attention":
        return [as_slot_attention(get_recipe(f"{name}_mixture"))]
    return [get_recipe(f"{name}_{family}")]


def _small(dataset: str, family: Family) -> list[Recipe]:
    return [_small_recipe(name, family) for name in _stand_ins(dataset)]


def _stand_ins(dataset: str) -> tuple[str, ...]:
    return STAND_INS.get(dataset, (dataset,))


def _small_recipe(dataset: str, family: Family) -> Recipe:
    if family == "radiance":
        ten_minutes = half_schedule(get_recipe("scenes_radiance_small"))  # on one core
        train = replace(ten_minutes.train, threads=1, evaluate_every=1_000)
        return replace(ten_minutes, name="scenes_radiance_32px", train=train)
    slots = _SLOTS.get(dataset, 11 if dataset in _CLEVRTEX else 2)
    task = task_of(dataset)
    is_mixture = family in ("mixture", "slot_attention")
    model: MixtureRecipe | TransformerRecipe = _MIXTURE
    if not is_mixture:
        model = _SLATE if family == "slate" else _TRANSFORMER
    train = _MIXTURE_TRAIN if is_mixture else _TRANSFORMER_TRAIN
    if family == "slate":
        train = replace(train, sigma_steps=0, clip_norm_type="inf")
    recipe = Recipe(
        name=f"{dataset}_{'mixture' if is_mixture else family}_32px",
        data=DataRecipe(name=dataset, image_size=32),
        model=replace(model, num_slots=slots),
        train=train,
        evaluate=_PROTOCOLS[task],
    )
    return as_slot_attention(recipe) if family == "slot_attention" else recipe


_PROTOCOLS = {
    "multi_object": EvaluateRecipe(validation_limit=256),
    "foreground": EvaluateRecipe(task="foreground", select_by="iou", validation_limit=256),
    "instances": EvaluateRecipe(task="instances", select_by="ap", validation_limit=256),
}

_MIXTURE = MixtureRecipe(
    slot_size=32,
    mlp_size=64,
    encoder_channels=(32,) * 3,
    encoder_strides=(1, 2, 1),
    decoder_channels=(32, 16),
    decoder_strides=(2, 2),
)
"""The demo's network with the published slot attention: three iterations, drop-path 0.2, multiplicative noise."""

_MIXTURE_TRAIN = TrainRecipe(
    steps=6_000,
    batch_size=16,
    learning_rate=2e-3,
    warmup_steps=200,
    half_life_steps=3_000,
    sigma_steps=720,
    precision="bf16",
    device="cpu",
    threads=1,
    checkpoint_every=1_000,
    evaluate_every=1_000,
    log_every=50,
)
"""Minutes on one core. The noise falls over the same share of the training as in the paper, 12 %."""

_TRANSFORMER = TransformerRecipe(
    slot_size=64,
    mlp_size=128,
    vocab_size=256,
    width=64,
    blocks=2,
    heads=4,
    dropout=0.0,
    dvae_channels=32,
    encoder_channels=(32,) * 2,
    encoder_strides=(2, 1),
)

_SLATE = replace(
    _TRANSFORMER,
    dvae_kernel=1,
    queries="shared_gaussian",
    gradient="unrolled",
    epsilon=1e-8,
    epsilon_form="entry",
    drop_path=0.0,
    features="tokens",
)
"""SLATE's slots and features; rates and schedules are those of the other small recipes."""

_TRANSFORMER_TRAIN = TrainRecipe(
    steps=4_000,
    batch_size=16,
    learning_rate=3e-4,
    warmup_steps=300,
    half_life_steps=3_000,
    dvae=DVAETrainRecipe(learning_rate=3e-3, half_life_steps=2_000, tau_end=0.5, tau_steps=1_500),
    sigma_steps=720,
    flip=True,
    least_crop=0.6,
    precision="bf16",
    device="cpu",
    threads=1,
    checkpoint_every=1_000,
    evaluate_every=1_000,
    log_every=50,
)
"""Cut where the held-out loss is lowest and the masks of SA and QSA move no more (docs/reproduction.md)."""


PAPER = Scale("paper", _paper, lambda dataset: (dataset,), at_once=None)
SMALL = Scale("small", _small, _stand_ins, at_once=2)
SCALES = {scale.name: scale for scale in (PAPER, SMALL)}
