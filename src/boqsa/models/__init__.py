"""Models a user can name, one file each. All take an image and return `Output`; none knows how it is trained."""

from boqsa.models.mixture import MixtureModel
from boqsa.models.output import Noise, Output
from boqsa.models.published import load_published
from boqsa.models.transformer import Generated, TransformerModel

__all__ = ["Generated", "MixtureModel", "Noise", "Output", "TransformerModel", "load_published"]
