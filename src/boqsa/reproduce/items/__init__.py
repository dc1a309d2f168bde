"""Every item that `boqsa reproduce` knows: the paper's tables, its figures, and its claims that have no table.

An item is a function from a scale to an `Experiment`: to add one, write the function and its line here.
"""

from collections.abc import Callable

from boqsa.errors import InputError
from boqsa.reproduce.experiment import Experiment
from boqsa.reproduce.items import claims, figures, tables
from boqsa.reproduce.scales import Scale

__all__ = ["ITEMS", "build"]

ITEMS: dict[str, Callable[[Scale], Experiment]] = {
    "table1": tables.table1,
    "table2": tables.table2,
    "table3": tables.table3,
    "table4": tables.table4,
    "table5": tables.table5,
    "table6": tables.table6,
    "table7": tables.table7,
    "table8": tables.table8,
    "table14": tables.table14,
    "table15": tables.table15,
    "table16": tables.table16,
    "table17": tables.table17,
    "table18": tables.table18,
    "table19": tables.table19,
    "figure1": figures.figure1,
    "figure2": figures.figure2,
    "figure3": figures.figure3,
    "figure4": figures.figure4,
    "figure6": figures.figure6,
    **{name: figures.found_objects(name) for name in figures.FOUND_OBJECTS},
    "stability": claims.stability,
    "noise": claims.noise,
    "vq_weight": claims.vq_weight,
    "iterations": claims.iterations,
    "dvae_kernel": claims.dvae_kernel,
    "capacity": claims.capacity,
    "more_objects": claims.more_objects,
    "difficulty": claims.difficulty,
    "mask_errors": claims.mask_errors,
    "differences": claims.differences,
}


def build(name: str, scale: Scale) -> Experiment:
    """The experiment of an item.

    Raises:
        InputError: if there is none of that name; the message lists those there are.
    """
    if name not in ITEMS:
        raise InputError(f"there is no item {name!r}; choose among {', '.join(ITEMS)}, all.")
    return ITEMS[name](scale)
