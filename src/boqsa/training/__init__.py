"""The training loop and what it needs: schedules, random numbers, checkpoints, log, evaluation, diagnostics.

It trains whatever returns `Output`. Where a transformer model has more than a mixture (temperatures, tokens, three
reconstructions), loop and evaluation ask for the kind of the model by name.
"""

from boqsa.training.evaluation import evaluate
from boqsa.training.loop import train

__all__ = ["evaluate", "train"]
