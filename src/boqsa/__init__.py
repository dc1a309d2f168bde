"""Unsupervised object discovery with slots: "Improving Object-Centric Learning with Query Optimization" (ICLR 2023).

An image goes in, slots compete for it, and every pixel comes out owned by a slot. Start with
`boqsa.Segmenter.from_pretrained("RUN or hub id")`, `boqsa.models.MixtureModel`, or `boqsa.slots.refine`.
Importing `boqsa` is cheap: torch is imported only when a name that needs it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boqsa.inference.load import load as load
    from boqsa.inference.segment import Segmenter as Segmenter

__version__: str
"""The version of the installed package, from the git tag that it was built at."""

__all__ = ["Segmenter", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("boqsa")
        except PackageNotFoundError:  # a source tree that nobody installed, as torch.hub fetches it
            return "0.0.0+unknown"
    if name == "load":
        from boqsa.inference.load import load

        return load
    if name == "Segmenter":
        from boqsa.inference.segment import Segmenter

        return Segmenter
    raise AttributeError(f"module 'boqsa' has no attribute {name!r}")
