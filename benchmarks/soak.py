"""Break a training again and again, and compare its end with the unbroken one.

Processes are killed and terminated at random moments, limits make their disk full, and their newest checkpoint is
damaged between two of them. A run goes on until it is finished; then its weights, its other checkpoints and its log
(but for times) must be those of the reference, and another run begins, until the time is over.

    python benchmarks/soak.py --minutes 3 [--steps 240] [--seed 1] [--keep FOLDER]

Prints how many faults were survived, how many steps were lost to them, and how many bytes were different at the end.
Exit 0 if no run lost more than it may and no byte was different, else 1.
"""

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from boqsa.commands import main as boqsa
from boqsa.data.packing import write_packed
from boqsa.errors import RunError
from boqsa.inference.run import read_manifest
from boqsa.training.log import read_log
from boqsa.training.loop import state_of

EVERY = 10  # steps between checkpoints
BUG = 70  # exit code of a process that ended with a traceback
MARKS = {"kill": (-signal.SIGKILL,), "signal": (1, -signal.SIGTERM), "full disk": (2,), "damage": (0, -signal.SIGKILL)}
"""Exit codes by which a fault is known to have happened."""
EVENTS = ("started", "step", "evaluation", "diagnostics", "finished")
TIMES = ("images_per_second", "seconds")
FIELDS = {
    "data.image-size": 16,
    "model.num-slots": 3,
    "model.slot-size": 8,
    "model.mlp-size": 16,
    "model.encoder-channels": 8,
    "model.encoder-strides": 2,
    "model.decoder-channels": 8,
    "model.decoder-strides": 2,
    "train.threads": 1,
    "train.batch-size": 8,
    "train.warmup-steps": 4,
    "train.checkpoint-every": EVERY,
    "train.evaluate-every": 25,
    "train.log-every": 1,
}


