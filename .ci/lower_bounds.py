"""The lowest version of every direct dependency, as constraints for pip: `name>=1.2` of pyproject.toml as `name==1.2`.

Those of the package and of its tests, which take in most extras. torch is left out: its old builds are not had
everywhere.
"""

import re
import tomllib
from pathlib import Path


def lowest(project: dict) -> list[str]:
    """The constraints for the dependencies, and those of the tests, of a `[project]` table.

    Raises:
        ValueError: if a requirement is of another form.
    """
    found = []
    for requirement in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        matched = re.fullmatch(r"([\w.-]+)>=([\w.]+)(?:,<[\w.]+)?", requirement)
        if matched is None:
            raise ValueError(f"{requirement!r} in pyproject.toml is neither name>=version nor name>=version,<version")
        if matched[1] != "torch":
            found.append(f"{matched[1]}=={matched[2]}")
    return sorted(set(found))


if __name__ == "__main__":
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(lowest(tomllib.loads(text)["project"])))
