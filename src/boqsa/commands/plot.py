"""`boqsa plot RUN...`: learning curves of several runs in one picture."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from boqsa.commands.arguments import parse
from boqsa.errors import InputError


@dataclass(frozen=True)
class Plot:
    """Draw the learning curves of one or several runs together: losses, and the scores that they have."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path = Path("curves.png")
    """File to write: .png or .svg."""
    metric: tuple[str, ...] = ()
    """What to draw, a panel each: training_loss, held_out_loss, or any number of log.jsonl by its name. By default the
    losses and the main scores."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Plot, arguments, command="plot")
    image_format = chosen.out.suffix.lower().removeprefix(".")
    if not chosen.runs:
        raise InputError("name at least one run folder, as in `boqsa plot RUN OTHER-RUN --out curves.png`.")
    if image_format not in ("png", "svg"):
        raise InputError(f"--out {chosen.out} is neither .png nor .svg; name one of these.")

    from boqsa.atomic import atomic_file
    from boqsa.reports.comparison import compared_curves
    from boqsa.training.runs import curves_to_compare

    logs, bands = curves_to_compare(chosen.runs)
    picture = compared_curves(logs, chosen.metric, bands=bands, image_format=image_format)  # type: ignore[arg-type]
    with atomic_file(chosen.out) as partial:
        partial.write_bytes(picture)
    print(f"{', '.join(logs)}: {chosen.out}")
    return 0
