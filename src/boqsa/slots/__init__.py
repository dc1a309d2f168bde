"""The contribution of the paper, alone: slots that compete for tokens, learned queries, and bi-level refinement.

Pure PyTorch; nothing here imports the rest of the package, so that it can be lifted out. Read `refine.py` first:
it is the paper's idea; `updates.py` has what the paper compares it with. What does not live here: encoders, decoders,
losses of a model (see `boqsa.models`).
"""

from boqsa.slots.attention import KeysValues, SlotAttention
from boqsa.slots.queries import IndependentGaussians, LearnedQueries, SharedGaussian
from boqsa.slots.refine import Gradient, refine
from boqsa.slots.updates import KMeans, QueryUpdate, RunningMean, consistency_loss

__all__ = [
    "Gradient",
    "IndependentGaussians",
    "KMeans",
    "KeysValues",
    "LearnedQueries",
    "QueryUpdate",
    "RunningMean",
    "SharedGaussian",
    "SlotAttention",
    "consistency_loss",
    "refine",
]
