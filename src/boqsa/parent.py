"""Processes that help another one end with it."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def end_with_the_parent() -> None:
    """What a helping process does first: Ctrl-C is the parent's to handle, and whatever ends the parent ends this one.

    The helper is ended in the middle of its work, so that must be nothing that a stop can hurt: reading, or files that
    appear whole (`boqsa.atomic`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
