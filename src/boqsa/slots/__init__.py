"""The contribution of the paper, alone: slots that compete for tokens, learned queries, and bi-level refinement.

Pure PyTorch; nothing here imports the rest of the package, so that it can be lifted out. Read `refine.py` first:
it is the paper's idea. What does not live here: encoders, decoders, losses (see `boqsa.models`).
"""

from boqsa.slots.attention import KeysValues, SlotAttention
from boqsa.slots.queries import IndependentGaussians, LearnedQueries, SharedGaussian
from boqsa.slots.refine import Gradient, refine

__all__ = [
    "Gradient",
    "IndependentGaussians",
    "KeysValues",
    "LearnedQueries",
    "SharedGaussian",
    "SlotAttention",
    "refine",
]
