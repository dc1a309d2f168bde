"""Steps that were skipped because loss or gradient was not a number: counted on the device, read when someone looks."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

_ALL, _IN_ROW, _SINCE_ROW, _LONGEST = range(4)


class SkippedSteps:
    """Counts skipped steps without making the host wait for the device.

    Args:
        device: Where the steps run.
        counts: What `state` gave before the run was resumed.
    """

    def __init__(self, device: torch.device, counts: Sequence[int] = (0, 0, 0, 0)) -> None:
        self._counts = torch.tensor(list(counts), dtype=torch.int64, device=device)

    def add(self, is_finite: Bool[Tensor, ""]) -> None:
        """Take in a step: whether its loss and its gradient were numbers."""
        skipped, counts = (~is_finite).long(), self._counts
        in_a_row = (counts[_IN_ROW] + 1) * skipped
        longest = torch.maximum(counts[_LONGEST], in_a_row)
        self._counts = torch.stack([counts[_ALL] + skipped, in_a_row, counts[_SINCE_ROW] + skipped, longest])

    def look(self) -> int:
        """The most skipped steps in a row since the last look, those that still last included."""
        longest = int(self._counts[_LONGEST])
        self._counts[_LONGEST] = self._counts[_IN_ROW]
        return longest

    def take(self) -> int:
        """How many were skipped since the last row of the log; counting begins anew."""
        skipped = int(self._counts[_SINCE_ROW])
        self._counts[_SINCE_ROW] = 0
        return skipped

    def forgive(self) -> None:
        """Count rows of skipped steps anew: for what goes on from here, after the run was stopped by them."""
        self._counts[_IN_ROW] = self._counts[_LONGEST] = 0

    @property
    def state(self) -> list[int]:
        """Skipped steps in all, in a row up to now, since the last row of the log, and most in a row since a look."""
        return [int(count) for count in self._counts.tolist()]
