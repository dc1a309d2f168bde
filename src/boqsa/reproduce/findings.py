"""Sentences under an item's tables that its claims need beside "who is first": pairs, an interaction, what is kept.

All at checkpoint `last`, which no label chose.
"""

import itertools
from collections.abc import Sequence

from boqsa.reproduce.experiment import Experiment
from boqsa.reproduce.figures import share_kept
from boqsa.reproduce.layout import Layout, direction, scores_in
from boqsa.reproduce.methods import METHODS
from boqsa.reproduce.protocol import Protocol, parse, refusals
from boqsa.reproduce.rows import Row
from boqsa.reproduce.statistics import difference, interaction, seeds_needed

_TEST_ITERATIONS = "test_iterations="
_TRAINED = 3
"""Iterations of the models of Figure 2."""


def finding_lines(experiment: Experiment, rows: Sequence[Row], layout: Layout) -> list[str]:
    """Everything else that there is to say of an item's rows, a sentence each."""
    return [
        *(_interactions(rows, layout) if experiment.is_grid else []),
        *(_kept(rows) if any(row.condition.startswith(_TEST_ITERATIONS) for row in rows) else []),
    ]


def pairs_table(pairs: Sequence[tuple[str, str]], rows: Sequence[Row], layout: Layout) -> str:
    """Whether the first of each pair is better than the second, as Markdown; empty if there is nothing to compare.

    Scores of two protocols are not compared, and the row says what differs.

    Args:
        pairs: Methods that are known to differ in what the pair is about alone.
        rows: Of any methods.
        layout: Its columns are compared.
    """
    lines = []
    for (one, other), column in itertools.product(pairs, layout.columns):
        scores, sign = scores_in(column, "last", rows), direction(column.metric)
        if one not in scores or other not in scores or not sign:
            continue
        refused = refusals(scores[one].protocol, scores[other].protocol)
        if refused:
            cells = [one, other, column.name, *["—"] * 3, f"not compared ({'; '.join(refused)})", "—"]
            lines.append(f"| {' | '.join(cells)} |")
        else:
            found = difference(*(scores[one].by_seed, scores[other].by_seed)[::sign])
            needed = seeds_needed(scores[one].spread, scores[other].spread, found.mean)
            interval = "—" if found.interval is None else found.interval.text()
            runs = f"{len(found.seeds)} paired" if found.is_paired else " and ".join(map(str, found.n))
            cells = [one, other, column.name, f"{found.mean:+.3f}", interval, runs, found.verdict]
            lines.append(f"| {' | '.join([*cells, '—' if needed is None else str(needed)])} |")
    if not lines:
        return ""
    head = ["better", "than", "in", "by", "95 % interval", "runs", "verdict", "seeds for that"]
    return "\n".join([f"| {' | '.join(head)} |", "| --- " * len(head) + "|", *lines, ""])


def _interactions(rows: Sequence[Row], layout: Layout) -> list[str]:
    """Whether both parts of the method are needed: the grid of queries and gradients (Table 7)."""
    lines = []
    for column in layout.columns:
        scores = scores_in(column, "last", rows)
        if set(METHODS) <= set(scores) and direction(column.metric):
            refused = _unlike([scores[method].protocol for method in METHODS])
            if refused:
                lines.append(f"{column.name}: the interaction is not told, as protocols differ ({'; '.join(refused)}).")
                continue
            grid = {parts: scores[method].by_seed for method, parts in METHODS.items()}
            for before in ("unrolled", "implicit"):
                found = interaction(grid, ("learned", "shared_gaussian"), ("bilevel", before))
                lines.append(
                    f"{column.name}: bilevel gradients in place of {before} ones gain more on learned queries than on "
                    f"sampled slots by {found.text()}."
                )
    return lines


def _kept(rows: Sequence[Row]) -> list[str]:
    """The share of its score at the trained 3 iterations that each method keeps, and whether BO-QSA keeps more than SA.

    Shares are ratios of means over seeds, as in the picture; the difference is one of shares seed by seed.
    """
    lines = []
    places = {(row.metric, row.dataset) for row in rows if row.metric in ("iou", "ari_fg")}
    for metric, dataset in sorted(places):
        scores: dict[str, dict[int, dict[int, float]]] = {}  # by method, iterations and seed
        here = [row for row in rows if (row.metric, row.dataset, row.selection) == (metric, dataset, "last")]
        refused = _unlike([parse(row.protocol) for row in here])
        if refused:
            lines.append(f"What is kept of {dataset} {metric} is not told, as protocols differ ({'; '.join(refused)}).")
            continue
        for row in here:
            count = int(row.condition.removeprefix(_TEST_ITERATIONS))
            scores.setdefault(row.method, {}).setdefault(count, {})[row.seed] = row.value
        scores = {method: by for method, by in scores.items() if _TRAINED in by}
        kept = share_kept(
            {method: {count: list(of.values()) for count, of in by.items()} for method, by in scores.items()}
        )
        for count in sorted({count for by in scores.values() for count in by} - {_TRAINED}):
            told = ", ".join(f"{method} {by[count]:.0%}" for method, by in kept.items() if count in by)
            lines.append(f"Of {dataset} {metric} at {_TRAINED} iterations is kept at {count}: {told}.")
        if {"BO-QSA", "SA"} <= set(scores) and all(1 in scores[method] for method in ("BO-QSA", "SA")):
            ours, theirs = (_shares(scores[method]) for method in ("BO-QSA", "SA"))
            if ours and theirs:
                found = difference(ours, theirs)
                lines.append(f"Seed by seed, BO-QSA keeps more than SA at 1 iteration by {found.text(2)}.")
    return lines


def _unlike(protocols: Sequence[Protocol]) -> list[str]:
    """What forbids to compare the first of some protocols with any other."""
    return list(dict.fromkeys(text for other in protocols for text in refusals(protocols[0], other)))


def _shares(scores: dict[int, dict[int, float]]) -> dict[int, float]:
    """By seed, where the score at the trained number is above 0."""
    return {
        seed: scores[1][seed] / value for seed, value in scores[_TRAINED].items() if seed in scores[1] and value > 0
    }
