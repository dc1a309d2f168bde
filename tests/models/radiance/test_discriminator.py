"""The discriminator: published sizes, groups of views, equalised rates (uorf 7.1)."""

import math

import pytest
import torch

from boqsa.models.radiance.discriminator import Discriminator


def test_number_of_parameters_is_the_published_one() -> None:
    assert sum(parameter.numel() for parameter in Discriminator().parameters()) == 948_705


def test_sizes_go_from_66_to_4() -> None:
    network = Discriminator()
    features = network.stem(torch.zeros(1, 3, 64, 64))
    sides = [features.shape[-1]]
    for block in network.blocks:
        features = block(features)
        sides.append(features.shape[-1])
    assert sides == [66, 33, 16, 8, 4]


def test_a_group_sees_how_its_images_differ_and_another_group_does_not() -> None:
    torch.manual_seed(0)
    network, image = Discriminator(), torch.randn(8, 3, 64, 64)
    logits = network(image)
    other = image.clone()
    other[7] = torch.randn(3, 64, 64)
    changed = network(other)
    torch.testing.assert_close(changed[:4], logits[:4])
    assert (changed[4:7] - logits[4:7]).abs().min() > 0


def test_weights_are_scaled_when_used() -> None:
    torch.manual_seed(0)
    layer = Discriminator().stem
    assert layer.weight.std().item() == pytest.approx(1, rel=0.2)
    image = torch.randn(2, 3, 5, 5)
    plain = torch.nn.functional.conv2d(image, layer.weight / math.sqrt(3), padding=1)
    torch.testing.assert_close(layer(image), 1.4 * torch.nn.functional.leaky_relu(plain, 0.2))


@pytest.mark.parametrize(
    ("shape", "words"),
    [((4, 3, 32, 32), r"expected \(n, 3, 64, 64\)"), ((6, 3, 64, 64), "6 images do not form groups of 4")],
)
def test_other_images_are_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Discriminator()(torch.zeros(shape))
