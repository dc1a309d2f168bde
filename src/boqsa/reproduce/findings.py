"""Sentences under an item's tables that its claims need beside "who is first": pairs, an interaction, what is kept.

All at checkpoint `last`, which no label chose.
"""

import itertools
from collections.abc import Sequence

from boqsa.reproduce.experiment import Experiment
from boqsa.reproduce.layout import Layout, direction, scores_in
from boqsa.reproduce.methods import METHODS
from boqsa.reproduce.rows import Row
from boqsa.reproduce.statistics import difference, interaction
from boqsa.training.sweep import Spread

_TEST_ITERATIONS = "test_iterations="


def finding_lines(experiment: Experiment, rows: Sequence[Row], layout: Layout) -> list[str]:
    """Everything that there is to say of an item's rows, a sentence each."""
    return [
        *_pairs(experiment.compared, rows, layout),
        *(_interactions(rows, layout) if experiment.is_grid else []),
        *(_kept(rows) if any(row.condition.startswith(_TEST_ITERATIONS) for row in rows) else []),
    ]


def _pairs(pairs: Sequence[tuple[str, str]], rows: Sequence[Row], layout: Layout) -> list[str]:
    """Whether the first of each pair is better than the second; both are known to differ in the method alone."""
    lines = []
    for (one, other), column in itertools.product(pairs, layout.columns):
        scores, sign = scores_in(column, "last", rows), direction(column.metric)
        if one in scores and other in scores and sign:
            found = difference(*(scores[one].by_seed, scores[other].by_seed)[::sign])
            lines.append(f"{one} better than {other} in {column.name}: {found.text()}.")
    return lines


def _interactions(rows: Sequence[Row], layout: Layout) -> list[str]:
    """Whether both parts of the method are needed: the grid of queries and gradients (Table 7)."""
    lines = []
    for column in layout.columns:
        scores = scores_in(column, "last", rows)
        if set(METHODS) <= set(scores) and direction(column.metric):
            grid = {parts: scores[method].by_seed for method, parts in METHODS.items()}
            found = interaction(grid, ("learned", "shared_gaussian"), ("bilevel", "unrolled"))
            lines.append(
                f"{column.name}: bilevel gradients in place of unrolled ones gain more on learned queries than on "
                f"sampled slots by {found.text()}."
            )
    return lines


def _kept(rows: Sequence[Row]) -> list[str]:
    """The share of its score at the trained 3 iterations that each method keeps, as a mean of ratios over seeds."""
    lines = []
    score = {("iou", row.dataset) for row in rows if row.metric == "iou"}
    score |= {("ari_fg", row.dataset) for row in rows if row.metric == "ari_fg"}
    for metric, dataset in sorted(score):
        for count in ("1", "2", "5", "7"):
            shares = {}
            for method in dict.fromkeys(row.method for row in rows):
                by_seed = [
                    {
                        row.seed: row.value
                        for row in rows
                        if row[:4] == (method, dataset, metric, f"{_TEST_ITERATIONS}{steps}")
                        and row.selection == "last"
                    }
                    for steps in (count, "3")
                ]
                ratios = [
                    by_seed[0][seed] / value for seed, value in by_seed[1].items() if seed in by_seed[0] and value > 0
                ]
                if ratios:
                    shares[method] = Spread.of(ratios)
            if shares:
                told = ", ".join(f"{method} {share.text(2)}" for method, share in shares.items())
                lines.append(f"Share of {dataset} {metric} at 3 iterations that is kept at {count}: {told}.")
    return lines
