"""The training loop and what it needs: schedules, random numbers, checkpoints, log, evaluation, diagnostics.

It trains whatever returns `Output`; nothing here knows what a mixture or a transformer decoder is.
"""

from boqsa.training.evaluation import evaluate
from boqsa.training.loop import train

__all__ = ["evaluate", "train"]