def process(arguments: list[str], most_bytes: int | None, log: Path) -> None:
    """What runs in a process of its own: a command, on a disk where no file may be larger than that."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        code = boqsa(arguments)
    except BaseException:
        traceback.print_exc()
        code = BUG
    os._exit(code)


class Soak:
    """One run after another, and what happened to them."""

    def __init__(self, folder: Path, steps: int, chance: random.Random) -> None:
        self.folder, self.steps, self.chance = folder, steps, chance
        self.forks = multiprocessing.get_context("forkserver")
        self.forks.set_forkserver_preload(["boqsa.training", "boqsa.commands.train", "boqsa.commands.console"])
        self.survived: Counter[str] = Counter()
        self.most_lost: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.different = self.runs = 0
        self.counted = (0, 0)  # steps that had a row and that were saved, when lost ones were last counted
        self.largest = 0  # bytes of the largest file of a checkpoint
        generator = np.random.default_rng(0)
        splits = {
            name: (
                generator.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8),
                generator.integers(0, 3, (count, 16, 16), dtype=np.uint8),
            )
            for name, count in (("train", 48), ("val", 8))
        }
        words = {"name": "arrays", "source": "drawn", "licence": "none", "split_rule": "drawn"}
        write_packed(folder / "packed", splits, task="multi-object", **words)

    def command(self, run: Path) -> list[str]:
        fields = {"data.root": self.folder / "packed", "train.steps": self.steps, **FIELDS}
        typed = [part for name, value in fields.items() for part in (f"--{name}", str(value))]
        return ["train", "objectsroom_mixture_small", "--out", str(run), *typed]

    def start(self, run: Path, most_bytes: int | None = None) -> Any:
        begun = (run / "recipe.json").exists()
        # The same command and --resume mean the same; now this, then that.
        arguments = ["train", "--resume", str(run)] if begun and self.chance.random() < 0.5 else self.command(run)
        child = self.forks.Process(target=process, args=(arguments, most_bytes, self.folder / "stderr.txt"))
        child.start()
        return child

    def one_run(self, run: Path, until: float) -> bool:
        """Break a run until it is finished or the time is over; True if it is finished."""
        while time.monotonic() < until:
            fault = self.chance.choice(("kill", "kill", "kill", "signal", "full disk", "damage", "damage"))
            if fault == "damage":
                if not self.damage(run):
                    continue
                self.count_lost(run, "damage", EVERY + EVERY)  # that checkpoint is gone
            code = self.let_it_run(run, fault)
            if code == BUG:
                self.wrong.append(f"{fault}: a traceback, see {self.folder / 'stderr.txt'}")
                return True
            if code != 0:
                self.count_lost(run, "kill" if fault == "damage" else fault, EVERY)
            if code in MARKS[fault]:  # else the process was done before it came to that
                self.survived[fault] += 1
            if any(row["event"] == "finished" for row in read_log(run)) and code == 0:
                return True
        return False

    def count_lost(self, run: Path, fault: str, allowed: int) -> None:
        """Steps that were made, and that the next process has to make again."""
        there = state_of(run)
        now = reached(run), there[0] if there is not None else 0
        if now == self.counted:  # dead again before it changed anything
            return
        self.counted = now
        lost = now[0] - now[1]
        self.most_lost[fault] = max(self.most_lost[fault], lost)
        if lost > allowed:
            self.wrong.append(f"{fault}: {lost} steps were lost, {allowed} may be")

    def let_it_run(self, run: Path, fault: str) -> int:
        """Start a process, do to it what is to be done, and give its exit code."""
        most_bytes = self.chance.randint(600, self.largest - 1) if fault == "full disk" else None
        child = self.start(run, most_bytes)
        if fault in ("kill", "signal", "damage"):
            number = signal.SIGTERM if fault == "signal" else signal.SIGKILL
            at = reached(run) + self.chance.randint(0, 3 * EVERY)
            patience = time.monotonic() + 60
            while child.is_alive() and reached(run) < at and time.monotonic() < patience:
                time.sleep(0.002)
            time.sleep(self.chance.uniform(0, 0.03))
            if child.is_alive():
                os.kill(child.pid, number)
        child.join(120)
        code: int = child.exitcode
        return code

    def damage(self, run: Path) -> bool:
        """Flip a byte of the newest checkpoint, cut a file of it or delete one; False if it is the only whole one."""
        checkpoints = run / "checkpoints"
        for name in ("last", "last-1"):
            try:
                read_manifest(checkpoints / name)
            except RunError:
                return False
        path = self.chance.choice(sorted((checkpoints / "last").iterdir()))
        content = bytearray(path.read_bytes())
        how = self.chance.choice(("flip", "cut", "delete"))
        if how == "delete":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[: self.chance.randrange(len(content))])
        else:
            place = self.chance.randrange(len(content))
            content[place] ^= 1 << self.chance.randrange(8)
            path.write_bytes(content)
        return True

    def compare(self, reference: Path, run: Path) -> None:
        """Count the bytes and the rows that are not those of the reference.

        Without `last-1`: where a signal stopped a run, that is of the step at which it was stopped.
        """
        files = [
            path.relative_to(reference)
            for path in sorted((reference / "checkpoints").rglob("*"))
            if path.name in ("model.safetensors", "config.json") and path.parent.name != "last-1"
        ]
        for file in files:
            one = (reference / file).read_bytes()
            other = (run / file).read_bytes() if (run / file).exists() else b""
            unequal = sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
            self.different += unequal
            if unequal:
                self.wrong.append(f"{run.name}: {unequal} bytes of {file} are different")
        if rows(reference) != rows(run):
            self.wrong.append(f"{run.name}: the log is different")


def reached(run: Path) -> int:
    """The last step that has a row."""
    return max((row["step"] for row in read_log(run) if row["event"] == "step"), default=0)


def rows(run: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_log(run)
        if row["event"] in EVENTS
    ]


def main(minutes: float, steps: int, seed: int, folder: Path, say: Callable[..., None] = print) -> int:
    began = time.monotonic()
    soak = Soak(folder, steps, random.Random(seed))
    reference = folder / "reference"
    child = soak.forks.Process(target=process, args=(soak.command(reference), None, folder / "stderr.txt"))
    child.start()
    child.join()
    if child.exitcode != 0:
        say(f"the reference run ended with {child.exitcode}; see {folder / 'stderr.txt'}")
        return 1
    soak.largest = max(path.stat().st_size for path in (reference / "checkpoints" / "last").iterdir())
    say(f"reference: {steps} steps, a checkpoint every {EVERY}, seed {seed}", flush=True)
    while time.monotonic() < began + minutes * 60:
        run = folder / f"run{soak.runs}"
        before = soak.survived.total()
        if soak.one_run(run, began + minutes * 60):
            soak.runs += 1
            soak.compare(reference, run)
            say(
                f"run {soak.runs}: {soak.survived.total() - before} faults, "
                f"{soak.different} bytes different, {(time.monotonic() - began) / 60:.1f} minutes",
                flush=True,
            )
            shutil.rmtree(run)
        if soak.wrong:
            break
    kinds = ", ".join(f"{count} {name}" for name, count in soak.survived.items())
    lost = ", ".join(f"{count} after {name}" for name, count in soak.most_lost.items())
    say(f"faults survived: {soak.survived.total()} ({kinds}) in {soak.runs} finished runs")
    say(f"most steps lost at once: {lost} ({EVERY} may be, after damage to a checkpoint {2 * EVERY})")
    say(f"bytes different at the end: {soak.different}")
    for sentence in soak.wrong:
        say(f"WRONG: {sentence}")
    if not soak.runs:
        say("WRONG: no run came to its end; give it more time")
    return 1 if soak.wrong or not soak.runs else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--steps", type=int, default=240, help="of each run; fewer where the machine is slow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="new folder to work in, which stays; else a temporary one")
    chosen = parser.parse_args()
    if chosen.keep is not None:
        chosen.keep.mkdir(parents=True)
        sys.exit(main(chosen.minutes, chosen.steps, chosen.seed, chosen.keep))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(chosen.minutes, chosen.steps, chosen.seed, Path(temporary)))
