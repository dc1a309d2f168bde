"""One step of slot attention against a loop over samples, slots and tokens, and its documented properties."""

import math

import pytest
import torch
from torch import Tensor

from boqsa.slots import SlotAttention


def make(**options: object) -> SlotAttention:
    torch.manual_seed(0)
    return SlotAttention(6, 10, **options).double()  # type: ignore[arg-type]


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, 9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def slots() -> Tensor:
    return torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def slow_step(attend: SlotAttention, tokens: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
    """The same step, one number at a time (spec 1.3)."""
    new, attention = torch.zeros_like(slots), torch.zeros(*slots.shape[:2], tokens.shape[1], dtype=slots.dtype)
    for b in range(len(tokens)):
        normalised = [attend.norm_tokens(token) for token in tokens[b]]
        keys = [attend.to_keys.weight @ token for token in normalised]
        values = [attend.to_values.weight @ token for token in normalised]
        queries = [attend.to_queries.weight @ attend.norm_slots(slot) for slot in slots[b]]
        for n, key in enumerate(keys):
            scores = [math.exp(float(query @ key) / math.sqrt(6)) for query in queries]
            for k, score in enumerate(scores):
                attention[b, k, n] = score / sum(scores)
        for k, slot in enumerate(slots[b]):
            shares = attention[b, k]
            if attend.epsilon_form == "entry":
                weights = (shares + attend.epsilon) / (shares + attend.epsilon).sum()
            else:
                weights = shares / (shares.sum() + attend.epsilon)
            update = sum(weight * value for weight, value in zip(weights, values, strict=True))
            hidden = attend.gru(update[None], slot[None])[0]
            new[b, k] = hidden + attend.mlp(attend.norm_mlp(hidden))
    return new, attention


@pytest.mark.parametrize("form", ["sum", "entry"])
@pytest.mark.parametrize("epsilon", [1.0, 1e-8])
def test_step_equals_the_slow_one(tokens: Tensor, slots: Tensor, form: str, epsilon: float) -> None:
    attend = make(epsilon=epsilon, epsilon_form=form)
    found, wanted = attend(tokens, slots), slow_step(attend, tokens, slots)
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=1e-12)


def test_epsilon_forms_agree_when_tiny_and_differ_at_one(tokens: Tensor, slots: Tensor) -> None:
    def run(form: str, epsilon: float) -> Tensor:
        result: Tensor = make(epsilon=epsilon, epsilon_form=form)(tokens, slots)[0]
        return result

    torch.testing.assert_close(run("sum", 1e-8), run("entry", 1e-8), rtol=0, atol=1e-6)
    assert (run("sum", 1.0) - run("entry", 1.0)).abs().max() > 1e-3


def test_sum_form_shrinks_the_mean_of_a_slot_that_owns_little(tokens: Tensor) -> None:
    """With mass m the update is m / (m + 1) of the weighted mean."""
    attend = make()
    attention = torch.rand(2, 3, 9, dtype=torch.float64)
    mass = attention.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(attend._weights(attention), attention / mass * (mass / (mass + 1)))


def test_attention_is_a_competition_between_slots(tokens: Tensor, slots: Tensor) -> None:
    _, attention = make()(tokens, slots)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2, 9, dtype=torch.float64))


def test_slots_are_exchangeable(tokens: Tensor, slots: Tensor) -> None:
    attend, order = make(), [2, 0, 1]
    slots_before, attention_before = attend(tokens, slots)
    slots_after, attention_after = attend(tokens, slots[:, order])
    torch.testing.assert_close(slots_after, slots_before[:, order])
    torch.testing.assert_close(attention_after, attention_before[:, order])


def test_prepared_keys_and_values_give_the_same_step(tokens: Tensor, slots: Tensor) -> None:
    attend = make()
    prepared = attend.prepare(tokens)
    assert torch.equal(attend.step(prepared, slots)[0], attend(tokens, slots)[0])


@pytest.mark.parametrize("form", ["sum", "entry"])
@pytest.mark.parametrize("token_size", [6, 11])
def test_folded_keys_and_values_give_the_same_values_and_gradients(slots: Tensor, form: str, token_size: int) -> None:
    found = []
    for keys_and_values in ("projected", "folded"):
        attend = make(keys_and_values=keys_and_values, epsilon_form=form, token_size=token_size)
        tokens = torch.randn(
            2, 9, token_size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        ).requires_grad_()
        start = slots.clone().requires_grad_()
        prepared, now = attend.prepare(tokens), start
        for _ in range(3):
            now, attention = attend.step(prepared, now, torch.tensor([0.1, 0.9]))
        (now.square().sum() + (attention * torch.arange(9)).square().sum()).backward()
        found.append([now, attention, tokens.grad, start.grad, *(parameter.grad for parameter in attend.parameters())])
    for projected, folded in zip(*found, strict=True):
        torch.testing.assert_close(folded, projected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [512, 300])
