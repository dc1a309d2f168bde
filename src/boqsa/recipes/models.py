"""What a recipe says of its model: the arguments of the model's constructor, and their documentation."""

import math
from dataclasses import dataclass, field
from typing import Literal

from boqsa.errors import RecipeError
from boqsa.recipes.checks import ADDED_LATER, above_zero, at_least, each_at_least_one, one_of, within, within_limits


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
    keys_and_values: Literal["folded", "projected"] = field(default="folded", metadata=ADDED_LATER)
    """folded: slots are projected instead of tokens, so that no keys and values are kept; equal but for rounding."""
    kind: Literal["mixture"] = field(default="mixture", metadata=ADDED_LATER)
    """Tells the models apart in JSON; a recipe has one kind for good, and without this field it is a mixture."""

    def __post_init__(self) -> None:
        for name in ("num_slots", "slot_size", "mlp_size", "decoder_grid", "iterations"):
            at_least(self, name, 1)
        for name in (
            "queries",
            "gradient",
            "perturbation",
            "epsilon_form",
            "initial_weights",
            "keys_and_values",
            "kind",
        ):
            one_of(self, name)
        for name in ("encoder_channels", "encoder_strides", "decoder_channels", "decoder_strides"):
            each_at_least_one(self, name)
        at_least(self, "epsilon", 0)
        within(self, "drop_path", 0, 0.99)
        within_limits(self)


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
            at_least(self, name, 1)
        at_least(self, "vocab_size", 2)
        for name in ("queries", "gradient", "perturbation", "epsilon_form", "initial_weights", "kind"):
            one_of(self, name)
        one_of(self, "features")
        one_of(self, "keys_and_values")
        for name in ("encoder_channels", "encoder_strides"):
            each_at_least_one(self, name)
        at_least(self, "epsilon", 0)
        for name in ("dropout", "drop_path"):
            within(self, name, 0, 0.99)
        within_limits(self)
        if self.dvae_kernel < 1 or self.dvae_kernel % 2 == 0:
            raise RecipeError(f"model.dvae_kernel is {self.dvae_kernel}; it must be odd, as 1 or 3.")
        if self.width % self.heads:
            raise RecipeError(
                f"model.width {self.width} cannot be divided into model.heads {self.heads} parts; choose others."
            )


@dataclass(frozen=True, kw_only=True)
class RadianceRecipe:
    """The arguments of `boqsa.models.radiance.RadianceModel`: slots that are fields in space (Table 19)."""

    input_size: int = 64
    """Height and width of the input view; photographs are resized to it."""
    num_slots: int = 8
    """Number of slots, the background's included."""
    slot_size: int = 40
    """Width of a slot, of the features and of the fields."""
    halved: bool = False
    """Tokens at half of the input's resolution, for inputs of 128 pixels."""
    iterations: int = 3
    """Slot-attention steps, all counted."""
    queries: Literal["learned", "shared_gaussian"] = "learned"
    """Where slots start; a shared Gaussian for objects has another one for the background beside it."""
    gradient: Literal["unrolled", "implicit", "bilevel"] = "bilevel"
    """How the backward pass sees the refinement."""
    perturbation: Literal["multiplicative", "additive"] = "multiplicative"
    """How noise enters learned queries."""
    focal_x: float = 350 / 320
    """Focal length as a share of the image's width."""
    focal_y: float = 350 / 240
    """Focal length as a share of the image's height."""
    near: float = 6.0
    """Depth of the first sample of a ray, in world units."""
    far: float = 20.0
    """Depth of the last one."""
    scene_scale: float = 7.0
    """World units in a unit of the fields."""
    box: float = 4.5
    """Half the side of the cube that objects are kept in while locality is on, in world units."""
    box_bottom: float | None = field(default=None, metadata=ADDED_LATER)
    """Lowest z of the box, in world units; null means the cube's."""
    box_top: float | None = field(default=None, metadata=ADDED_LATER)
    """Highest z of the box, in world units; null means the cube's."""
    stay_in_box: bool = field(default=False, metadata=ADDED_LATER)
    """Keep objects in the box for good, whatever train.radiance.local_until says, and when they are shown."""
    object_frame: Literal["azimuth", "camera", "camera_published"] = "azimuth"
    """In which axes objects are described: the world's, turned with the input camera about the vertical; the input
    camera's; or these with the published mixture of units."""
    kind: Literal["radiance"] = "radiance"
    """Tells the models apart in JSON; a recipe has one kind for good."""

    def __post_init__(self) -> None:
        for name in ("input_size", "num_slots", "slot_size", "iterations"):
            at_least(self, name, 1)
        for name in ("queries", "gradient", "perturbation", "object_frame", "kind"):
            one_of(self, name)
        for name in ("focal_x", "focal_y", "near", "far", "scene_scale", "box"):
            above_zero(self, name)
        within_limits(self)
        if self.near >= self.far:
            raise RecipeError(f"model.near is {self.near} and model.far is {self.far}; near must be in front of far.")
        bottom = -self.box if self.box_bottom is None else self.box_bottom
        top = self.box if self.box_top is None else self.box_top
        if not -math.inf < bottom < top < math.inf:
            raise RecipeError(
                f"the objects' box is from z = {bottom} (model.box_bottom) up to {top} (model.box_top); "
                "give finite heights in world units, the top above the bottom."
            )


