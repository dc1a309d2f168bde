"""Models a user can name, one file each. All take an image and return `Output`; none knows how it is trained."""

from boqsa.models.mixture import MixtureModel
from boqsa.models.output import Noise, Output
from boqsa.models.published import load_published

__all__ = ["MixtureModel", "Noise", "Output", "load_published"]
