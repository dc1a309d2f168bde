"""The command line: one thin file a command, and no logic here that a user of the library would miss.

`boqsa --help` imports neither torch nor tyro; a command's module imports what it needs when it runs.
Exit codes: 0 done; 1 a check found something, some files were skipped, or a run of a sweep failed; 2 wrong usage or bad
input, said in one line; 3 a signal stopped a training, and the same command goes on with it.
"""

import difflib
import importlib
import io
import os
import sys

from boqsa.plain import printable

STOPPED = 3
"""Exit code of a training that a signal stopped; batch scripts put the job back into the queue on it."""

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Discover objects in rendered scenes, from nothing to a report, in minutes."),
    "train": ("train", "Train a recipe, or go on with a run."),
    "sweep": ("sweep", "Train recipes with several seeds and values, each in a process of its own."),
    "reproduce": ("reproduce", "A table, figure or claim of the paper: train, score, and compare with its numbers."),
    "evaluate": ("evaluate", "Score a run on a split, and write its report."),
    "transfer": ("transfer", "Score a run on other data sets, without training."),
    "runs": ("runs", "Compare the runs below a folder in a table."),
    "plot": ("plot", "Draw the learning curves of several runs together."),
    "segment": ("segment", "Split pictures into objects with a trained run."),
    "app": ("app", "Drop pictures on a page in the browser, see their slots, edit them."),
    "concepts": ("concepts", "Show what each slot of a run binds, as a page, and name slots."),
    "render": ("render", "Show the scene of one picture from other views, with a trained radiance model."),
    "export": ("export", "Write a trained model as an ONNX file, or one of torch.export."),
    "share": ("share", "Write a run as a folder for others, with a model card; upload it to the hub."),
    "bench": ("bench", "Time a recipe on this machine: speed, memory, share of what is possible."),
    "recipes": ("recipes", "List the recipes, or show one."),
    "data": ("data", "List, prepare, mimic, check and show data sets."),
    "convert": ("convert", "Turn a released checkpoint of the authors into a run."),
}
"""Command -> (module, one line of help)."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the return value is the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that is not UTF-8 must not end a command
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here and not at exit, where a closed pipe could no longer be caught
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        _write_no_more()
        return 1
    except OSError as error:  # such as a full disk below the file that stdout is
        _write_no_more()
        print(f"boqsa: {_in_one_line(error)}", file=sys.stderr)
        return 2


def _write_no_more() -> None:
    """What stdout still holds would fail once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] in ("--version", "-V"):
        print(_version())
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean `boqsa {close[0]}`?" if close else "`boqsa --help` lists the commands."
        print(f"boqsa: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2

    from boqsa.errors import BoqsaError

    try:
        code: int = importlib.import_module(f"boqsa.commands.{COMMANDS[name][0]}").main(rest)
    except BrokenPipeError:
        raise
    except (
        BoqsaError,
        OSError,
    ) as error:  # OSError: a full disk, a missing right; the machine's state, no bug
        print(f"boqsa {name}: {_in_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"boqsa {name}: stopped.", file=sys.stderr)
        return 1
    return code


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror + ("." if error.filename is None else f": {error.filename}."))
    # A name of a stranger's file may be in it, and terminals obey what cannot be printed.
    return "\n".join(map(printable, str(error).split("\n")))


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "boqsa: unsupervised object discovery with slots (BO-QSA, ICLR 2023)",
            "",
            "usage: boqsa COMMAND ...        boqsa COMMAND --help explains one",
            "",
            *lines,
            "",
            "  --version   versions of boqsa and torch, device and threads",
            "",
            "Start with `boqsa demo`.",
        ]
    )


def _version() -> str:
    import torch

    import boqsa

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    versions = f"boqsa {boqsa.__version__}, torch {torch.__version__}"
    return f"{versions}, device {device}, {torch.get_num_threads()} threads"