def test_groups_of_tokens_change_nothing(monkeypatch: pytest.MonkeyPatch, slots: Tensor, count: int) -> None:
    tokens = torch.randn(2, count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = []
    for group in (256, 10_000):  # with 300 tokens all are one group
        monkeypatch.setattr("boqsa.slots.attention._GROUP", group)
        attend = make(keys_and_values="folded")
        new, attention = attend(tokens, slots)
        found.append([new, attention, *torch.autograd.grad(new.square().sum(), (tokens, attend.to_values.weight))])
    for grouped, whole in zip(*found, strict=True):
        torch.testing.assert_close(grouped, whole, rtol=1e-12, atol=1e-12)


def test_folded_tokens_are_kept_once_and_not_projected(tokens: Tensor) -> None:
    attend = make(keys_and_values="folded")
    (kept,) = attend.prepare(tokens)
    assert torch.equal(kept, attend.norm_tokens(tokens))
    assert len(make(keys_and_values="projected").prepare(tokens)) == 2
    assert attend.state_dict().keys() == make().state_dict().keys()


def test_any_token_size(slots: Tensor) -> None:
    attend = make(token_size=11)
    assert attend(torch.randn(2, 9, 11, dtype=torch.float64), slots)[0].shape == (2, 3, 6)


def test_drop_path_follows_the_numbers_it_is_given(tokens: Tensor, slots: Tensor) -> None:
    attend = make(drop_path=0.5)
    prepared = attend.prepare(tokens)
    always = attend.step(prepared, slots)[0]
    drawn = attend.step(prepared, slots, torch.tensor([0.4, 0.5]))[0]
    hidden = make(drop_path=0.5)
    for parameter in hidden.mlp[2].parameters():
        parameter.data.zero_()
    without_mlp = hidden.step(prepared, slots)[0]
    torch.testing.assert_close(drawn[0], without_mlp[0])  # 0.4 < 0.5: the branch is dropped
    torch.testing.assert_close(drawn[1], without_mlp[1] + 2 * (always[1] - without_mlp[1]))  # kept, scaled by 1 / 0.5
    attend.eval()
    assert torch.equal(attend.step(prepared, slots, torch.tensor([0.4, 0.5]))[0], attend.step(prepared, slots)[0])


@pytest.mark.parametrize("keys_and_values", ["projected", "folded"])
def test_runs_in_the_dtype_of_its_parameters_under_autocast(
    tokens: Tensor, slots: Tensor, keys_and_values: str
) -> None:
    attend = make(keys_and_values=keys_and_values).float()
    outside = attend(tokens.float(), slots.float())
    with torch.autocast("cpu", torch.bfloat16):
        inside = attend(tokens.float(), slots.float())
    assert torch.equal(inside[0], outside[0])
    assert inside[1].dtype == torch.float32


def test_published_initial_weights() -> None:
    attend = SlotAttention(64, 128)
    assert attend.mlp[0].bias.abs().max() == 0
    assert attend.mlp[2].bias.abs().max() == 0
    assert attend.gru.bias_ih.abs().max() == 0
    assert attend.gru.bias_hh.abs().max() == 0
    for weight, fans in (
        (attend.to_keys.weight, 128),
        (attend.to_values.weight, 128),
        (attend.to_queries.weight, 128),
        (attend.mlp[2].weight, 192),
        (attend.gru.weight_ih, 256),
    ):
        bound = math.sqrt(6 / fans)
        assert 0.95 * bound < weight.abs().max() <= bound
    bound = math.sqrt(6 / 64)  # Kaiming for ReLU: fan-in 64
    assert 0.95 * bound < attend.mlp[0].weight.abs().max() <= bound
    torch.testing.assert_close(attend.gru.weight_hh.T @ attend.gru.weight_hh, torch.eye(64), atol=1e-4, rtol=0)
    assert SlotAttention(64, 128, initial_weights="torch").gru.bias_ih.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epsilon": -1.0}, "epsilon is -1"),
        ({"drop_path": 1.0}, "drop_path is 1"),
        ({"epsilon_form": "mean"}, "epsilon_form"),
        ({"initial_weights": "zeros"}, "initial_weights"),
        ({"keys_and_values": "none"}, "keys_and_values"),
    ],
)
def test_bad_constants_are_refused_by_name(options: dict[str, object], named: str) -> None:
    with pytest.raises(Exception, match=named):
        SlotAttention(6, 10, **options)  # type: ignore[arg-type]


def test_wrong_shapes_say_what_was_expected(slots: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, tokens, 6\)"):
        make().prepare(torch.randn(2, 9, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"expected \(batch, slots, 6\)"):
        make().step(
            make().prepare(torch.randn(2, 9, 6, dtype=torch.float64)), torch.randn(2, 3, 5, dtype=torch.float64)
        )
