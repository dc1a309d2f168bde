"""Bars on stderr for what takes a while, and what ends it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def rendering() -> Iterator[Callable[[int, int], None]]:
    """Yield the `progress` of `open_split`; the bar is shown only if there is something to render."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("rendering scenes", total=None, visible=False)

        def advance(done: int, total: int) -> None:
            if not console.is_terminal and done < total and done <= 1024:
                console.print(f"rendering {total} scenes (once; they are kept in the cache)", highlight=False)
            bar.update(task, completed=done, total=total, visible=True)

        yield advance


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that is told (done, in all); on a terminal it moves a bar, elsewhere it says nothing."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that what is half-made or kept for a while is removed."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
