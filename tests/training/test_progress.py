"""One line a minute where there is no terminal; a bar where there is one."""

import io

import pytest
from rich.console import Console

from boqsa.training.progress import RunProgress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("boqsa.training.progress.time.monotonic", clock)
    return clock


class Unread:
    """A loss that must not be read: on a GPU that would wait for the step."""

    def __float__(self) -> float:
        raise AssertionError("the loss was read though nothing is shown")


def test_one_line_a_minute_with_loss_speed_and_time_left(clock: Clock) -> None:
    text = io.StringIO()
    with RunProgress(100, 0, Console(file=text, width=200)) as progress:
        for done in range(1, 41):
            clock.now = 100.0 + 5 * done
            shown = done % 12 == 0
            progress.step(done, loss=0.5 if shown else Unread(), images_per_second=12.0)
    lines = text.getvalue().splitlines()
    assert lines == [
        "step 12/100  loss 0.50000  12 images/s  7.3 min left",
        "step 24/100  loss 0.50000  12 images/s  6.3 min left",
        "step 36/100  loss 0.50000  12 images/s  5.3 min left",
    ]


def test_time_left_of_a_resumed_run_counts_its_own_steps(clock: Clock) -> None:
    text = io.StringIO()
    progress = RunProgress(100, 90, Console(file=text, width=200))
    clock.now += 60
    progress.step(95, loss=0.1, images_per_second=1.0)
    assert "1.0 min left" in text.getvalue()


def test_the_last_step_is_always_shown(clock: Clock) -> None:
    text = io.StringIO()
    RunProgress(10, 0, Console(file=text, width=200)).step(10, loss=0.1, images_per_second=1.0)
    assert text.getvalue().startswith("step 10/10")


def test_a_terminal_gets_a_bar(clock: Clock) -> None:
    text = io.StringIO()
    console = Console(file=text, width=200, force_terminal=True, color_system=None)
    with RunProgress(10, 0, console) as progress:
        clock.now += 2
        progress.step(5, loss=0.125, images_per_second=7.0)
        progress.say("half-way")
    assert "half-way" in text.getvalue()
    assert "5/10" in text.getvalue()
    assert "0.12500" in text.getvalue()
