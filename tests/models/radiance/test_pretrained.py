"""Networks that users bring weights for: their layers, and what is refused (uorf 14)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from boqsa.errors import InputError
from boqsa.models.radiance.pretrained import LPIPS, PerceptualLoss, digest, read_weights


def test_vgg_is_cut_after_conv4_3() -> None:
    loss = PerceptualLoss(None)
    convolutions = [index for index, layer in enumerate(loss.features) if isinstance(layer, nn.Conv2d)]
    assert convolutions == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21]
    assert len(loss.features) == 23
    assert loss.features(torch.zeros(1, 3, 64, 64)).shape == (1, 512, 8, 8)


def test_the_perceptual_loss_moves_images_and_not_the_network() -> None:
    loss, photograph = PerceptualLoss(None), torch.rand(1, 3, 16, 16)
    rendered = torch.rand(1, 3, 16, 16, requires_grad=True)
    loss(rendered, photograph).backward()
    assert rendered.grad is not None
    assert rendered.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())
    assert loss(photograph, photograph).item() == 0


def test_the_perceptual_loss_by_hand() -> None:
    """Normalised as ImageNet's images, ten convolutions with a pooling before the 3rd, 5th and 8th, mean of squares."""
    torch.manual_seed(0)
    loss, functional = PerceptualLoss(None), nn.functional
    weights = loss.state_dict()
    images, features = (torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)), []
    for image in images:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        found = (image - mean[:, None, None]) / std[:, None, None]
        for place, index in enumerate((0, 2, 5, 7, 10, 12, 14, 17, 19, 21)):
            found = functional.max_pool2d(found, 2) if place in (2, 4, 7) else found
            found = functional.conv2d(
                found, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1
            ).clamp(min=0)
        features.append(found)
    expected = sum((features[0] - features[1]).flatten().square()) / features[0].numel()
    torch.testing.assert_close(loss(*images), expected, rtol=1e-4, atol=0)  # two orders of float32 sums


def test_lpips_has_torchvisions_and_its_own_names() -> None:
    names = set(LPIPS(None).state_dict())
    convolutions = {f"features.{index}.{part}" for index in (0, 3, 6, 8, 10) for part in ("weight", "bias")}
    assert names == convolutions | {f"lin{index}.model.1.weight" for index in range(5)}


def test_lpips_by_hand_on_its_first_layer() -> None:
    torch.manual_seed(0)
    metric = LPIPS(None)
    for index in range(1, 5):
        nn.init.zeros_(getattr(metric, f"lin{index}").model[1].weight)
    one, other = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    unit = []
    for image in (one, other):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        scaled = ((2 * image - 1) - shift[:, None, None]) / scale[:, None, None]
        features = metric.features[0](scaled).relu()
        unit.append(nn.functional.normalize(features, dim=1))
    weight = metric.lin0.model[1].weight[0]
    expected = (weight * (unit[0] - unit[1]).square()).sum(1).mean((1, 2))
    torch.testing.assert_close(metric(one, other), expected, rtol=1e-4, atol=1e-7)
    assert metric(one, one).abs().max() == 0


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files_of_both_kinds_are_read_whole_networks_too(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    weights = {**PerceptualLoss(None).state_dict(), "classifier.0.weight": torch.zeros(2)}
    path = tmp_path / f"vgg{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    loss = PerceptualLoss(read_weights(path))
    torch.testing.assert_close(loss.state_dict()["features.21.weight"], weights["features.21.weight"])
    assert len(digest(path)) == 64
    assert digest(path) != digest(path, path)


def test_two_files_make_one_network(tmp_path: Path) -> None:
    weights = LPIPS(None).state_dict()
    network = {name: value for name, value in weights.items() if name.startswith("features")}
    heads = {name: value for name, value in weights.items() if name.startswith("lin")}
    torch.save(network, tmp_path / "alexnet.pth")
    torch.save(heads, tmp_path / "heads.pth")
    read = LPIPS(read_weights(tmp_path / "alexnet.pth", tmp_path / "heads.pth")).state_dict()
    assert all(torch.equal(read[name], value) for name, value in weights.items())


class _Other:
    """Something that a stranger's pickle could hold."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        (b"not a file of weights", "holds more than weights|is no file of weights"),
        ([torch.zeros(1)], "is no state dictionary"),
        (_Other(), "holds more than weights|is no file of weights"),
    ],
)
def test_what_is_no_weights_is_refused_in_a_line(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=words) as error:
        read_weights(path)
    assert "\n" not in str(error.value)


def test_missing_and_misshapen_layers_are_named() -> None:
    weights: dict[str, Tensor] = PerceptualLoss(None).state_dict()
    with pytest.raises(InputError, match=r"no features.21.weight \(2 of 20 are missing\)"):
        PerceptualLoss({name: value for name, value in weights.items() if "features.21" not in name})
    with pytest.raises(InputError, match=r"features.0.weight has shape \(1,\); \(64, 3, 3, 3\) of VGG16 expected"):
        PerceptualLoss({**weights, "features.0.weight": torch.zeros(1)})
