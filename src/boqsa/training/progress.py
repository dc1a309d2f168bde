"""What a person sees of a run: a live bar on a terminal, one line a minute elsewhere; on stderr."""

import time
from types import TracebackType
from typing import Self, SupportsFloat

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 60.0
REFRESH_EVERY_S = 1.0


class RunProgress:
    """Shows loss, images a second and time left.

    Args:
        total: Steps of the run.
        start: Steps that were already done when it began.
        console: Where to write; by default stderr.
    """

    def __init__(self, total: int, start: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._total, self._start = total, start
        self._began = self._last_shown = time.monotonic()
        self._every = REFRESH_EVERY_S if self.console.is_terminal else LINE_EVERY_S
        self._bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.5f}"),
            TextColumn("{task.fields[rate]:.0f} images/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=total, completed=start, loss=float("nan"), rate=0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, done: int, *, loss: SupportsFloat, images_per_second: float) -> None:
        """Tell that `done` steps are finished; the loss is read from the device only when it is shown."""
        now = time.monotonic()
        if now - self._last_shown < self._every and done < self._total:
            return
        self._last_shown = now
        if self.console.is_terminal:
            self._bar.update(self._task, completed=done, loss=float(loss), rate=images_per_second)
            return
        minutes_left = (now - self._began) / max(done - self._start, 1) * (self._total - done) / 60
        self.say(
            f"step {done}/{self._total}  loss {float(loss):.5f}  {images_per_second:.0f} images/s  "
            f"{minutes_left:.1f} min left"
        )

    def say(self, sentence: str) -> None:
        """One line of text, above the bar if there is one."""
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)
