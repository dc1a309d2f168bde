"""Models a user can name, one file each. All take an image and return `Output`; none knows how it is trained."""

from boqsa.models.features import FeaturesModel
from boqsa.models.mixture import MixtureModel
from boqsa.models.output import Noise, Output
from boqsa.models.pretrained_vit import PretrainedViT
from boqsa.models.published import load_published
from boqsa.models.transformer import Generated, TransformerModel

__all__ = [
    "FeaturesModel",
    "Generated",
    "MixtureModel",
    "Noise",
    "Output",
    "PretrainedViT",
    "TransformerModel",
    "load_published",
]
