"""The features model: sizes, sums, gradients, what it refuses, and its encoder, which is never part of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boqsa.errors import InputError
from boqsa.models import FeaturesModel, Noise, PretrainedViT


def tiny(**changes: object) -> FeaturesModel:
    torch.manual_seed(0)
    arguments: dict[str, object] = {
        "image_size": 16,
        "patch_size": 4,
        "feature_size": 16,
        "num_slots": 3,
        "slot_size": 8,
        "mlp_size": 12,
        "decoder_size": 20,
        "decoder_layers": 2,
        "blocks": 2,
        "heads": 2,
    }
    return FeaturesModel(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("decoder", ["mlp", "autoregressive"])
def test_output_has_the_documented_shapes_and_sums(features: Tensor, decoder: str) -> None:
    output = tiny(decoder=decoder)(features)
    assert output.reconstruction is None
    assert output.slot_reconstructions is None
    assert output.feature_reconstruction.shape == features.shape
    assert output.masks.shape == (2, 3, 1, 16, 16)
    assert output.slots.shape == output.initial_slots.shape == (2, 3, 8)
    assert output.attention.shape == (2, 3, 16)
    torch.testing.assert_close(output.masks.sum(dim=1), torch.ones(2, 1, 16, 16))
    torch.testing.assert_close(output.attention.sum(dim=1), torch.ones(2, 16))
    torch.testing.assert_close(output.loss, (output.feature_reconstruction - features).square().mean())
    assert output.segmentation().shape == (2, 16, 16)


def test_masks_are_the_shares_of_the_patches_in_their_places(features: Tensor) -> None:
    """Enlarged bilinearly, a pixel in the middle of a patch has that patch's share: rows first."""
    model = tiny(patch_size=1, image_size=4)
    output = model(features)
    shares = model.decoder(output.slots)[1]
    torch.testing.assert_close(output.masks[:, :, 0], shares.view(2, 3, 4, 4))


@pytest.mark.parametrize("decoder", ["mlp", "autoregressive"])
def test_masks_of_another_size_are_enlarged_in_one_step(features: Tensor, decoder: str) -> None:
    """Field protocol: from the grid of patches straight to the size of the true masks."""
    model = tiny(decoder=decoder)
    output = model(features, mask_size=(30, 41))
    shares = model.decoder(output.slots, *([features] if decoder == "autoregressive" else []))[1].view(2, 3, 4, 4)
    expected = torch.nn.functional.interpolate(shares, (30, 41), mode="bilinear")
    torch.testing.assert_close(output.masks[:, :, 0], expected)
    twice = torch.nn.functional.interpolate(model(features).masks[:, :, 0], (30, 41), mode="bilinear")
    assert not torch.isclose(expected, twice, atol=1e-4).all(), "not by way of the image's size"


def test_the_published_size() -> None:
    """Baselines 7.1: LayerNorm, F -> F -> D; slots as elsewhere with MLP 4 D; the decoder has its own test."""
    with torch.device("meta"):
        model = FeaturesModel()
    mlp = [tuple(layer.weight.shape) for layer in model.slot_encoder.feature_mlp if hasattr(layer, "weight")]
    assert mlp == [(768,), (768, 768), (256, 768)]
    assert tuple(model.slot_encoder.slot_attention.mlp[0].weight.shape) == (1024, 256)
    assert (model.grid, model.num_slots, model.iterations) == (14, 7, 3)
    attention = model.slot_encoder.slot_attention
    assert (attention.epsilon, attention.epsilon_form, attention.drop_path) == (1e-8, "entry", 0.0)


@pytest.mark.parametrize("decoder", ["mlp", "autoregressive"])
def test_every_weight_learns_and_the_features_do_not(features: Tensor, decoder: str) -> None:
    features.requires_grad_(False)
    model = tiny(decoder=decoder)
    model(features, noise=Noise(patch_order=torch.tensor([0.1, 0.5]))).loss.backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


def test_implicit_gives_the_queries_no_gradient(features: Tensor) -> None:
    model = tiny(gradient="implicit")
    model(features).loss.backward()
    assert model.slot_encoder.queries.weight.grad is None


def test_half_precision_features_are_taken_and_the_loss_stays_whole(features: Tensor) -> None:
    model = tiny().eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(features.half())
    assert output.loss.dtype == output.masks.dtype == output.feature_reconstruction.dtype == torch.float32
    torch.testing.assert_close(output.loss, model(features).loss, atol=2e-2, rtol=2e-2)
    assert model.double()(features).masks.dtype == torch.float64


def test_only_a_decoder_with_several_orders_draws_one(features: Tensor) -> None:
    assert "patch_order" not in tiny().noise_shapes()
    assert "patch_order" not in tiny(decoder="autoregressive", random_orders=False).noise_shapes()
    model = tiny(decoder="autoregressive")
    assert model.noise_shapes()["patch_order"] == ()
    rows, spiral = (model(features, noise=Noise(patch_order=torch.full((2,), draw))).loss for draw in (0.0, 0.99))
    assert torch.equal(rows, model(features).loss)
    assert not torch.equal(spiral, rows)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"patch_size": 5}, "image_size 16 is no whole number of patches of patch_size 5 pixels"),
        ({"decoder": "autoregressive", "heads": 3}, "width 16 is not divisible by heads 3"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tiny(**changes)


def test_features_of_another_size(features: Tensor) -> None:
    with pytest.raises(ValueError, match=r"features have shape \(2, 15, 16\); expected \(batch, 16, 16\)"):
        tiny()(features[:, :15])


def test_images_need_the_encoder_and_then_are_their_features(encoder_folder: Path) -> None:
    encoder = PretrainedViT.from_folder(encoder_folder)
    model = tiny(encoder=str(encoder_folder), encoder_sha256=encoder.sha256).eval()
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with pytest.raises(InputError, match=r"only after model.use_encoder\(.*; its encoder was .*vit"):
        model(image)
    model.use_encoder(encoder)
    assert torch.equal(model(image).masks, model(encoder(image)).masks)
    assert torch.equal(model(image).masks, model(image).masks)
    with pytest.raises(ValueError, match=r"image has shape \(2, 3, 8, 16\)"):
        model(image[:, :, :8])


def test_the_encoder_is_no_part_of_the_model(encoder_folder: Path) -> None:
    model = tiny()
    names, count = set(model.state_dict()), len(list(model.parameters()))
    model.use_encoder(PretrainedViT.from_folder(encoder_folder))
    assert set(model.state_dict()) == names
    assert len(list(model.parameters())) == count
    assert not any(isinstance(part, PretrainedViT) for part in model.modules())


def test_another_encoder_is_refused(encoder_folder: Path, make_encoder: Callable[..., Path]) -> None:
    other = PretrainedViT.from_folder(make_encoder(seed=1))
    model = tiny(encoder="mine", encoder_sha256=PretrainedViT.from_folder(encoder_folder).sha256)
    with pytest.raises(InputError, match=r"has weights of sha256 \w{12}\.\.\.; the model .*; its encoder was mine"):
        model.use_encoder(other)
    wider = PretrainedViT.from_folder(make_encoder(hidden_size=24))
    with pytest.raises(InputError, match="has patches of 4 pixels and 24 features; the model was made for 4 and 16"):
        model.use_encoder(wider)
    assert not model.has_encoder
