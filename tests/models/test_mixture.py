"""The mixture model: sizes, ranges, dtypes, call-time choices, and its errors."""

import pytest
import torch
from torch import Tensor

from boqsa.models import MixtureModel, Noise


def tiny(**changes: object) -> MixtureModel:
    torch.manual_seed(0)
    arguments: dict[str, object] = {
        "image_size": 16,
        "num_slots": 3,
        "slot_size": 8,
        "mlp_size": 12,
        "encoder_channels": (6, 6),
        "encoder_strides": (1, 1),
        "decoder_channels": (6,),
        "decoder_strides": (2,),
    }
    return MixtureModel(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.fixture
def image() -> Tensor:
    return torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("slots", "count"), [(5, 898_756), (8, 898_948), (7, 898_884), (11, 899_140)])
def test_number_of_parameters_is_the_published_one(slots: int, count: int) -> None:
    model = MixtureModel(num_slots=slots)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_output_has_the_documented_shapes_and_sums(image: Tensor) -> None:
    output = tiny()(image)
    assert output.reconstruction.shape == (2, 3, 16, 16)
    assert output.slot_reconstructions.shape == (2, 3, 3, 16, 16)
    assert output.masks.shape == (2, 3, 1, 16, 16)
    assert output.slots.shape == output.initial_slots.shape == (2, 3, 8)
    assert output.attention.shape == (2, 3, 256)
    torch.testing.assert_close(output.masks.sum(dim=1), torch.ones(2, 1, 16, 16))
    torch.testing.assert_close(output.attention.sum(dim=1), torch.ones(2, 256))
    assert torch.equal(output.segmentation(), output.masks[:, :, 0].argmax(dim=1))


def test_reconstruction_and_loss_follow_their_conventions(image: Tensor) -> None:
    """In [0, 1] units; the loss is the mean squared error of the images in [-1, 1] (spec 2.5)."""
    output = tiny()(image)
    mixed = (output.slot_reconstructions * output.masks).sum(dim=1)
    torch.testing.assert_close(output.reconstruction, mixed)
    error = (output.reconstruction - image.float() / 255).square().mean()
    torch.testing.assert_close(output.losses["reconstruction"], 4 * error)
    assert torch.equal(output.loss, output.losses["reconstruction"])


def test_bytes_and_unit_floats_are_the_same_image(image: Tensor) -> None:
    model = tiny().eval()
    torch.testing.assert_close(model(image).masks, model(image.float() / 255).masks, atol=1e-6, rtol=1e-5)
    assert model.double()(image).reconstruction.dtype == torch.float64


def test_loss_is_there_in_eval_mode_and_full_precision_under_autocast(image: Tensor) -> None:
    model = tiny().eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(image)
    assert output.loss.dtype == output.masks.dtype == output.reconstruction.dtype == torch.float32
    torch.testing.assert_close(output.loss, model(image).loss, atol=1e-2, rtol=1e-2)


def test_noise_enters_from_outside_alone(image: Tensor) -> None:
    model = tiny().train()
    assert torch.equal(model(image, sigma=1.0).masks, model(image).masks)
    noise = Noise(queries=torch.randn(2, 3, 8), drop_path=torch.zeros(2, 3))
    perturbed = model(image, sigma=0.5, noise=noise)
    torch.testing.assert_close(perturbed.initial_slots, model.slot_encoder.queries.weight * (1 + 0.5 * noise.queries))
    assert not torch.equal(perturbed.slots, model(image, sigma=0.5, noise=noise._replace(drop_path=None)).slots)
    assert torch.equal(perturbed.masks, model(image, sigma=0.5, noise=noise).masks)


@pytest.mark.parametrize("queries", ["learned", "shared_gaussian", "independent_gaussians"])
@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "bilevel"])
def test_six_variants_of_table_7_and_three_more_train(image: Tensor, queries: str, gradient: str) -> None:
    model = tiny(queries=queries, gradient=gradient)
    model(image).loss.backward()
    starts = {
        name: parameter.grad for name, parameter in model.named_parameters() if name.startswith("slot_encoder.queries")
    }
    for gradient_of_start in starts.values():
        reached = gradient_of_start is not None and bool(gradient_of_start.abs().sum() > 0)
        assert reached == (gradient != "implicit")
    assert all(
        parameter.grad is not None
        for name, parameter in model.named_parameters()
        if not name.startswith("slot_encoder.queries")
    )


def test_slots_and_iterations_change_at_call_time(image: Tensor) -> None:
    learned = tiny().eval()
    fewer = learned(image, which_slots=(2, 0))
    assert fewer.masks.shape[1] == 2
    assert not torch.equal(learned(image, iterations=1).slots, learned(image, iterations=5).slots)
    with pytest.raises(ValueError, match="num_slots is 4"):
        learned(image, num_slots=4)
    assert tiny(queries="shared_gaussian")(image, num_slots=7).masks.shape[1] == 7
    with pytest.raises(ValueError, match="drop_path has 3 columns"):
        learned(image, iterations=5, noise=Noise(drop_path=torch.zeros(2, 3)))


def test_batch_does_not_matter(image: Tensor) -> None:
    model = tiny().eval()
    both = model(image)
    torch.testing.assert_close(model(image[1:]).masks, both.masks[1:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 20}, "image_size is 20"),
        ({"decoder_strides": (3,)}, "must each be 1 or 2"),
        ({"encoder_strides": (1,)}, "encoder_channels has 2 entries and encoder_strides 1"),
        ({"encoder_strides": (3, 1)}, "not divisible"),
        ({"queries": "random"}, "queries"),
        ({"gradient": "both"}, "gradient"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(Exception, match=named):
        tiny(**changes)(torch.zeros(1, 3, 16, 16))


def test_wrong_images_say_what_the_model_takes(image: Tensor) -> None:
    with pytest.raises(Exception, match=r"16, 16|shape"):
        tiny()(torch.zeros(2, 3, 17, 16))
    with pytest.raises(Exception, match=r"uint8|UInt8|dtype"):
        tiny()(image.long())
