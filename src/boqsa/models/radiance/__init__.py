"""Slots that are radiance fields: uORF, and uORF with BO-QSA (paper section B.4, Table 19)."""

from boqsa.models.radiance.model import RadianceModel, all_pixels
from boqsa.models.radiance.rays import Frustum, Rays, azimuth_of, cast_rays
from boqsa.models.radiance.scene import Found, Occupancy, SceneOutput, Seen, Views, photographs

__all__ = [
    "Found",
    "Frustum",
    "Occupancy",
    "RadianceModel",
    "Rays",
    "SceneOutput",
    "Seen",
    "Views",
    "all_pixels",
    "azimuth_of",
    "cast_rays",
    "photographs",
]
