"""From the tokens of an image to its slots: feature MLP, initial slots, refinement. Every model has one.

Shapes: B batch, N tokens, C token width, K slots, D slot size, M hidden size, T slot-attention steps.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from boqsa.slots import Gradient, IndependentGaussians, LearnedQueries, SharedGaussian, SlotAttention, refine
from boqsa.slots.attention import EpsilonForm, FoldedTokens, InitialWeights, KeysAndValues, KeysValues
from boqsa.slots.queries import Perturbation

Queries = Literal["learned", "shared_gaussian", "independent_gaussians"]


class SlotEncoder(nn.Module):
    """Feature MLP, queries and slot attention, run by `refine` (paper Algorithm 1, spec 1.2 to 1.7).

    Args:
        channels: C of the tokens that come in.
        num_slots: K.
        slot_size: D.
        mlp_size: Hidden width of the feature MLP and of slot attention's MLP.
        feature_mlp_size: Hidden width of the feature MLP where it is another one; None means `mlp_size`.
        iterations: Slot-attention steps, all counted (spec 1.5).
        queries: Where slots start (spec 1.7).
        gradient: How the backward pass sees the refinement (spec 1.6).
        perturbation: How noise enters learned queries.
        epsilon, epsilon_form, drop_path, initial_weights, keys_and_values: As in `SlotAttention`.

    Raises:
        ValueError: if a value is outside its range; the message names it.
    """

    def __init__(
        self,
        channels: int,
        num_slots: int,
        slot_size: int,
        mlp_size: int,
        *,
        iterations: int,
        queries: Queries,
        gradient: Gradient,
        perturbation: Perturbation,
        epsilon: float,
        epsilon_form: EpsilonForm,
        drop_path: float,
        initial_weights: InitialWeights,
        keys_and_values: KeysAndValues = "projected",
        feature_mlp_size: int | None = None,
    ) -> None:
        super().__init__()
        hidden = mlp_size if feature_mlp_size is None else feature_mlp_size
        self.iterations = iterations
        self.gradient: Gradient = gradient
        self.feature_mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, slot_size)
        )
        self.queries = _build_queries(queries, num_slots, slot_size, perturbation)
        self.slot_attention = SlotAttention(
            slot_size,
            mlp_size,
            epsilon=epsilon,
            epsilon_form=epsilon_form,
            drop_path=drop_path,
            initial_weights=initial_weights,
            keys_and_values=keys_and_values,
        )

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape, a sample, of the random numbers of one pass at the trained number of steps."""
        return {"queries": (self.queries.num_slots, self.queries.slot_size), "drop_path": (self.iterations,)}

    def initial_slots(
        self,
        batch_size: int,
        *,
        sigma: float = 0.0,
        noise: Float[Tensor, "B K D"] | None = None,
        num_slots: int | None = None,
        which_slots: Sequence[int] | None = None,
    ) -> Float[Tensor, "B K D"]:
        """Where slots start; arguments as for `LearnedQueries`."""
        initial: Tensor = self.queries(batch_size, sigma=sigma, noise=noise, num_slots=num_slots, which=which_slots)
        return initial

    def prepare(self, tokens: Float[Tensor, "B N C"]) -> KeysValues | FoldedTokens:
        """What every step needs of the tokens of an image (features with their position)."""
        return self.slot_attention.prepare(self.feature_mlp(tokens))

    def forward(
        self,
        prepared: KeysValues | FoldedTokens,
        initial: Float[Tensor, "B K D"],
        *,
        iterations: int | None = None,
        drop_path: Float[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K N"]]:
        """Refine initial slots on the tokens of an image.

        Args:
            prepared: From `prepare`.
            initial: From `initial_slots`.
            iterations: Steps; None means the trained number.
            drop_path: Uniform in [0, 1), one number a sample and step; None turns drop-path off.

        Returns:
            The final slots, and the attention of the last step, which sums to 1 over slots.

        Raises:
            ValueError: if there are not as many drop-path numbers as steps.
        """
        iterations = self.iterations if iterations is None else iterations
        draws = _draws_by_step(drop_path, iterations)
        return refine(
            lambda slots: self.slot_attention.step(prepared, slots, next(draws)),
            initial,
            iterations=iterations,
            gradient=self.gradient,
        )


def _draws_by_step(drop_path: Float[Tensor, "B T"] | None, iterations: int) -> Iterator[Tensor | None]:
    """The drop-path numbers of each step in turn."""
    if drop_path is None:
        return iter([None] * iterations)
    if drop_path.shape[1] != iterations:
        raise ValueError(f"noise.drop_path has {drop_path.shape[1]} columns; {iterations} iterations need as many.")
    return iter(drop_path.unbind(dim=1))


def _build_queries(
    queries: Queries, num_slots: int, slot_size: int, perturbation: Perturbation
) -> LearnedQueries | SharedGaussian | IndependentGaussians:
    match queries:
        case "learned":
            return LearnedQueries(num_slots, slot_size, perturbation=perturbation)
        case "shared_gaussian":
            return SharedGaussian(num_slots, slot_size)
        case "independent_gaussians":
            return IndependentGaussians(num_slots, slot_size)
        case _:
            raise ValueError(f"queries is {queries!r}; pass 'learned', 'shared_gaussian' or 'independent_gaussians'.")