@dataclass(frozen=True, kw_only=True)
class FeaturesRecipe:
    """The arguments of `boqsa.models.FeaturesModel`, except the image size, which is that of the data."""

    patch_size: int = 16
    """Side of a patch of the frozen encoder, in pixels; it divides the image size."""
    feature_size: int = 768
    """Numbers that the encoder gives for a patch."""
    num_slots: int = 7
    """Number of slots."""
    slot_size: int = 256
    """Width of a slot."""
    mlp_size: int = 1024
    """Hidden width of slot attention's MLP; that of the feature MLP is the feature size."""
    decoder: Literal["mlp", "autoregressive"] = "mlp"
    """mlp: each slot answers for each patch (DINOSAUR). autoregressive: patches one after the other (SPOT)."""
    decoder_size: int = 2048
    """Width of each hidden layer of the MLP decoder."""
    decoder_layers: int = 3
    """Its hidden layers."""
    blocks: int = 4
    """Blocks of the autoregressive decoder."""
    heads: int = 6
    """Attention heads of each; they divide the feature size."""
    random_orders: bool = True
    """Of the autoregressive decoder: one of nine orders of the patches, drawn for each image, or row by row."""
    iterations: int = 3
    """Slot-attention steps, all counted (spec 1.5)."""
    queries: Literal["learned", "shared_gaussian", "independent_gaussians"] = "learned"
    """Where slots start."""
    gradient: Literal["unrolled", "implicit", "bilevel"] = "bilevel"
    """How the backward pass sees the refinement."""
    perturbation: Literal["multiplicative", "additive"] = "multiplicative"
    """How noise enters learned queries."""
    epsilon: float = 1e-8
    """Added when attention is normalised over tokens."""
    epsilon_form: Literal["sum", "entry"] = "entry"
    """Added to a slot's total attention, or to each entry."""
    drop_path: float = 0.0
    """Probability that a sample skips slot attention's MLP in training."""
    initial_weights: Literal["published", "torch"] = "published"
    """Initial weights of slot attention."""
    keys_and_values: Literal["folded", "projected"] = "projected"
    """projected: keys and values are made once for all steps. folded: slots are projected instead."""
    encoder: str | None = None
    """Where the encoder of the features came from; a run takes it from its data. No part of the hash."""
    encoder_sha256: str | None = None
    """Of the encoder's weights; a run takes it from its data. No part of the hash."""
    kind: Literal["features"] = "features"
    """Tells the models apart in JSON; a recipe has one kind for good."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "feature_size", "num_slots", "slot_size", "mlp_size", "iterations"):
            at_least(self, name, 1)
        for name in ("decoder_size", "decoder_layers", "blocks", "heads"):
            at_least(self, name, 1)
        for name in ("decoder", "queries", "gradient", "perturbation", "epsilon_form", "initial_weights", "kind"):
            one_of(self, name)
        one_of(self, "keys_and_values")
        at_least(self, "epsilon", 0)
        within(self, "drop_path", 0, 0.99)
        within_limits(self)
        if self.decoder == "autoregressive" and self.feature_size % self.heads:
            raise RecipeError(
                f"model.feature_size {self.feature_size} cannot be divided into model.heads {self.heads} parts; "
                "choose other heads."
            )


ModelRecipe = MixtureRecipe | TransformerRecipe | RadianceRecipe | FeaturesRecipe
"""One of them; the field `kind` says which."""
