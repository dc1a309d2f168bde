"""The paper's methods as changes of a recipe: where slots start, and how the gradient goes back (Table 7, spec 1.6)."""

from collections.abc import Mapping
from dataclasses import replace

from boqsa.recipes import Recipe
from boqsa.recipes.fields import with_fields
from boqsa.recipes.recipe import flat

METHODS: dict[str, tuple[str, str]] = {
    "SA": ("shared_gaussian", "unrolled"),
    "I-SA": ("shared_gaussian", "implicit"),
    "BO-SA": ("shared_gaussian", "bilevel"),
    "QSA": ("learned", "unrolled"),
    "I-QSA": ("learned", "implicit"),
    "BO-QSA": ("learned", "bilevel"),
}
"""Method of Table 7 -> its queries and gradient. All else is equal: encoder, decoder, budget, noise where there are
learned queries. In I-QSA the queries get exactly no gradient, which is the experiment (spec 1.6)."""

UPDATES: dict[str, dict[str, str]] = {
    "RunningMean": {"train.query_update": "running_mean", "train.sigma_steps": "0"},
    "RunningMean-M": {
        "train.query_update": "running_mean",
        "train.query_momentum": "0.1",
        "train.sigma_steps": "0",
    },
    "KMeans": {"train.query_update": "kmeans", "train.sigma_steps": "0"},
    "KMeans-M": {"train.query_update": "kmeans", "train.query_momentum": "0.1", "train.sigma_steps": "0"},
    "VQ-constraint": {"train.consistency_weight": "0.01"},
}
"""Row of Table 17 -> what differs from BO-QSA (spec 6). Queries that are set get neither noise nor gradient."""


def variant(base: Recipe, method: str, changes: Mapping[str, str] | None = None) -> Recipe:
    """A recipe with the slots of a method, and further fields by name and text; its name says all of it.

    Two items that ask for the same thing get the same recipe, name and hash among it, so that it is trained once.

    Args:
        base: Where all else comes from.
        method: A key of `METHODS` or `UPDATES`.
        changes: As `boqsa.recipes.fields.with_fields` takes them.
    """
    queries, gradient = METHODS["BO-QSA" if method in UPDATES else method]
    plain = with_fields(base, {"model.queries": queries, "model.gradient": gradient})
    name = "bo_qsa" if method in UPDATES else method.lower().replace("-", "_")
    return changed(replace(plain, name=f"{base.name}_{name}"), {**UPDATES.get(method, {}), **(changes or {})})


def changed(base: Recipe, changes: Mapping[str, str]) -> Recipe:
    """A recipe with fields changed by name and text; its name says those that were not so before."""
    recipe = with_fields(base, changes)
    before, after = flat(base), flat(recipe)
    parts = [f"{name.split('.')[-1]}={changes[name]}" for name in sorted(changes) if before[name] != after[name]]
    return replace(recipe, name=",".join([base.name, *parts]))
