"""Many trainings, each in a process of its own: a plan of runs, engines that start them, and statistics over seeds.

`make_plan` or your own list of `PlannedRun` says what to train; `run_plan` trains it on an engine (`LocalEngine`,
`SlurmEngine`); `read_results` and `over_seeds` say what came out. How one run is trained is not decided here:
every process calls `boqsa.training.train`.
"""

from boqsa.training.sweep.drive import SweepEnd, run_plan
from boqsa.training.sweep.engine import Engine, Event
from boqsa.training.sweep.local import LocalEngine
from boqsa.training.sweep.plan import (
    PlannedRun,
    check_data,
    check_init_from,
    check_place,
    grow_plan,
    make_plan,
    read_plan,
    write_plan,
)
from boqsa.training.sweep.slurm import SlurmEngine, SlurmSettings
from boqsa.training.sweep.state import RunState, state_of_planned
from boqsa.training.sweep.summary import RunResult, SettingSummary, Spread, over_seeds, read_results

__all__ = [
    "Engine",
    "Event",
    "LocalEngine",
    "PlannedRun",
    "RunResult",
    "RunState",
    "SettingSummary",
    "SlurmEngine",
    "SlurmSettings",
    "Spread",
    "SweepEnd",
    "check_data",
    "check_init_from",
    "check_place",
    "grow_plan",
    "make_plan",
    "over_seeds",
    "read_plan",
    "read_results",
    "run_plan",
    "state_of_planned",
    "write_plan",
]
