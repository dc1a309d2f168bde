"""A trained model in people's hands: load a run, segment pictures, convert the authors' checkpoints.

Nothing here trains. A run folder alone is enough for everything in this package.
"""

from boqsa.inference.load import load

__all__ = ["load"]
