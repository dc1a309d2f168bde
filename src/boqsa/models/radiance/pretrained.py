"""Two networks that were trained on ImageNet, for images that users bring weights for (uorf 14): VGG16's first ten
convolutions, for the perceptual loss, and AlexNet with the heads of LPIPS, for the metric.

Nothing is downloaded, and nothing falls back to random weights in silence: without its file a loss is refused, and a
metric is not computed. Files are state dictionaries with torchvision's names, or LPIPS' own for its heads.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from boqsa.errors import InputError, first_line

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's images in [0, 1]."""
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""Of LPIPS, for images in [-1, 1]."""


_LEAST_OF_LPIPS = 32
"""AlexNet's poolings need so many pixels."""


class PerceptualLoss(nn.Module):
    """`loss = PerceptualLoss(weights)(rendered, photographed)`: mean squared error of VGG16's features at conv4_3.

    Args:
        weights: A state dictionary of VGG16 with torchvision's names, `features.0.weight` and so on. None leaves the
            weights random, which is for tests alone.

    Raises:
        InputError: if a layer is missing, or has another shape.
    """

    def __init__(self, weights: Mapping[str, Tensor] | None) -> None:
        super().__init__()
        self.features = _vgg16_to_conv4_3()
        _take(self, weights, "VGG16")
        self.requires_grad_(False).eval()

    def forward(self, one: Float[Tensor, "n 3 H W"], other: Float[Tensor, "n 3 H W"]) -> Float[Tensor, ""]:
        """Of two lots of images in [0, 1]; gradients go to the images."""
        features = [self.features(_normalised(image, _MEAN, _STD)) for image in (one, other)]
        return nn.functional.mse_loss(*features)


class LPIPS(nn.Module):
    """`distance = LPIPS(weights)(rendered, photographed)`: how unlike images look, 0 for equal ones (AlexNet, v0.1).

    Args:
        weights: State dictionaries of AlexNet with torchvision's names and of the heads, `lin0.model.1.weight` to
            `lin4.model.1.weight`, in one. None leaves the weights random, which is for tests alone.

    Raises:
        InputError: if a layer is missing, or has another shape.
    """

    def __init__(self, weights: Mapping[str, Tensor] | None) -> None:
        super().__init__()
        self.features = _alexnet()
        widths = (64, 192, 384, 256, 256)
        for index, width in enumerate(widths):
            self.add_module(f"lin{index}", _Head(width))
        _take(self, weights, "AlexNet and the heads of LPIPS")
        self.requires_grad_(False).eval()

    def forward(self, one: Float[Tensor, "n 3 H W"], other: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n"]:
        """Of pairs of images in [0, 1]."""
        total = one.new_zeros(len(one))
        pairs = zip(self._layers(one), self._layers(other), strict=True)
        for index, (left, right) in enumerate(pairs):
            head = getattr(self, f"lin{index}")
            total = total + head((left - right).square()).mean(dim=(1, 2, 3))
        return total

    def _layers(self, image: Float[Tensor, "n 3 H W"]) -> list[Tensor]:
        """The activations after each convolution, of unit length at every place."""
        found, features = [], _normalised(2 * image - 1, _SHIFT, _SCALE)
        for layer in self.features:
            features = layer(features)
            if isinstance(layer, nn.ReLU):
                found.append(features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return found


def lpips_from(files: Sequence[str | Path], *, size: int) -> LPIPS:
    """The metric with the weights of some files, for views of `size` pixels.

    Raises:
        InputError: if the views are too small for it, or the files do not hold its weights.
    """
    if size < _LEAST_OF_LPIPS:
        raise InputError(
            f"LPIPS needs views of {_LEAST_OF_LPIPS} pixels, but evaluate.radiance.size is {size}; leave --lpips out."
        )
    return LPIPS(read_weights(*files))


class _Head(nn.Module):
    """A weight a channel; the name of the weight is LPIPS' own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.ModuleList([nn.Identity(), nn.Conv2d(width, 1, kernel_size=1, bias=False)])

    def forward(self, features: Float[Tensor, "n C h w"]) -> Float[Tensor, "n 1 h w"]:
        out: Tensor = self.model[1](features)
        return out


def read_weights(*paths: str | Path) -> dict[str, Tensor]:
    """State dictionaries of files, together: `.safetensors`, or what `torch.save` wrote, read without pickled code.

    Raises:
        InputError: if a file is absent, or holds something else.
    """
    found: dict[str, Tensor] = {}
    for path in map(Path, paths):
        try:
            is_safe = path.suffix == ".safetensors"
            weights = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; give a file of weights.") from None
        except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
            raise InputError(f"{path} is no file of weights ({first_line(error)}); give another.") from None
        except Exception as error:  # pickle's own errors, which name no common class
            raise InputError(
                f"{path} holds more than weights ({type(error).__name__}); give a state dictionary."
            ) from None
        if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise InputError(f"{path} is no state dictionary, names with tensors; save model.state_dict().")
        found |= weights
    return found


def digest(*paths: str | Path) -> str:
    """sha256 of files of weights, one after the other, for the record of a run."""
    found = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                found.update(block)
    return found.hexdigest()


def _take(module: nn.Module, weights: Mapping[str, Tensor] | None, what: str) -> None:
    """Load what the module has; what else the file has, as the layers that are not used, is left."""
    if weights is None:
        return
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise InputError(
            f"the weights have no {missing[0]} ({len(missing)} of {len(wanted)} are missing); give those of {what}, "
            "with torchvision's names."
        )
    for name, value in wanted.items():
        if weights[name].shape != value.shape:
            raise InputError(f"{name} has shape {tuple(weights[name].shape)}; {tuple(value.shape)} of {what} expected.")
    module.load_state_dict({name: weights[name] for name in wanted})


def _normalised(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (image - image.new_tensor(mean)[:, None, None]) / image.new_tensor(std)[:, None, None]


def _vgg16_to_conv4_3() -> nn.Sequential:
    """Layers 0 to 22 of torchvision's `features`."""
    layers: list[nn.Module] = []
    channels = 3
    for block, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3))):
        if block:
            layers.append(nn.MaxPool2d(2))
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _alexnet() -> nn.Sequential:
    """Layers 0 to 11 of torchvision's `features`."""
    return nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
    )
