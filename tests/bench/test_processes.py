"""Answers and accidents of a process of its own."""

import os
import signal

import pytest

from boqsa.bench.processes import OutOfMemoryError, ProcessDiedError, in_own_process
from boqsa.errors import InputError, RecipeError
from boqsa.inference.load import load
from boqsa.recipes import get_recipe


def test_the_answer_comes_back_from_another_process() -> None:
    assert in_own_process(get_recipe, "demo") == get_recipe("demo")
    first, second = in_own_process(os.getpid), in_own_process(os.getpid)
    assert len({first, second, os.getpid()}) == 3


def test_a_mistake_of_the_user_stays_what_it_is() -> None:
    with pytest.raises(RecipeError, match="there is no recipe 'nothing'"):
        in_own_process(get_recipe, "nothing")
    with pytest.raises(InputError, match="is a file"):
        in_own_process(load, __file__)
    with pytest.raises(FileNotFoundError) as error:
        in_own_process(os.listdir, "/nowhere")
    assert error.value.filename == "/nowhere"


def test_too_little_memory() -> None:
    with pytest.raises(OutOfMemoryError, match="was killed"):
        in_own_process(signal.raise_signal, signal.SIGKILL)
    with pytest.raises(OutOfMemoryError):
        in_own_process(bytearray, 1 << 60)


def test_a_process_that_ends_by_itself() -> None:
    with pytest.raises(ProcessDiedError, match="exit code 3"):
        in_own_process(os._exit, 3)


def test_a_bug_ends_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProcessDiedError, match="exit code 1"):
        in_own_process(int, "no number")
