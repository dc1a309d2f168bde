"""`boqsa demo`: discover objects in rendered scenes, from nothing to a report."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from boqsa.commands import STOPPED
from boqsa.commands.arguments import parse, print_json


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Render scenes, train on the images alone, score on held-out scenes, write pictures and a report."""

    out: Path = Path("boqsa-demo")
    """Folder to make, or an empty one: metrics.json, segmentation.png, report.html, run/."""
    seed: int = 0
    """Seed of the run; the scenes are the same for all seeds."""
    minutes: float | None = None
    """Training time; it becomes a step count from timed steps. Without it the count is the recipe's."""
    json: bool = False
    """Print the result as JSON on stdout; progress stays on stderr."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Demo, arguments, command="demo")

    from boqsa.commands.console import rendering
    from boqsa.commands.evaluate import show_scores
    from boqsa.training.demo import run_demo

    metrics = run_demo(
        chosen.out,
        seed=chosen.seed,
        minutes=chosen.minutes,
        command=shlex.join(["boqsa", "demo", *arguments]),
        rendering=rendering,
    )
    if metrics is None:
        return STOPPED
    if chosen.json:
        print_json(metrics)
        return 0
    show_scores(metrics)
    print(f"\nOpen {chosen.out}/report.html: it shows and explains what was found. Then try:")
    for step in metrics["next_steps"]:
        print(f"  {step}")
    return 0
