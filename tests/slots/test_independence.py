"""`import boqsa.slots` needs torch and jaxtyping alone; `import boqsa` needs nothing heavy."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import boqsa.slots",
            {"numpy.testing", "scipy", "torchmetrics", "lightning_fabric", "PIL", "tyro", "boqsa.models"},
        ),
        ("import boqsa", {"torch", "numpy", "tyro", "boqsa.slots"}),
    ],
)
def test_import_pulls_in_nothing_else(statement: str, absent: set[str]) -> None:
    code = f"import sys; {statement}; print(sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
