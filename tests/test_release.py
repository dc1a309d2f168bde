"""What a release says of itself and what it holds: version, files, dependencies. `make dist` tries the built files."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import boqsa

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_that_of_the_installed_package() -> None:
    assert boqsa.__version__ == importlib.metadata.version("boqsa")
    assert re.match(r"\d+(\.\d+)+", boqsa.__version__)


def test_a_source_tree_that_nobody_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert boqsa.__version__ == PROJECT["tool"]["setuptools_scm"]["fallback_version"]


def test_the_version_is_looked_up_when_asked_for() -> None:
    code = "import sys, boqsa; print('importlib.metadata' in sys.modules); boqsa.__version__"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT / "src"
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_citation_and_changelog_name_the_same_version() -> None:
    heading = re.search(r"^## .*?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading is not None
    assert citation is not None
    assert heading[1] == citation[1]


def test_every_file_of_the_package_is_installed() -> None:
    """A wheel built without git, as from an archive, holds the data files that pyproject.toml names and no other."""
    package = ROOT / "src" / "boqsa"
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    named = {
        path for pattern in PROJECT["tool"]["setuptools"]["package-data"]["boqsa"] for path in package.glob(pattern)
    }
    assert package / "py.typed" in named
    assert files == named


@pytest.fixture(scope="module")
def lower_bounds() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lower_bounds", ROOT / ".ci" / "lower_bounds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_dependency_has_a_lower_bound_that_can_be_tried(lower_bounds: ModuleType) -> None:
    found = lower_bounds.lowest(PROJECT["project"])
    assert {line.split("==")[0] for line in found} >= {"numpy", "pillow", "lightning-fabric", "pytest"}
    assert not any(line.startswith("torch==") for line in found)


def test_the_lower_bound_becomes_the_version(lower_bounds: ModuleType) -> None:
    project = {
        "dependencies": ["torch>=2.9", "numpy>=1.26,<3"],
        "optional-dependencies": {"test": ["a-b.c>=8", "a-b.c>=8"]},
    }
    assert lower_bounds.lowest(project) == ["a-b.c==8", "numpy==1.26"]


@pytest.mark.parametrize("requirement", ["numpy", "numpy<3", "numpy~=1.26", "numpy>1.26", "numpy<3,>=1.26"])
def test_another_form_of_requirement_is_refused(lower_bounds: ModuleType, requirement: str) -> None:
    with pytest.raises(ValueError, match="neither name>=version nor"):
        lower_bounds.lowest({"dependencies": [requirement], "optional-dependencies": {"test": []}})
