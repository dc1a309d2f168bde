"""How many CPU cores there are for a process, which decides how many others it starts."""

import os


def cores() -> int:
    """CPU cores that this process may use: a scheduler may have given it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
