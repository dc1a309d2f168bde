"""What a recipe says of its training: steps, rates, schedules, and how a run keeps itself."""

from dataclasses import dataclass, field
from typing import Literal

from boqsa.errors import RecipeError
from boqsa.recipes.checks import ADDED_LATER, above_zero, at_least, one_of, within, within_limits


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
            at_least(self, name, 0)
        for name in ("learning_rate", "tau_start", "tau_end"):
            above_zero(self, name)


@dataclass(frozen=True, kw_only=True)
class RadianceTrainRecipe:
    """How a radiance model learns (uorf 7 to 9); other models do not use it. All `_from` and `_until` are steps."""

    views: int = 4
    """Views of a scene in a step; the first one drawn is the input."""
    rays: int = 0
    """Random pixels of a scene in a step, over all views; 0 means every pixel of each picture or crop, which the
    perceptual and the adversarial loss need."""
    samples: int = 64
    """Samples of a ray, evenly from near to far."""
    coarse_size: int = 64
    """Height and width that views are rendered at to begin with."""
    fine_size: int = 128
    """Height and width in the fine stage."""
    crop: int = 64
    """Side of the square, the same in all views, that a step of the fine stage renders; random rays have no square."""
    fine_from: int = 600_000
    """When the fine stage begins, and the learning rate stays where it is; 0 means never."""
    local_until: int = 300_000
    """While objects are kept in their box."""
    perceptual_weight: float = 0.006
    """Weight of the squared error of VGG16's features; 0 means none."""
    perceptual_from: int = 100_000
    """When that loss begins."""
    perceptual_file: str | None = None
    """VGG16's ImageNet weights, with torchvision's names. They are not downloaded."""
    perceptual_missing: Literal["error", "skip"] = "error"
    """What to do without that file: refuse, or train without that loss."""
    adversarial_weight: float = 0.0
    """Weight of the adversarial loss (Room-Diverse: 0.01); 0 means no discriminator either."""
    discriminator_from: int = 100_000
    """When the discriminator begins to learn, at every other step, and the model stops for a while."""
    adversarial_from: int = 125_000
    """When the model learns again, in turn with the discriminator, by the adversarial loss too."""
    discriminator_rate: float = 1e-3
    """The discriminator's learning rate."""
    r1_weight: float = 10.0
    """Weight of the penalty on the discriminator's slope at photographs."""
    r1_every: int = 16
    """Its steps between two of these penalties."""
    background_rate: float = field(default=1.0, metadata=ADDED_LATER)
    """Learning rate of the background's field, in parts of `train.learning_rate`. At the same rate it is the first to
    paint what is in the box, and objects may stay empty for good."""
    density_noise: float = 0.0
    """Standard deviation of noise on densities."""
    density_noise_until: int = 0
    """While there is such noise."""

    def __post_init__(self) -> None:
        at_least(self, "views", 2)
        at_least(self, "samples", 2)
        for name in ("coarse_size", "fine_size", "crop", "r1_every"):
            at_least(self, name, 1)
        for name in ("rays", "fine_from", "local_until", "perceptual_weight", "perceptual_from"):
            at_least(self, name, 0)
        for name in ("adversarial_weight", "discriminator_from", "adversarial_from", "r1_weight"):
            at_least(self, name, 0)
        for name in ("density_noise", "density_noise_until"):
            at_least(self, name, 0)
        above_zero(self, "discriminator_rate")
        above_zero(self, "background_rate")
        one_of(self, "perceptual_missing")
        within_limits(self)
        if self.rays and (self.perceptual_weight or self.adversarial_weight):
            raise RecipeError(
                f"train.radiance.rays is {self.rays}, but the perceptual and the adversarial loss need whole pictures; "
                "pass 0 for their weights, or rays 0."
            )
        if self.fine_from and self.crop > self.fine_size:
            raise RecipeError(
                f"train.radiance.crop is {self.crop}, larger than train.radiance.fine_size {self.fine_size}; lower it."
            )
        if self.adversarial_weight:
            if self.coarse_size != 64 or (self.fine_from and self.crop != 64):
                raise RecipeError(
                    "the discriminator looks at pictures of 64x64, but train.radiance.coarse_size is "
                    f"{self.coarse_size} and train.radiance.crop is {self.crop}; make them 64, or pass "
                    "--train.radiance.adversarial-weight 0."
                )
            if self.views > 4 and self.views % 4:
                raise RecipeError(
                    f"train.radiance.views is {self.views}; the discriminator compares views in groups of up to 4, "
                    "so give a multiple of 4, or fewer."
                )
        if self.adversarial_weight and not self.discriminator_from <= self.adversarial_from:
            raise RecipeError(
                f"train.radiance.adversarial_from is {self.adversarial_from}, before "
                f"train.radiance.discriminator_from {self.discriminator_from}; exchange them."
            )


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
    """The learning rate halves every so many steps, counted from step 0, in radiance recipes from the end of the
    warm-up; 0 means no decay."""
    dvae: DVAETrainRecipe = field(default_factory=DVAETrainRecipe, metadata=ADDED_LATER)
    radiance: RadianceTrainRecipe = field(default_factory=RadianceTrainRecipe, metadata=ADDED_LATER)
    patience: int = field(default=0, metadata=ADDED_LATER)
    """All learning rates halve after so many evaluations in a row without a lower held-out loss; 0 means never."""
    clip_norm: float = 1.0
    """Global norm that gradients are clipped to; 0 turns it off."""
    clip_norm_type: Literal["2", "inf"] = field(default="2", metadata=ADDED_LATER)
    """That norm: 2, or inf for the largest absolute entry (SLATE)."""
    sigma_steps: int = 30_000
    """Steps over which the perturbation of the queries falls from 1 to 0 (half a cosine); 0 means none."""
    query_update: Literal["gradient", "running_mean", "kmeans"] = field(default="gradient", metadata=ADDED_LATER)
    """What moves learned queries (Table 17). running_mean, kmeans: after each step, the mean of each final slot over
    the batch, or the centres of clusters of all of them. Queries then have no gradient and no perturbation
    (`sigma_steps` plays no part), and start Xavier-normal."""
    query_momentum: float = field(default=1.0, metadata=ADDED_LATER)
    """Share of the new value when running_mean or kmeans move a query, in (0, 1]; 0.1 in the paper's rows "-M"."""
    consistency_weight: float = field(default=0.0, metadata=ADDED_LATER)
    """Weight of the loss ||sg(final slots) - initial slots||^2 (Table 17: 0.01, for learned queries); 0 means none."""
    flip: bool = field(default=False, metadata=ADDED_LATER)
    """Mirror half of the images, left to right. Off in the paper."""
    least_crop: float = field(default=1.0, metadata=ADDED_LATER)
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
    compile: bool = field(default=False, metadata=ADDED_LATER)
    """Compile the model with `torch.compile`, as one graph: for GPUs. Takes a minute or more before the first step, and
    a C++ compiler. Dropout then draws other numbers."""
    checkpoint_every: int = 5_000
    """Steps between checkpoints."""
    evaluate_every: int = 5_000
    """Steps between evaluations on the validation split."""
    keep_last: int = field(default=2, metadata=ADDED_LATER)
    """Checkpoints to keep that a run can go on from: `last`, the one before it as `last-1`, and so on. With 1 there is
    no other one when `last` is damaged."""
    nonfinite_patience: int = field(default=10, metadata=ADDED_LATER)
    """Steps in a row whose loss or gradient is not a number, and which are skipped, before the run stops; 0 skips none
    and stops at the first."""
    deterministic: bool = field(default=False, metadata=ADDED_LATER)
    """On a GPU, take algorithms alone that give the same bits each time, which are slower. A CPU does so anyway."""
    log_every: int = 100
    """Steps between lines of the log."""
    init_from: str | None = None
    """Run whose weights to start from, or one of its checkpoints: RUN/checkpoints/best_loss."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate"):
            at_least(self, name, 1)
        for name in ("checkpoint_every", "evaluate_every", "log_every", "keep_last"):
            at_least(self, name, 1)
        for name in ("warmup_steps", "half_life_steps", "sigma_steps", "patience", "threads", "clip_norm"):
            at_least(self, name, 0)
        for name in ("nonfinite_patience", "consistency_weight"):
            at_least(self, name, 0)
        within(self, "least_crop", 0.1, 1)
        for name in ("precision", "device", "clip_norm_type", "query_update"):
            one_of(self, name)
        above_zero(self, "query_momentum")
        within(self, "query_momentum", 0, 1)
        above_zero(self, "learning_rate")
        within_limits(self)
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
