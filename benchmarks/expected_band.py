"""Write the expected band of a recipe from finished runs of at least three seeds.

    python benchmarks/expected_band.py RUN RUN RUN

The file goes where the package finds it, and is to be committed. A run needs its `recipe.json` and `log.jsonl` alone.
For the built-in scenes the version of the renderer is written beside the curves, as the runs logged it; runs of earlier
versions did not, and are taken for today's.
"""

import argparse
from pathlib import Path

import boqsa.recipes
from boqsa.inference.run import read_recipe
from boqsa.recipes.band import make_band
from boqsa.training.data import logged_identity
from boqsa.training.log import read_log


def main() -> None:
    """Entry of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    chosen = parser.parse_args()
    runs = [(read_recipe(run), read_log(run)) for run in chosen.runs]
    started = [next(row for row in rows if row["event"] == "started") for _, rows in runs]
    data = {logged_identity(recipe.data, rows) for recipe, rows in runs}
    versions = {row["boqsa"] for row in started}
    if len(data) > 1 or len(versions) > 1:
        raise SystemExit(f"the runs are of several data sets or versions: {sorted(data)}, {sorted(versions)}")
    band = make_band(runs, data=data.pop(), boqsa=versions.pop())
    path = Path(boqsa.recipes.__file__).parent / "bands" / f"{band.recipe}.json"
    path.write_text(band.to_json(), encoding="utf-8")
    print(f"{path}: {', '.join(band.curves)} of seeds {band.seeds} at {len(band.steps)} evaluations")


if __name__ == "__main__":
    main()
