"""One optimiser step of a recipe: images and noise in, Adam's update out. The loop repeats it, a benchmark times it.

Notable choices:
- Every random draw comes from (seed, step, position in the batch), so no random state has to be saved.
- Learning rates, sigma and tau are functions of the step, set before each.
- Dropout alone draws from torch's own stream, which is seeded from (seed, step, position) before each forward pass.
- Nothing is read from the device: what a step gives is left there. A step whose loss or gradient is not a number is
  skipped there too, by the optimiser's kernel: weights, moments and step counts stay as they were.
- Each process takes an equal share of the batch, in order of rank; it draws what belongs to those places.
- Where something else than the optimiser moves the queries (paper section B.3, Table 17; spec 6), it does so after the
  optimiser's step, from the final slots of the whole batch. There the host waits for the device; nowhere else.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boqsa.data import PackedDataset
from boqsa.metrics.matching import cheapest_matching
from boqsa.models import Noise, Output, TransformerModel
from boqsa.models.published import Model
from boqsa.models.radiance import RadianceModel
from boqsa.recipes import Recipe, TrainRecipe
from boqsa.slots import KMeans, LearnedQueries, QueryUpdate, RunningMean, consistency_loss
from boqsa.training.augment import augment
from boqsa.training.data import StepImages
from boqsa.training.draws import (
    batch_indices,
    clusters_seed,
    draw_crops,
    draw_gumbel,
    draw_noise,
    draw_patch_orders,
    dropout_seed,
)
from boqsa.training.features import input_column
from boqsa.training.machine import keep_freed_memory, require_compiler, sent
from boqsa.training.processes import agreement_group, all_have, any_process, join_processes
from boqsa.training.schedules import gumbel_tau, learning_rate_factor, query_sigma


class TrainImages(Protocol):
    """What a step takes its images from; `boqsa.training.data.StepImages` is one."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | Int[np.ndarray, "B"]) -> Tensor:
        """The images of these indices, uint8 (B, 3, H, W), or what else the model takes, on the device."""


class StepResult(NamedTuple):
    """What a step gives, left on the device."""

    loss: Float[Tensor, ""]
    """Mean over the batch."""
    norm: Float[Tensor, ""]
    """Of the gradient, before clipping."""
    parts: dict[str, Tensor]
    """Parts of the loss, if it has several."""
    is_finite: Bool[Tensor, ""]
    """Whether loss and norm are numbers; where one is not, the step was skipped."""
    query_norm: Float[Tensor, ""] | None
    """Of the learned queries' gradient, before clipping; None without learned queries."""


