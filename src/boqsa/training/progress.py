"""What a person sees of a run: a live bar on a terminal, one line a minute elsewhere. On stderr, so stdout stays clean."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 60.0


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
        self._began = self._last_line = time.monotonic()
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

    def step(self, done: int, *, loss: float, images_per_second: float) -> None:
        """Tell that `done` steps are finished."""
        if self.console.is_terminal:
            self._bar.update(self._task, completed=done, loss=loss, rate=images_per_second)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S or done == self._total:
            left = (now - self._began) / max(done - self._start, 1) * (self._total - done)
            self.say(
                f"step {done}/{self._total}  loss {loss:.5f}  {images_per_second:.0f} images/s  {left / 60:.1f} min left"
            )
            self._last_line = now

    def say(self, sentence: str) -> None:
        """One line of text, above the bar if there is one."""
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)
