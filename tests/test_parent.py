"""Helping processes do not outlive the one that they help, however it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

HELPED = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from boqsa.parent import end_with_the_parent

def work(place):
    place.joinpath("begun").write_text(str(os.getpid()))
    time.sleep(100)

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_the_parent) as pool:
        pool.submit(work, Path(sys.argv[1])).result()
"""


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()


def waited_for(what: str, condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="whether a process is there is read from /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_helper_ends_with_its_parent(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "helped.py"
    script.write_text(HELPED)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.DEVNULL)
    begun = tmp_path / "begun"
    waited_for("the helper did not begin", lambda: begun.exists() and begun.read_text())
    helper = int(begun.read_text())
    assert is_there(helper)
    parent.send_signal(number)
    assert parent.wait(timeout=60) == -number
    waited_for("the helper is still there", lambda: not is_there(helper))
