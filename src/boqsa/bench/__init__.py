"""What a machine makes of a recipe: time and memory of a step, beside what the machine can do and a literal reference.

    report = bench(get_recipe("demo"))

`measure.py` runs the measurements of `work.py`, each in a process of its own (`processes.py`). `operations.py` counts
what a step has to compute, `ceilings.py` measures how fast the machine does that at best, and `literal/` is the
published algorithm as it reads. Nothing but the command imports this package.
"""

from boqsa.bench.measure import bench

__all__ = ["bench"]
