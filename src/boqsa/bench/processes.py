"""Work in a process of its own, which is fresh each time: its memory and its allocator are those of this work alone.

On Linux processes are forked from a server that has imported everything and done nothing: that saves seconds each time.
"""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from boqsa.errors import BoqsaError
from boqsa.training.faults import is_short_of_memory

Answer = TypeVar("Answer")


class OutOfMemoryError(BoqsaError):
    """A process asked for more memory than there is, or was killed for it."""


class ProcessDiedError(BoqsaError):
    """A process ended without an answer; what it had to say is on stderr."""


def in_own_process(work: Callable[..., Answer], *arguments: Any) -> Answer:
    """`work(*arguments)` in a new process; all of it must be picklable.

    Raises:
        BoqsaError: what the work raised of this kind; or one of the two above.
    """
    context = _context()
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sending, work, arguments), daemon=True)
    process.start()
    sending.close()
    try:
        answer, error = receiving.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise OutOfMemoryError("the process was killed, as Linux does where memory is short.") from None
        raise ProcessDiedError(f"a process that was measuring ended with exit code {process.exitcode}.") from None
    finally:
        process.kill()
        process.join()
        receiving.close()
    if error is not None:
        raise error
    result: Answer = answer
    return result


def _context() -> Any:
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["boqsa.bench.work"])
    return context


def _run(sending: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this process
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this is what may go
    outcome: tuple[Any, Exception | None]
    try:
        outcome = (work(*arguments), None)
    except (BoqsaError, OSError) as error:
        outcome = (None, error)
    except (MemoryError, RuntimeError) as error:
        if not is_short_of_memory(error):
            raise
        outcome = (None, OutOfMemoryError(f"{(str(error).splitlines() or ['no memory'])[0]}"))
    sending.send(outcome)
