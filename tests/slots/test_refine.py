"""Three gradient schemes, one value. Oracles: the literal Algorithm 1 with its graph kept, and a foreign step."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from boqsa.slots import Gradient, SlotAttention, refine

SCHEMES: tuple[Gradient, ...] = ("unrolled", "implicit", "bilevel")


class Step(nn.Module):
    """A step that this package does not know: a linear map and a squashing."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.calls_with_graph = 0

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        self.calls_with_graph += int(torch.is_grad_enabled())
        return torch.tanh(self.linear(slots)), slots.softmax(dim=1)


@pytest.fixture
def step() -> Step:
    torch.manual_seed(0)
    return Step().double()


@pytest.fixture
def init() -> Tensor:
    return torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def literal_algorithm(
    step: Callable[[Tensor], tuple[Tensor, Tensor]], init: Tensor, iterations: int, scheme: str
) -> Tensor:
    """The published form: the graph of the early steps is built, then cut."""
    slots = init
    for _ in range(iterations - 1):
        slots, _ = step(slots)
    if scheme == "implicit":
        slots = slots.detach()
    if scheme == "bilevel":
        slots = slots.detach() + init - init.detach()
    return step(slots)[0]


@pytest.mark.parametrize("iterations", [1, 2, 3, 7])
def test_all_schemes_give_the_same_slots_and_attention(step: Step, init: Tensor, iterations: int) -> None:
    results = [refine(step, init, iterations=iterations, gradient=scheme) for scheme in SCHEMES]
    for slots, attention in results[1:]:
        assert torch.equal(slots, results[0][0])
        assert torch.equal(attention, results[0][1])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_gradients_equal_the_literal_algorithm(step: Step, init: Tensor, iterations: int, scheme: Gradient) -> None:
    wanted = torch.autograd.grad(
        literal_algorithm(step, init, iterations, scheme).square().sum(),
        [*step.parameters(), init],
        allow_unused=True,
    )
    found = torch.autograd.grad(
        refine(step, init, iterations=iterations, gradient=scheme)[0].square().sum(),
        [*step.parameters(), init],
        allow_unused=True,
    )
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_queries_get_the_gradient_of_the_last_steps_input(step: Step, init: Tensor) -> None:
    last_input = init.detach()
    for _ in range(2):
        last_input = step(last_input)[0].detach()
    last_input.requires_grad_()
    (wanted,) = torch.autograd.grad(step(last_input)[0].square().sum(), last_input)
    (found,) = torch.autograd.grad(refine(step, init, iterations=3, gradient="bilevel")[0].square().sum(), init)
    assert torch.equal(found, wanted)
    assert found.abs().min() > 0


def test_implicit_gives_the_queries_no_gradient_at_all(step: Step, init: Tensor) -> None:
    slots, _ = refine(step, init, iterations=3, gradient="implicit")
    assert torch.autograd.grad(slots.sum(), init, allow_unused=True) == (None,)


def test_early_steps_run_without_a_graph(step: Step, init: Tensor) -> None:
    refine(step, init, iterations=6, gradient="bilevel")
    assert step.calls_with_graph == 1
    refine(step, init, iterations=6, gradient="unrolled")
    assert step.calls_with_graph == 1 + 6


def test_graph_of_the_last_step_alone_is_kept() -> None:
    """What autograd saves for the backward pass does not grow with the number of steps, except when unrolled."""

    def saved_bytes(scheme: Gradient, iterations: int) -> int:
        attend = SlotAttention(16, 32)
        prepared = attend.prepare(torch.randn(2, 64, 16))
        init = torch.randn(2, 4, 16, requires_grad=True)
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            refine(lambda slots: attend.step(prepared, slots), init, iterations=iterations, gradient=scheme)
        return total

    assert saved_bytes("bilevel", 7) == saved_bytes("bilevel", 1)
    assert saved_bytes("implicit", 7) == saved_bytes("implicit", 1)
    assert saved_bytes("unrolled", 7) > 5 * saved_bytes("unrolled", 1)


def test_weights_get_their_gradient_under_autocast(init: Tensor) -> None:
    """Autocast caches weights that were cast without a graph; the last step must not take those."""
    torch.manual_seed(0)
    step = Step()
    with torch.autocast("cpu", torch.bfloat16):
        slots, _ = refine(step, init.detach().float(), iterations=3, gradient="bilevel")
    slots.sum().backward()
    assert step.linear.weight.grad is not None
    assert step.linear.weight.grad.abs().sum() > 0


def test_soft_k_means_of_a_stranger_finds_its_centres() -> None:
    """The example of the docstring: three clusters of points, a step of three lines that is not ours."""
    generator = torch.Generator().manual_seed(0)
    true_centres = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    points = (true_centres[:, None] + 0.3 * torch.randn(3, 50, 2, generator=generator)).flatten(0, 1)
    centres = torch.tensor([[1.0, 1.0], [4.0, 1.0], [1.0, 4.0]], requires_grad=True)

    def k_means_step(centres: Tensor) -> tuple[Tensor, Tensor]:
        shares = torch.cdist(points, centres).square().neg().softmax(dim=1)
        return (shares.T @ points) / shares.sum(dim=0)[:, None], shares

    found, shares = refine(k_means_step, centres, iterations=10, gradient="bilevel")
    torch.testing.assert_close(found.detach(), true_centres, atol=0.2, rtol=0)
    assert shares.shape == (150, 3)
    found.sum().backward()
    assert centres.grad is not None


def test_bad_arguments_are_refused_by_name(step: Step, init: Tensor) -> None:
    with pytest.raises(ValueError, match="iterations is 0"):
        refine(step, init, iterations=0, gradient="bilevel")
    with pytest.raises(Exception, match="gradient"):  # beartype's error in tests, ValueError for users
        refine(step, init, iterations=1, gradient="both")  # type: ignore[arg-type]
