"""A training step of the demo with glibc's allocator as it comes, and as the loop sets it.

Runs each in its own process, in turn and three times; prints the median step, the page faults a step and the ratio.
    python benchmarks/allocator.py
"""

import resource
import statistics
import subprocess
import sys
import time

FORMS = ("default", "kept")
ROUNDS = 3
STEPS = 40


def measure(form: str) -> tuple[float, float]:
    """Median milliseconds, and page faults, of one step."""
    import torch

    from boqsa.inference.load import build_model
    from boqsa.recipes import get_recipe
    from boqsa.training.machine import keep_freed_memory

    if form == "kept" and not keep_freed_memory():
        raise SystemExit("this machine's C library is not glibc: nothing to measure")
    recipe = get_recipe("demo")
    model = build_model(recipe).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    size = recipe.data.image_size
    image = torch.randint(0, 256, (recipe.train.batch_size, 3, size, size), dtype=torch.uint8)
    image = image.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(image).loss
        loss.backward()
        optimizer.step()

    for _ in range(10):
        step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return 1e3 * statistics.median(seconds), faults / STEPS


def main() -> None:
    """Run both forms and print them."""
    if len(sys.argv) > 1:
        print(*measure(sys.argv[1]))
        return
    found: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for _ in range(ROUNDS):
        for form in FORMS:
            command = [sys.executable, __file__, form]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
            found[form].append((float(printed[0]), float(printed[1])))
    step = {form: statistics.median(milliseconds for milliseconds, _ in rounds) for form, rounds in found.items()}
    for form, rounds in found.items():
        faults = statistics.median(faults for _, faults in rounds)
        print(f"{form:8} {step[form]:7.1f} ms a step  {faults:7.0f} page faults")
    print(f"ratio    {step['kept'] / step['default']:.2f}")


if __name__ == "__main__":
    main()