class TrainStep:
    """Model and optimiser of a recipe, on its device.

    Args:
        recipe: What to train, and where. Its number of CPU threads becomes torch's.
        model: Of this recipe, on the CPU; moved to the device and trained in place.

    Raises:
        RecipeError: if this machine, or this build of torch, lacks the device; or if the batch cannot be shared
            equally by the processes of the job; or if there is nothing to compile the model with.
    """

    def __init__(self, recipe: Recipe, model: Model) -> None:
        self.recipe, self.plain_model = recipe, model
        settings = recipe.train
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.fabric = join_processes(recipe)
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._query_update = _query_update(settings)
        if self._query_update is not None:
            _learned_queries(model).weight.requires_grad_(False)
        self.groups = _parameter_groups(model, settings)
        # The fused kernel updates all parameters in one pass; on a CPU the plain one costs a tenth of a step.
        optimizer = torch.optim.Adam(
            [{"params": group.parameters} for group in self.groups], lr=settings.learning_rate, fused=True
        )
        forward: nn.Module = model
        if settings.compile:
            require_compiler()
            # One graph or an error: what falls out of the graph would be slow in silence.
            forward = torch.compile(model, fullgraph=True)  # type: ignore[assignment]  # it gives a module for a module
        # Where there are several processes, what they exchange stays outside of the graph.
        self.model, self.optimizer = self.fabric.setup(forward, optimizer, _reapply_compile=False)
        self._agreement = agreement_group(self.fabric)
        self._found_inf = torch.zeros((), device=self.device)
        if settings.nonfinite_patience:
            # What torch's GradScaler sets: where it is 1, the fused kernel changes nothing, and the host need not know.
            self.optimizer.optimizer.found_inf = self._found_inf
        if self.device.type == "cpu":
            keep_freed_memory()

    @property
    def device(self) -> torch.device:
        """Where model and images are."""
        return self.fabric.device

    def images(self, data: PackedDataset) -> TrainImages:
        """A split as the steps take it."""
        return StepImages(data, self.device, column=input_column(self.plain_model))

    def __call__(self, images: TrainImages, step: int, *, rate_factor: float = 1.0) -> StepResult:
        """Make the step of this number, counted from 0; `rate_factor` multiplies all learning rates."""
        recipe, settings = self.recipe, self.recipe.train
        share = settings.batch_size // self.fabric.world_size
        piece = share // settings.accumulate
        begin = self.fabric.global_rank * share
        indices = batch_indices(recipe.seed, step, settings.batch_size, len(images))
        sums: dict[str, Tensor] = {}
        final_slots: list[Tensor] = []
        self.optimizer.zero_grad(set_to_none=True)
        for first in range(begin, begin + share, piece):
            positions = range(first, first + piece)
            # Gradients of earlier pieces are added up in each process; the last one sends the sum to the others.
            to_come = first + piece < begin + share
            with self.fabric.no_backward_sync(self.model, enabled=to_come and self.fabric.world_size > 1):
                output = self.forward(images, indices[first : first + piece], step, positions)
                if settings.consistency_weight:
                    output = _with_consistency(output, settings.consistency_weight)
                if self._query_update is not None:
                    final_slots.append(output.slots.detach())
                losses = {"": output.loss, **output.losses}
                del output  # only what the backward pass needs may stand beside it
                self.fabric.backward(losses[""] / settings.accumulate)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() / settings.accumulate
            del losses
        loss, parts = self._means(sums)
        query_norm = _query_norm(self.plain_model)
        norm = nn.utils.clip_grad_norm_(
            self.plain_model.parameters(),
            settings.clip_norm or float("inf"),  # clips nothing and still measures the norm
            norm_type=float(settings.clip_norm_type),
        )
        for entry, group in zip(self.optimizer.param_groups, self.groups, strict=True):
            entry["lr"] = group.learning_rate * self.rate_factor(group, step) * rate_factor
        is_finite = loss.isfinite() & norm.isfinite()
        self._found_inf.copy_(~is_finite)
        self.optimizer.step()
        if self._query_update is not None:
            self._move_queries(self._query_update, torch.cat(final_slots), step, is_finite)
        return StepResult(loss, norm, parts, is_finite, query_norm)

    def forward(self, images: TrainImages, indices: Int[np.ndarray, "b"], step: int, positions: range) -> Output:
        """What the model makes of some samples of a step.

        Args:
            images: To take them from.
            indices: Of the samples.
            step: Its number.
            positions: Places of the samples in the global batch.
        """
        options = self.options(step)
        image = self._prepared(images.batch(indices), step, positions)
        noise = self._noise(step, positions, perturb_queries=options["sigma"] > 0)
        if isinstance(self.plain_model, TransformerModel):
            torch.manual_seed(dropout_seed(self.recipe.seed, step, positions[0]))
        output: Output = self.model(image, noise=noise, **options)
        return output

    def rate_factor(self, group: "ParameterGroup", step: int) -> float:
        """What multiplies the learning rate of some parameters at a step."""
        return learning_rate_factor(step, warmup_steps=group.warmup_steps, half_life_steps=group.half_life_steps)

    def more_state(self) -> dict[str, Any]:
        """What a later process needs beside the weights and the optimiser; plain data and tensors."""
        return {}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what `more_state` gave."""

    def options(self, step: int) -> dict[str, float]:
        """What the model is told at a step: `sigma`, and of a transformer model `tau`."""
        settings = self.recipe.train
        sigma_steps = 0 if self._query_update is not None else settings.sigma_steps  # spec 6.1
        options = {"sigma": query_sigma(step, sigma_steps=sigma_steps)}
        if isinstance(self.plain_model, TransformerModel):
            dvae = settings.dvae
            options["tau"] = gumbel_tau(step, tau_start=dvae.tau_start, tau_end=dvae.tau_end, tau_steps=dvae.tau_steps)
        return options

    def more_norms(self) -> dict[str, float]:
        """Gradient norms of the latest step that the log has beside the whole model's."""
        return {}

    def rates(self) -> dict[str, float]:
        """The learning rates of the latest step, as the log names them."""
        return {
            f"learning_rate{group.suffix}": entry["lr"]
            for group, entry in zip(self.groups, self.optimizer.param_groups, strict=True)
        }

    def any_process(self, asks: bool) -> bool:
        """Whether any process of the job says so; all are told the same, at the same step."""
        return any_process(asks, self._agreement)

    def all_have(self, number: int) -> bool:
        """Whether all processes of the job have the same number; they wait for each other."""
        return all_have(number, self._agreement)

    def own_stream(self) -> AbstractContextManager[None]:
        """Where the model drops out, it draws from torch's own stream: the caller gets it back as it was."""
        if not isinstance(self.plain_model, TransformerModel):
            return nullcontext()
        return torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else [])

    @torch.no_grad()
    def _move_queries(
        self, update: QueryUpdate, final_slots: Float[Tensor, "b K D"], step: int, is_finite: Bool[Tensor, ""]
    ) -> None:
        """Set the queries to what an update makes of them and of the final slots of this process's share."""
        weight = _learned_queries(self.plain_model).weight
        if self.fabric.world_size > 1:
            gathered = self.fabric.all_gather(final_slots)  # (processes, b, K, D)
            assert isinstance(gathered, Tensor)
            final_slots = gathered.flatten(0, 1)  # (B, K, D), in order of rank, as the batch is shared
        if is_finite:
            weight.copy_(update(weight, final_slots, seed=clusters_seed(self.recipe.seed, step)))
        if self.fabric.world_size > 1:
            # Between unlike machines rounding could decide for another cluster: all take the first one's.
            torch.distributed.broadcast(weight, src=0)

    def _means(self, sums: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over the whole batch, and its parts if there are several."""
        if self.fabric.world_size > 1:
            means = self.fabric.all_reduce(torch.stack(list(sums.values())), reduce_op="mean")
            assert isinstance(means, Tensor)
            sums = dict(zip(sums, means.unbind(), strict=True))
        loss = sums.pop("")
        return loss, sums if len(sums) > 1 else {}

    def _prepared(self, image: Tensor, step: int, positions: Sequence[int]) -> Tensor:
        """Images as the recipe changes and lays them out; features have no layout."""
        settings = self.recipe.train
        if settings.flip or settings.least_crop < 1:
            draws = draw_crops(seed=self.recipe.seed, step=step, positions=positions)
            image = augment(image, sent(draws, self.device), flip=settings.flip, least_crop=settings.least_crop)
        if settings.channels_last and image.dim() == 4:
            return image.contiguous(memory_format=torch.channels_last)
        return image

    def _noise(self, step: int, positions: Sequence[int], *, perturb_queries: bool) -> Noise:
        """The random numbers of some samples of a step, on the device."""
        recipe, shapes = self.recipe, self.plain_model.noise_shapes()
        noise = draw_noise(
            shapes,
            seed=recipe.seed,
            step=step,
            positions=positions,
            perturb_queries=perturb_queries or recipe.model.queries != "learned",
        )
        noise = Noise(*(None if tensor is None else sent(tensor, self.device) for tensor in noise))
        if "gumbel_soft" in shapes:
            soft, hard = draw_gumbel(
                shapes["gumbel_soft"], seed=recipe.seed, step=step, positions=positions, device=self.device
            )
            noise = noise._replace(gumbel_soft=soft, gumbel_hard=hard)
        if "patch_order" in shapes:
            orders = draw_patch_orders(seed=recipe.seed, step=step, positions=positions)
            noise = noise._replace(patch_order=sent(orders, self.device))
        return noise


def _query_update(settings: TrainRecipe) -> QueryUpdate | None:
    """What moves the queries; None where the optimiser does."""
    match settings.query_update:
        case "running_mean":
            return RunningMean(settings.query_momentum)
        case "kmeans":
            return KMeans(settings.query_momentum, match=cheapest_matching)
        case _:
            return None


def _learned_queries(model: Model) -> LearnedQueries:
    queries = model.slot_encoder.queries
    assert isinstance(queries, LearnedQueries)  # the recipe has seen to it
    return queries


def _with_consistency(output: Output, weight: float) -> Output:
    """With one more loss, which is in `output.loss` as it stands here: times its weight."""
    consistency = weight * consistency_loss(output.slots, output.initial_slots)
    return output._replace(losses={**output.losses, "consistency": consistency})


def _query_norm(model: Model) -> Float[Tensor, ""] | None:
    """Norm of the gradient that reaches the learned queries; exactly 0 where none does: under `implicit`, and where
    something else than the optimiser moves them."""
    queries = getattr(getattr(model, "slot_encoder", None), "queries", None)
    if not isinstance(queries, LearnedQueries):
        return None
    gradient = queries.weight.grad
    return queries.weight.new_zeros(()) if gradient is None else gradient.norm()


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate and its schedule."""

    suffix: str
    """Of the rate's name in the log."""
    parameters: list[nn.Parameter]
    learning_rate: float
    warmup_steps: int
    half_life_steps: int


def _parameter_groups(model: Model, settings: TrainRecipe) -> list[ParameterGroup]:
    """All parameters that have a gradient; those of a dVAE (spec 5.2), and of the background of a radiance model, may
    have a rate of their own."""
    rate, schedule = settings.learning_rate, (settings.warmup_steps, settings.half_life_steps)
    dvae, background_rate = settings.dvae, settings.radiance.background_rate
    apart: list[ParameterGroup] = []
    if isinstance(model, TransformerModel):
        own = list(model.dvae.parameters())
        apart.append(ParameterGroup("_dvae", own, dvae.learning_rate, dvae.warmup_steps, dvae.half_life_steps))
    if isinstance(model, RadianceModel) and background_rate != 1:
        own = list(model.background_field.parameters())
        apart.append(ParameterGroup("_background", own, rate * background_rate, *schedule))
    taken = {id(parameter) for group in apart for parameter in group.parameters}
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in taken]
    return [ParameterGroup("", rest, rate, *schedule), *apart]
