"""The exceptions a user's mistake raises. Everything else that escapes is a bug and keeps its traceback.

Every message says what was found, what was expected, and what to type next. The command line prints it in a
line or two and exits with 2; nothing was written under a final name when one of these is raised.
"""

import shlex
from pathlib import Path


class BoqsaError(Exception):
    """A mistake that the user can mend: the root of the exceptions below."""


class InputError(BoqsaError):
    """A file, folder or array from outside is missing, broken, or not what was expected."""


class RecipeError(BoqsaError):
    """A recipe or one of its fields has a wrong name, type or value."""


class RunError(BoqsaError):
    """A run folder is missing, finished, of another recipe, or damaged."""


class BusyError(RunError):
    """Another process is training this run, or holds what only one may change: the same command may do later."""


class MachineError(RunError):
    """What a run executes on is in trouble: a full disk, too little memory, a process of the job that died.

    It concerns the process that raises it; in a job of several the others may know nothing of it.
    """


class FullDiskError(MachineError):
    """No space is left to write to; once some is freed, the same command goes on."""


def as_typed(path: str | Path) -> str:
    """A path as it is typed on a command line: in quotes where the shell would take it for something else."""
    return shlex.quote(str(path))


def first_line(error: Exception) -> str:
    """What an error of another package says first, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
