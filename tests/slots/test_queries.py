"""Where slots start: learned and sampled, perturbed and chosen (spec 1.7, 1.9)."""

import math

import pytest
import torch

from boqsa.slots import IndependentGaussians, LearnedQueries, SharedGaussian

NOISE = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))


def test_learned_queries_are_the_same_for_every_image() -> None:
    queries = LearnedQueries(3, 8)
    assert torch.equal(queries(4), queries.weight.expand(4, 3, 8))
    assert torch.equal(queries(4, sigma=0.0, noise=NOISE), queries(4))
    assert torch.equal(queries(4, sigma=1.0), queries(4))


def test_multiplicative_noise_is_scaled_by_the_query_and_invisible_to_its_gradient() -> None:
    queries = LearnedQueries(3, 8)
    perturbed = queries(4, sigma=0.5, noise=NOISE)
    torch.testing.assert_close(perturbed, queries.weight * (1 + 0.5 * NOISE))
    perturbed.sum().backward()
    assert torch.equal(queries.weight.grad, torch.full((3, 8), 4.0))  # as without noise: 1 an image


def test_additive_noise_has_variance_sigma() -> None:
    queries = LearnedQueries(3, 8, perturbation="additive")
    torch.testing.assert_close(queries(4, sigma=0.25, noise=NOISE), queries.weight + 0.5 * NOISE)


@pytest.mark.parametrize("kind", [SharedGaussian, IndependentGaussians])
def test_gaussians_are_reparametrised(kind: type[SharedGaussian] | type[IndependentGaussians]) -> None:
    queries = kind(3, 8)
    drawn = queries(4, noise=NOISE, sigma=0.7)  # sigma plays no part
    torch.testing.assert_close(drawn, queries.mu + queries.log_sigma.exp() * NOISE)
    drawn.sum().backward()
    assert queries.mu.grad is not None
    assert queries.log_sigma.grad is not None
    torch.manual_seed(3)
    first = queries(4)
    torch.manual_seed(3)
    assert torch.equal(first, queries(4))  # torch's own stream
    assert not torch.equal(first, queries(4))


def test_parameters_are_one_gaussian_or_one_each() -> None:
    assert SharedGaussian(3, 8).mu.shape == (1, 1, 8)
    assert IndependentGaussians(3, 8).mu.shape == (1, 3, 8)
    bound = math.sqrt(6 / (50 + 64))  # Xavier-uniform over the K x D matrix
    assert 0.95 * bound < LearnedQueries(50, 64).weight.abs().max() <= bound


def test_number_of_slots_changes_where_the_mathematics_allows_it() -> None:
    assert SharedGaussian(3, 8)(4, num_slots=7).shape == (4, 7, 8)
    learned = LearnedQueries(3, 8)
    assert torch.equal(learned(4, which=(2, 0)), learned.weight[[2, 0]].expand(4, 2, 8))
    assert learned(4, num_slots=3).shape == (4, 3, 8)
    for queries in (learned, IndependentGaussians(3, 8)):
        with pytest.raises(ValueError, match=r"num_slots is 7.*trained for 3 slots"):
            queries(4, num_slots=7)
        with pytest.raises(ValueError, match="choose among the 3"):
            queries(4, which=(0, 3))
    with pytest.raises(ValueError, match="no identity"):
        SharedGaussian(3, 8)(4, which=(0,))


def test_unknown_perturbation_is_refused() -> None:
    with pytest.raises(Exception, match="perturbation"):
        LearnedQueries(3, 8, perturbation="none")  # type: ignore[arg-type]
