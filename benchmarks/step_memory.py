"""Peak memory of refinement without a graph against the published form, which builds the graph and throws it away.

Runs each form in its own process and compares the growth of its peak resident memory; prints a ratio.
    python benchmarks/step_memory.py
"""

import resource
import subprocess
import sys

ITERATIONS = 7
FORMS = ("published", "boqsa")


def measure(form: str) -> int:
    """Growth of the peak resident memory, in KiB, over one forward and backward pass."""
    import torch

    from boqsa.slots import SlotAttention, refine

    torch.manual_seed(0)
    attend = SlotAttention(64, 128)
    tokens = torch.randn(16, 4096, 64)
    init = torch.randn(16, 7, 64, requires_grad=True)
    prepared = attend.prepare(tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if form == "boqsa":
        slots, _ = refine(lambda slots: attend.step(prepared, slots), init, iterations=ITERATIONS, gradient="bilevel")
    else:
        slots = init
        for _ in range(ITERATIONS - 1):
            slots, _ = attend.step(prepared, slots)
        slots, _ = attend.step(prepared, slots.detach() + init - init.detach())
    slots.sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def main() -> None:
    """Run both forms and print them."""
    if len(sys.argv) > 1:
        print(measure(sys.argv[1]))
        return
    growth = {
        form: int(subprocess.run([sys.executable, __file__, form], capture_output=True, text=True, check=True).stdout)
        for form in FORMS
    }
    for form, kib in growth.items():
        print(f"{form:10} {kib / 1024:7.1f} MiB")
    print(
        f"ratio      {growth['boqsa'] / growth['published']:.2f}  ({ITERATIONS} iterations, 16 x 4096 tokens, 7 slots)"
    )


if __name__ == "__main__":
    main()
