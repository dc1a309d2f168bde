"""Slots that are radiance fields: uORF, and uORF with BO-QSA (paper section B.4, Table 19)."""

from boqsa.models.radiance.model import Found, RadianceModel, SceneOutput, Views, whole_view
from boqsa.models.radiance.rays import Frustum, Rays, azimuth_of, cast_rays

__all__ = [
    "Found",
    "Frustum",
    "RadianceModel",
    "Rays",
    "SceneOutput",
    "Views",
    "azimuth_of",
    "cast_rays",
    "whole_view",
]
