"""For `torch.hub.load("OWNER/REPOSITORY", "boqsa", "RUN or owner/name@revision")`: `boqsa.load`, and nothing else."""

import sys
from pathlib import Path

try:
    from boqsa.inference.load import load as _load
except ImportError:  # the repository was downloaded and not installed
    sys.path.insert(0, str(Path(__file__).parent / "src"))
    from boqsa.inference.load import load as _load

dependencies = ["torch", "numpy", "scipy", "jaxtyping", "safetensors", "huggingface_hub", "PIL", "filelock"]


def boqsa(path_or_hub_id, checkpoint="last"):
    """A trained model in eval mode, as `boqsa.load` gives it.

    Args:
        path_or_hub_id: A run folder, a folder of `boqsa share`, or a name on the hub, best pinned: owner/name@revision.
        checkpoint: Of a run folder: "last", "best_loss" or "best_<metric>".
    """
    return _load(path_or_hub_id, checkpoint=checkpoint)
