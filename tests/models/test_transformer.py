"""The transformer model: sizes, ranges, dtypes, call-time choices, where gradients go, what slots alone decode to."""

import inspect
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from boqsa.models import Noise, TransformerModel

BATCH, SLOTS, VOCABULARY = 2, 3, 12


def tiny(seed: int = 0, **changes: object) -> TransformerModel:
    torch.manual_seed(seed)
    arguments: dict[str, object] = {
        "image_size": 16,
        "num_slots": SLOTS,
        "slot_size": 8,
        "mlp_size": 12,
        "vocab_size": VOCABULARY,
        "width": 8,
        "blocks": 2,
        "heads": 2,
        "encoder_channels": (6, 6),
        "encoder_strides": (1, 1),
        "dvae_channels": 8,
    }
    return TransformerModel(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.fixture
def image() -> Tensor:
    return torch.randint(0, 256, (BATCH, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def noise() -> Noise:
    generator = torch.Generator().manual_seed(2)
    soft, hard = torch.empty(2, BATCH, VOCABULARY, 4, 4).exponential_(generator=generator).log().neg()
    return Noise(
        queries=torch.randn(BATCH, SLOTS, 8, generator=generator),
        drop_path=torch.tensor([[0.0, 0.5, 0.9], [0.9, 0.1, 0.0]]),
        gumbel_soft=soft,
        gumbel_hard=hard,
    )


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor | None]:
    return [parameter.grad for parameter in parameters]


def test_constructor_and_call_are_those_that_were_promised() -> None:
    promised = {
        "image_size": 128,
        "num_slots": 3,
        "slot_size": 256,
        "mlp_size": 256,
        "vocab_size": 1024,
        "width": 256,
        "blocks": 4,
        "heads": 4,
        "dropout": 0.1,
        "dvae_kernel": 3,
        "encoder_channels": (64,) * 4,
        "encoder_strides": (1,) * 4,
        "iterations": 3,
        "queries": "learned",
        "gradient": "bilevel",
        "perturbation": "multiplicative",
        "epsilon": 1.0,
        "epsilon_form": "sum",
        "drop_path": 0.2,
        "initial_weights": "published",
    }
    _, *found = inspect.signature(TransformerModel.__init__).parameters.values()
    assert [(entry.name, entry.default) for entry in found[: len(promised)]] == list(promised.items())

    _, first, *options = inspect.signature(TransformerModel.forward).parameters.values()
    assert (first.name, first.default) == ("image", inspect.Parameter.empty)
    called = {entry.name: entry.default for entry in options}
    assert list(called.items())[:4] == [("iterations", None), ("sigma", 0.0), ("noise", None), ("tau", 0.1)]
    assert all(entry.kind is inspect.Parameter.KEYWORD_ONLY for entry in options)
    assert tuple(Noise()._asdict().items())[:4] == tuple(
        (name, None) for name in ("queries", "drop_path", "gumbel_soft", "gumbel_hard")
    )
    assert set(Noise()) == {None}


@pytest.mark.parametrize(("slots", "count"), [(3, 6_693_955), (2, 6_693_699), (6, 6_694_723), (12, 6_696_259)])
def test_number_of_parameters_is_the_published_one(slots: int, count: int) -> None:
    model = TransformerModel(num_slots=slots)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_output_has_the_documented_shapes_and_sums(image: Tensor) -> None:
    output = tiny()(image)
    assert output.reconstruction.shape == (2, 3, 16, 16)
    assert output.slot_reconstructions is None
    assert output.masks.shape == (2, 3, 1, 16, 16)
    assert output.slots.shape == output.initial_slots.shape == (2, 3, 8)
    assert output.attention.shape == (2, 3, 256)
    assert output.dvae_log_probs.shape == (2, 12, 4, 4)
    assert output.tokens.shape == (2, 4, 4)
    assert output.tokens.dtype == torch.long
    assert output.logits.shape == (2, 16, 12)
    torch.testing.assert_close(output.masks.sum(dim=1), torch.ones(2, 1, 16, 16))
    torch.testing.assert_close(output.dvae_log_probs.exp().sum(dim=1), torch.ones(2, 4, 4))
    assert torch.equal(output.masks.flatten(2), output.attention)


def test_losses_follow_their_conventions(image: Tensor) -> None:
    """Both summed over an image and averaged over the batch; images in [0, 1] (spec 3.5)."""
    output = tiny()(image)
    error = (output.reconstruction - image.float() / 255).square().sum() / 2
    chosen = output.logits.log_softmax(dim=-1).gather(2, output.tokens.flatten(1)[..., None])
    torch.testing.assert_close(output.losses["dvae"], error)
    torch.testing.assert_close(output.losses["cross_entropy"], -chosen.sum() / 2)
    assert list(output.losses) == ["dvae", "cross_entropy"]
    torch.testing.assert_close(output.loss, output.losses["dvae"] + output.losses["cross_entropy"])


@pytest.mark.parametrize(
    ("changes", "repeat"),
    [({"encoder_strides": (2, 1)}, 2), ({"encoder_strides": (2, 4)}, 8), ({"features": "tokens"}, 4)],
)
def test_masks_of_a_smaller_grid_are_repeated(image: Tensor, changes: dict[str, object], repeat: int) -> None:
    output = tiny(**changes)(image)
    side = 16 // repeat
    assert output.attention.shape == (2, 3, side**2)
    assert output.masks.shape == (2, 3, 1, 16, 16)
    for row, column in ((0, 0), (5, 11), (15, 15)):
        owner = output.attention[:, :, (row // repeat) * side + column // repeat]
        assert torch.equal(output.masks[:, :, 0, row, column], owner)


def test_bytes_and_unit_floats_are_the_same_image(image: Tensor) -> None:
    model = tiny().eval()
    bytes_in, floats_in = model(image), model(image.float() / 255)
    torch.testing.assert_close(floats_in.masks, bytes_in.masks, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(floats_in.loss, bytes_in.loss)


def test_without_noise_the_tokens_are_the_most_probable_ones(image: Tensor) -> None:
    model = tiny().eval()
    output = model(image, tau=0.7)
    assert torch.equal(output.tokens, output.dvae_log_probs.argmax(dim=1))
    soft = (output.dvae_log_probs / 0.7).softmax(dim=1)
    torch.testing.assert_close(output.reconstruction, model.dvae.decode(soft))


def test_each_noise_enters_from_outside_alone_and_where_it_belongs(image: Tensor, noise: Noise) -> None:
    model = tiny(dropout=0.0).train()
    silent = model(image, sigma=1.0)
    assert torch.equal(silent.logits, model(image).logits)
    full = model(image, sigma=0.5, noise=noise)
    assert torch.equal(full.logits, model(image, sigma=0.5, noise=noise).logits)

    soft = model(image, noise=Noise(gumbel_soft=noise.gumbel_soft))
    assert not torch.equal(soft.reconstruction, silent.reconstruction)
    assert torch.equal(soft.tokens, silent.tokens)
    hard = model(image, noise=Noise(gumbel_hard=noise.gumbel_hard))
    assert torch.equal(hard.reconstruction, silent.reconstruction)
    assert torch.equal(hard.tokens, (silent.dvae_log_probs + noise.gumbel_hard).argmax(dim=1))
    assert not torch.equal(hard.tokens, silent.tokens)
    perturbed = model(image, sigma=0.5, noise=Noise(queries=noise.queries))
    torch.testing.assert_close(perturbed.initial_slots, model.slot_encoder.queries.weight * (1 + 0.5 * noise.queries))
    dropped = model(image, noise=Noise(drop_path=noise.drop_path))
    assert not torch.equal(dropped.slots, silent.slots)
    assert torch.equal(model.eval()(image, noise=Noise(drop_path=noise.drop_path)).slots, silent.slots)


def test_noise_shapes_are_those_that_the_model_takes(image: Tensor) -> None:
    model = tiny()
    shapes = model.noise_shapes()
    assert tuple(shapes) == Noise._fields[:4]
    model(image, sigma=1.0, noise=Noise(**{name: torch.rand(BATCH, *shape) for name, shape in shapes.items()}))
    assert shapes["gumbel_hard"] == (12, 4, 4)


@pytest.mark.parametrize("features", ["image", "tokens"])
def test_neither_loss_sends_gradient_into_the_part_of_the_other(image: Tensor, noise: Noise, features: str) -> None:
    model = tiny(features=features)
    dvae = list(model.dvae.parameters())
    rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("dvae.")]
    model(image, noise=noise).losses["cross_entropy"].backward()
    assert all(gradient is None for gradient in gradients(dvae))
    assert all(gradient is not None for gradient in gradients(rest))
    model.zero_grad(set_to_none=True)
    model(image, noise=noise).losses["dvae"].backward()
    assert all(gradient is not None for gradient in gradients(dvae))
    assert all(gradient is None for gradient in gradients(rest))


@pytest.mark.parametrize("queries", ["learned", "shared_gaussian", "independent_gaussians"])
@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "bilevel"])
def test_six_variants_of_table_7_and_three_more_train(image: Tensor, noise: Noise, queries: str, gradient: str) -> None:
    model = tiny(queries=queries, gradient=gradient)
    model(image, noise=noise).loss.backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (gradient != "implicit" or not name.startswith("slot_encoder.queries")), name


@pytest.mark.parametrize(
    "changes", [{}, {"features": "tokens"}, {"gradient": "unrolled", "keys_and_values": "projected"}]
)
def test_recomputing_changes_no_bit(image: Tensor, noise: Noise, changes: dict[str, object]) -> None:
    found = []
    for recompute in (False, True):
        model = tiny(dropout=0.3, recompute=recompute, **changes).train()
        torch.manual_seed(3)  # of dropout
        output = model(image, sigma=0.5, noise=noise)
        output.loss.backward()
        found.append([output.reconstruction, output.logits, output.slots, output.masks, *gradients(model.parameters())])
    for kept, recomputed in zip(*found, strict=True):
        assert torch.equal(kept, recomputed)


def test_autocast_keeps_losses_masks_and_reconstruction_in_full_precision(image: Tensor, noise: Noise) -> None:
    model = tiny().eval()
    wanted = model(image, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(image, noise=noise)
    output.loss.backward()
    for tensor in (output.masks, output.slots, output.reconstruction, output.dvae_log_probs, output.logits):
        assert tensor.dtype == torch.float32
    for name, loss in output.losses.items():
        torch.testing.assert_close(loss, wanted.losses[name], atol=0, rtol=2e-2)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(model.parameters()))


@pytest.mark.parametrize("features", ["image", "tokens"])
def test_runs_in_double_precision(image: Tensor, noise: Noise, features: str) -> None:
    output = tiny(features=features).double()(image, sigma=0.5, noise=noise)
    for tensor in (output.masks, output.slots, output.reconstruction, output.dvae_log_probs, output.logits):
        assert tensor.dtype == torch.float64
    assert output.loss.dtype == torch.float64


def test_slots_and_iterations_change_at_call_time(image: Tensor) -> None:
    learned = tiny().eval()
    assert learned(image, which_slots=(2, 0)).masks.shape[1] == 2
    assert torch.equal(learned(image, which_slots=(2, 0)).initial_slots, learned(image).initial_slots[:, [2, 0]])
    three = learned(image)
    assert torch.equal(learned(image, iterations=3).slots, three.slots)
    for iterations in (1, 5):
        other = learned(image, iterations=iterations)
        torch.testing.assert_close(other.masks.sum(dim=1), torch.ones(2, 1, 16, 16))
        assert not torch.equal(other.slots, three.slots)
    with pytest.raises(ValueError, match="num_slots is 4"):
        learned(image, num_slots=4)
    assert tiny(queries="shared_gaussian")(image, num_slots=7).masks.shape[1] == 7
    with pytest.raises(ValueError, match="drop_path has 3 columns"):
        learned(image, iterations=5, noise=Noise(drop_path=torch.zeros(2, 3)))


def test_batch_does_not_matter(image: Tensor) -> None:
    model = tiny().double().eval()
    both, second = model(image), model(image[1:])
    torch.testing.assert_close(second.masks, both.masks[1:])
    torch.testing.assert_close(second.logits, both.logits[1:])


@pytest.mark.parametrize("was_training", [True, False])
def test_generating_leaves_the_model_as_it_was(was_training: bool) -> None:
    model = tiny(dropout=0.5).train(was_training)
    slots = torch.randn(2, 3, 8, requires_grad=True)
    generated = model.generate(slots)
    assert model.training == model.token_decoder.training == was_training
    assert generated.tokens.shape == (2, 4, 4)
    assert 0 <= int(generated.tokens.min()) <= int(generated.tokens.max()) < VOCABULARY
    assert not generated.image.requires_grad
    assert torch.equal(generated.image, model.dvae.decode_tokens(generated.tokens))
    assert torch.equal(generated.tokens, model.generate(slots).tokens)  # without dropout, in training too
    with pytest.raises(ValueError, match="temperature is -1"):
        model.generate(slots, temperature=-1.0)
    assert model.training == was_training


def test_cached_generation_is_the_uncached_one() -> None:
    model = tiny(seed=4).double()
    slots = torch.randn(3, 3, 8, dtype=torch.float64)
    for temperature in (0.0, 1.0):
        cached, uncached = (
            model.generate(slots, temperature=temperature, generator=torch.Generator().manual_seed(0), cached=cached)
            for cached in (True, False)
        )
        assert torch.equal(cached.tokens, uncached.tokens)
    assert not torch.equal(cached.tokens, model.generate(slots).tokens)


def test_teacher_forcing_decodes_the_most_probable_next_tokens(image: Tensor) -> None:
    model = tiny().eval()
    output = model(image)
    forced = model.teacher_forced(output)
    assert torch.equal(forced.tokens, output.logits.argmax(dim=-1).view(2, 4, 4))
    assert torch.equal(forced.image, model.dvae.decode_tokens(forced.tokens))
    assert not forced.image.requires_grad


def test_slots_alone_decode_to_the_image_that_they_were_made_from() -> None:
    """Three images of two flat colours each; after training, nothing but the slots enters `generate`."""
    colours = torch.tensor([[[1.0, 0, 0], [0, 0, 1]], [[0, 1, 0], [1, 1, 0]], [[1, 1, 1], [0, 0, 0]]])
    image = colours.mT.repeat_interleave(8, dim=2)[:, :, None].expand(-1, -1, 16, -1).contiguous()  # (3, 3, 16, 16)
    model = tiny(
        num_slots=2,
        slot_size=16,
        vocab_size=16,
        width=16,
        dropout=0.0,
        dvae_kernel=1,  # tokens see their own colour alone
        dvae_channels=32,
        encoder_channels=(8, 8),
    )
    dvae = list(model.dvae.parameters())
    rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("dvae.")]
    optimizer = torch.optim.Adam([{"params": dvae, "lr": 2e-3}, {"params": rest, "lr": 5e-3}])
    generator = torch.Generator().manual_seed(0)
    steps = 300
    for step in range(steps):
        gumbel = torch.empty(3, 16, 4, 4).exponential_(generator=generator).log().neg()
        output = model(image, noise=Noise(gumbel_soft=gumbel), tau=max(0.1, 1 - 2 * step / steps))
        optimizer.zero_grad()
        output.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        output = model(image)
        generated = model.generate(output.slots)
    assert len({tuple(tokens.flatten().tolist()) for tokens in output.tokens}) == 3  # or there is nothing to tell
    assert torch.equal(generated.tokens, output.tokens)
    assert float((generated.image - image).square().mean()) < 0.1 * float(image.var())
    torch.testing.assert_close(model.generate(output.slots[1:2]).tokens, output.tokens[1:2])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 18}, "image_size 18 is not divisible by 4"),
        ({"image_size": 0}, "image_size 0"),
        ({"features": "pixels"}, "features"),
        ({"encoder_strides": (1,)}, "encoder_channels has 2 entries and encoder_strides 1"),
        ({"encoder_channels": (), "encoder_strides": ()}, "encoder_channels has 0 entries"),
        ({"encoder_strides": (3, 1)}, "not divisible by the encoder's total stride 3"),
        ({"heads": 3}, "width 8 is not divisible by heads 3"),
        ({"dvae_kernel": 2}, "dvae_kernel is 2"),
        ({"queries": "random"}, "queries"),
        ({"gradient": "both"}, "gradient"),
        ({"keys_and_values": "none"}, "keys_and_values"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(Exception, match=named):
        tiny(**changes)(torch.zeros(1, 3, 16, 16))


def test_wrong_images_say_what_the_model_takes(image: Tensor) -> None:
    with pytest.raises(ValueError, match=r"image has shape \(2, 3, 20, 20\); expected \(batch, 3, 16, 16\)"):
        tiny()(torch.zeros(2, 3, 20, 20))
    with pytest.raises(Exception, match=r"uint8|UInt8|dtype"):
        tiny()(image.long())
