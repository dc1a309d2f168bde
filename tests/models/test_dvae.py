"""The discrete VAE: sizes, samples, and what its two kernels see."""

import pytest
import torch

from boqsa.models.dvae import DVAE, hard_sample, soft_sample


@pytest.fixture
def dvae() -> DVAE:
    torch.manual_seed(0)
    return DVAE(12).double()


def test_parameters_of_both_papers() -> None:
    def count(dvae: DVAE) -> list[int]:
        return [sum(p.numel() for p in part.parameters()) for part in (dvae.encoder, dvae.decoder)]

    assert count(DVAE(1024, kernel=1)) == [95_104, 190_531]  # baselines 3.16
    assert count(DVAE(1024, kernel=3)) == [95_104 + 6 * 64 * 64 * 8, 190_531 + 64 * 64 * 8]


def test_a_token_of_slate_sees_its_own_patch_alone() -> None:
    """GroupNorm's statistics aside, which are of the whole image: they are replaced by fixed ones here."""
    for kernel, reaches in ((1, False), (3, True)):
        torch.manual_seed(0)
        dvae = DVAE(12, kernel).double()
        for module in dvae.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda features: features  # type: ignore[method-assign]
        image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
        changed = image.clone()
        changed[:, :, 4:8, 4:8] = 0
        moved = (dvae(image) != dvae(changed)).any(dim=1)[0]  # (4, 4)
        assert bool(moved[1, 1])
        moved[1, 1] = False
        assert bool(moved.any()) == reaches


def test_log_probabilities_sum_to_one(dvae: DVAE) -> None:
    log_probs = dvae(torch.rand(2, 3, 16, 24, dtype=torch.float64))
    assert log_probs.shape == (2, 12, 4, 6)
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(2, 4, 6, dtype=torch.float64))


def test_looking_tokens_up_is_decoding_their_one_hot_codes(dvae: DVAE) -> None:
    tokens = torch.randint(0, 12, (2, 4, 6))
    codes = torch.nn.functional.one_hot(tokens, 12).permute(0, 3, 1, 2).double()
    torch.testing.assert_close(dvae.decode_tokens(tokens), dvae.decode(codes))
    assert dvae.decode(codes).shape == (2, 3, 16, 24)


def test_samples_follow_the_probabilities() -> None:
    """A Gumbel arg max draws from the distribution: 20,000 cells of one distribution, three standard errors."""
    wanted = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(1, 4, 100, 200, generator=generator, dtype=torch.float64)
    tokens = hard_sample(wanted.log().view(1, 4, 1, 1).expand(1, 4, 100, 200), -(-uniform.log()).log())
    found = tokens.flatten().bincount(minlength=4) / 20_000
    assert ((found - wanted).abs() < 3 * (wanted * (1 - wanted) / 20_000).sqrt()).all()


def test_temperature_sharpens_the_soft_sample(dvae: DVAE) -> None:
    log_probs = dvae(torch.rand(1, 3, 16, 16, dtype=torch.float64))
    warm, cold = soft_sample(log_probs, 1.0, None), soft_sample(log_probs, 1e-4, None)
    torch.testing.assert_close(warm, log_probs.exp())
    assert torch.equal(cold.argmax(dim=1), hard_sample(log_probs, None))
    assert cold.amax(dim=1).min() > warm.amax(dim=1).max()


def test_tokens_carry_no_gradient(dvae: DVAE) -> None:
    log_probs = dvae(torch.rand(1, 3, 16, 16, dtype=torch.float64))
    assert not hard_sample(log_probs, None).requires_grad
    assert soft_sample(log_probs, 0.5, None).requires_grad


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="dvae_kernel is 2"):
        DVAE(12, kernel=2)
