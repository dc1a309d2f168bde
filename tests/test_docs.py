"""Every command and example of README, CONTRIBUTING and docs is run here, or its page says why it is not.

A page is read from top to bottom in a folder of its own, after what its reader has at hand by then (`STAGES`).
Commands and examples stand as they are there, with short recipes and tiny data (`small`, `STANDS_FOR`, `INSTEAD`,
`ALSO`): this shows that they go through, and nothing about what comes out. A block that is not run has a comment above
it, which readers do not see: `<!-- not run: REASON -->`. Run or not, each line that begins with `boqsa` must be one
that the program takes.
"""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

from boqsa.commands import COMMANDS, arguments, main
from boqsa.data import builtin
from boqsa.data.mimic import mimic
from boqsa.inference.load import build_model
from boqsa.models.published import published_names
from boqsa.recipes import RECIPES, Recipe, get_recipe
from boqsa.reproduce import hours

ROOT = Path(__file__).parents[1]
PAGES = {page.stem: page for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))}

REASONS = {
    "installs packages",
    "upkeep of this repository",
    "needs the hub",
    "needs pretrained weights",
    "needs several GPUs",
    "needs a cluster",
    "needs another program",
    "a synopsis",
}
"""Why a block need not be run."""

STAGES: dict[str, list[str]] = {
    "README": [
        "boqsa demo",
        "boqsa data mimic arrays files --count 640",  # a tenth of them is the test split
        "boqsa data prepare arrays files/arrays.npz packed",
    ],
    "adaptive": [
        "boqsa train demo --out RUN",
        "import boqsa, torch; model, image = boqsa.load('RUN'), torch.rand(2, 3, 32, 32)",
    ],
    "add-your-own": [
        "import torch; from boqsa.slots import refine; queries = torch.randn(1, 3, 8)",
        "my_step = lambda slots: (slots / 2, slots.softmax(1))",
    ],
    "app": ["boqsa demo", "boqsa train demo --out my-run"],
    "concepts": [
        "boqsa data prepare folder PHOTOS packed --size 32",
        "boqsa train demo --data.name folder --data.root packed --out RUN",
        "from pathlib import Path; Path('names.json').write_text('{\"1\": \"floor\"}')",
    ],
    "export": [
        "boqsa train demo --out RUN",
        "import numpy as np; np.save('picture.npy', np.zeros((40, 50, 3), np.uint8))",
        "monkeypatch.setattr('sys.argv', ['example.py', 'model.onnx', 'picture.npy', 'labels.npy'])",
    ],
    "features": [
        "boqsa data mimic folder PHOTOS",
        "make_encoder('Dinov2', image_size=224, patch_size=14, hidden_size=384).rename('dinov2-small')",
        "import shutil; shutil.copytree('dinov2-small', 'elsewhere/dinov2-small')",
        "make_encoder(image_size=224, patch_size=16, hidden_size=768).rename('ENCODER')",
        "make_encoder(image_size=112, patch_size=8, hidden_size=64).rename('random')",
        "boqsa data prepare folder PHOTOS packed --size 112",
        "boqsa data features packed random random-features",
        "boqsa data mimic folder VOC",
        "shutil.copytree('VOC/masks', 'VOC/classes')",  # each object a class of its own
    ],
    "observe": [
        "boqsa train demo --out DIR/one",
        "boqsa train demo --out RUN",
        "boqsa train demo --seed 1 --out OTHER-RUN",
    ],
    "own-photographs": [
        "boqsa data mimic folder PHOTOS",
        "boqsa data mimic folder PICTURES",
    ],
    "reading-the-numbers": ["boqsa train demo --out RUN"],
    "resume": ["boqsa train demo --out RUN"],
    "scaling": ["boqsa data prepare birds SOURCE packed --size 128"],
    "tutorial": [
        "boqsa data mimic folder PHOTOS",
        "boqsa data prepare folder PHOTOS other-packed --size 32",
        "boqsa data prepare flowers SOURCE PACKED-SETS/flowers --size 32",
        "boqsa data prepare birds SOURCE PACKED-SETS/birds --size 32",
        "boqsa data prepare shapestacks SOURCE packed-shapestacks --size 128",
        "boqsa train demo --data.name folder --data.root other-packed --seed 1 --out my-run-1",
        "boqsa evaluate my-run-1",
        "boqsa train demo --data.name folder --data.root other-packed --seed 2 --out my-run-2",
        "boqsa evaluate my-run-2",
        "release('shapestacks_mixture', 'OFFICIAL.ckpt')",
    ],
}
"""What a page's reader has done before: commands, and Python for what no command makes; PICTURES are there too."""

FULL = {"bench", "export", "features", "results", "scaling", "sweep"}
"""Pages with many processes or large networks, and one of old results: run by `make test-full` alone."""

PICTURES = ("picture.png", "picture.jpg", "my-picture.png", "photo.jpg", "a.png", "b.png")

STANDS_FOR = {
    "RECIPE": "demo",
    "NAME": "birds",
    "STATE": "finished",
    "S": "0",
    "N": "64",
    "CT": "default",  # a stand-in has no ablations
    "PICTURE": "picture.png",
}
"""What a reader puts in place of a word; other words in capitals are names of files."""

INSTEAD = {
    "--train.steps": "6",
    "--train.warmup-steps": "1",
    "--device": "cpu",
    "--train.device": "cpu",
    "--batch": "2",
}
"""Options that have another value here than on the page."""

ALSO = {
    "app": ["--no-open"],
    "bench": ["--rounds", "1", "--seconds", "0.01"],
    "render": ["--views", "3", "--samples", "8"],
    "reproduce": ["--dry-run"],  # what it plans; that plans are carried out is tested in `reproduce`
}
"""Words that a command gets here beside those of the page."""


def small(recipe: Recipe) -> Recipe:
    """The recipe with a few steps on little data; its network and the size of its images stay."""
    steps = 12 if recipe.model.kind == "radiance" else 3  # Table 19 halves them twice
    short = {"steps": steps, "batch_size": 4, "accumulate": 1, "warmup_steps": 1, "device": "cpu", "threads": 1}
    each = {"checkpoint_every": 1, "evaluate_every": 3, "log_every": 1}
    radiance = replace(recipe.evaluate.radiance, size=16, samples=4)
    return replace(
        recipe,
        data=replace(recipe.data, scene_count=32),
        train=replace(recipe.train, **short, **each),
        evaluate=replace(recipe.evaluate, validation_limit=4, radiance=radiance),
    )


SHELLS = {"sh", "bash"}
OTHERS = {"", "bibtex"}
"""Languages of fences with nothing to run."""


@dataclass(frozen=True)
class Block:
    """A block of a page."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None
    """Why it is not run."""

    def commands(self) -> list[str]:
        """Its lines, continued ones joined, without comments and what is empty."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in joined if shlex.split(line, comments=True)]


PROGRAM = r"(?:boqsa|make|pip|python3?|torchrun|git|\.venv/\S+|\.ci/\S+) "
MARK = r"(?:^<!-- not run: (?P<reason>.*) -->\n)?"
FENCED = re.compile(MARK + r"^```(?P<language>.*)\n(?P<text>(?s:.*?))^```$", re.MULTILINE)
INDENTED = re.compile(MARK + rf"(?P<text>(?:^    {PROGRAM}(?:.*\\\n)*.*\n)+)", re.MULTILINE)


def blocks_of(name: str) -> list[Block]:
    """A page's fences, and its commands that are indented by four instead, from top to bottom."""
    page = PAGES[name].read_text(encoding="utf-8")
    # What is indented inside of fences is none of ours; what hides it keeps every place in the page.
    hidden = FENCED.sub(lambda fenced: re.sub(r"[^\n]", "`", fenced[0]), page)
    found = [(match, match["language"]) for match in FENCED.finditer(page)]
    found += [(match, "sh") for match in INDENTED.finditer(hidden)]
    return [
        Block(name, page.count("\n", 0, match.start("text")) + 1, language, match["text"], match["reason"])
        for match, language in sorted(found, key=lambda pair: pair[0].start())
    ]


BLOCKS = {name: blocks_of(name) for name in PAGES}
FOUND = [
    (block.page, line)
    for blocks in BLOCKS.values()
    for block in blocks
    if block.language in SHELLS
    for line in block.commands()
    if line.startswith("boqsa ")
]


def words_of(line: str) -> list[str]:
    """The words of a line after `boqsa`, with what may be left out, and the first of what may be chosen."""
    plain = re.sub(r"\[([^\]|]*(?:\|(?! --)[^\]|]*)*)(?: \| [^\]]*)?\]", r"\1", line)
    return [STANDS_FOR.get(word, word.split("|")[0]) for word in shlex.split(plain, comments=True)[1:]]


ON_THE_SITE = [page for page in PAGES.values() if page.parent.name == "docs"]
OF_A_LIST = re.compile(r"(?:[-*]|\d+\.) ")


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in ON_THE_SITE])
def test_the_site_shows_a_page_as_the_repository_does(page: Path) -> None:
    text = FENCED.sub(lambda fenced: re.sub(r"[^\n]", "`", fenced[0]), page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\((?!\w+:)([^)#]+)", text):
        assert Path(target).suffix, f"{target}: a folder is not on the site; name it as code"
    # The site's Markdown takes a list's next paragraph at four spaces, and a list after an empty line alone.
    assert not (found := re.search(r"\n\n {1,3}(?=\S).*", text)), f"{found and found[0]!r}: four spaces are wanted"
    for block in text.split("\n\n"):
        first, *rest = block.strip("\n").split("\n")
        if not OF_A_LIST.match(first):
            assert not (found := list(filter(OF_A_LIST.match, rest))), f"{found}: an empty line is wanted above"


def test_a_dead_link_ends_the_site(tmp_path: Path) -> None:
    pytest.importorskip("properdocs", reason="the documentation's tools are not installed")
    options = re.search(r"properdocs (build .*) --config-file", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert options
    settings, *_ = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("not_in_nav:")
    (tmp_path / "mkdocs.yml").write_text(settings)
    (tmp_path / "docs").mkdir()

    def build(text: str) -> int:
        (tmp_path / "docs/index.md").write_text(text)
        command = [sys.executable, "-m", "properdocs", *options[1].split(), "--config-file", "mkdocs.yml"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert build("[itself](index.md)") == 0
    assert build("[a folder](runs)") == 1


class _Understood(Exception):
    """A command line was read to its end."""


def test_there_are_command_lines() -> None:
    assert len(FOUND) > 80
    named = {shlex.split(line, comments=True)[1] for _, line in FOUND}
    assert set(COMMANDS) <= named | {"runs"}, "each command is shown somewhere"


@pytest.mark.parametrize(
    ("page", "line"),
    [pytest.param(page, line, id=f"{page}-{number}") for number, (page, line) in enumerate(FOUND)],
)
def test_a_command_line_is_understood(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = arguments.parse

    def parse(*given: Any, **options: Any) -> Any:
        real(*given, **options)
        raise _Understood

    for module, _ in COMMANDS.values():
        found = importlib.import_module(f"boqsa.commands.{module}")
        if hasattr(found, "parse"):
            monkeypatch.setattr(found, "parse", parse)
    monkeypatch.chdir(tmp_path)
    words = words_of(line)
    if words == ["--version"] or "--help" in words:
        return
    try:
        code = main(words)
    except _Understood:
        return
    said = capsys.readouterr().err
    # What to resume is read before the options are, since they depend on it.
    assert "--resume" in words, f"{page}: {line}: exit code {code}: {said}"
    assert "there is no run folder" in said


def test_every_block_is_run_or_marked_with_a_known_reason() -> None:
    given = [block.reason for blocks in BLOCKS.values() for block in blocks if block.reason is not None]
    assert set(given) == REASONS
    for name, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        marks = len(re.findall(r"<!--\W*not\W*run", text, re.IGNORECASE))
        assert marks == sum(block.reason is not None for block in BLOCKS[name]), f"{name}: a mark without a block"
        assert not re.search(r"^[ \t]+```|^\s*~~~", text, re.MULTILINE), f"{name}: a fence that is not seen here"
        for block in BLOCKS[name]:
            where = f"{name}, line {block.line}"
            assert block.language in SHELLS | OTHERS | {"python"}, f"{where}: what language is {block.language!r}?"
            if block.language in OTHERS:
                assert block.reason is None, f"{where}: there is nothing to run"
                assert not re.search(f"^\\s*(?:{PROGRAM})", block.text, re.MULTILINE), f"{where}: a command; call it sh"


@pytest.fixture(scope="module")
def _small_recipes() -> Iterator[None]:
    """Recipes are small, held-out scenes few, plans measure nothing, the page of `boqsa app` is closed at once."""
    sleep = time.sleep

    def closed(seconds: float) -> None:
        if seconds >= 3600:
            raise KeyboardInterrupt
        sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        for name, make in list(RECIPES.items()):
            patch.setitem(RECIPES, name, partial(small, make()))
        patch.setattr(builtin, "TEST_SCENES", 16)
        patch.setattr(builtin, "VALIDATION_SCENES", 16)
        patch.setattr(builtin, "_STARTS", {"test": 0, "val": 16, "train": 32})
        patch.setattr(builtin, "_HELD_OUT_OF_VIEWS", {"test": 2, "val": 2})
        patch.setattr(hours, "_arithmetic", lambda recipe: 3600.0)
        patch.setattr(time, "sleep", closed)
        before = jaxtyping.config.jaxtyping_disable
        jaxtyping.config.update("jaxtyping_disable", True)  # an exporter's batch size is a symbol, and no int
        yield
        jaxtyping.config.update("jaxtyping_disable", before)


def release(recipe: str, path: str) -> None:
    """Write a checkpoint of random weights as the authors released theirs."""
    built = build_model(get_recipe(recipe))
    weights = {f"model.{name}": built.state_dict()[ours] for ours, name in published_names(built).items()}
    torch.save({"state_dict": weights, "global_step": 10}, path)


def run_line(line: str) -> None:
    """Run a command as it stands, made small, on stand-ins for the data sets that are not there."""
    assert line.startswith("boqsa "), f"{line}: this is run by no test; mark its block"
    words = words_of(line)
    for option, value in INSTEAD.items():
        if option in words:
            words[words.index(option) + 1] = value
    # Blocks are alternatives: the reader of one has not made what another one makes at the same place.
    made = words[4] if words[:2] == ["data", "prepare"] else words[words.index("--out") + 1] if "--out" in words else ""
    if made and words[0] != "segment":
        assert Path(made).resolve().is_relative_to(Path.cwd()), f"{line}: this writes outside of the test's folder"
        shutil.rmtree(made, ignore_errors=True)
    if words[:2] == ["data", "prepare"] and (words[3] == "SOURCE" or not Path(words[3]).exists()):
        shutil.rmtree(f"{made}-files", ignore_errors=True)
        stand_in = mimic(words[2], f"{made}-files", count=12)
        words[3] = str(stand_in.path)
        for option, path in stand_in.options.items():
            words[words.index(f"--{option}") + 1] = str(path)
    if "--resume" in words and "--allow-changes" not in words:
        shutil.rmtree(Path(words[2]) / "checkpoints/last")  # a run that was broken off one step before its end
    try:
        code = main(words + ALSO.get(words[0], []))
    except SystemExit as ended:  # --help
        code = ended.code
    assert code == 0, f"{line}: exit code {code}"


@pytest.mark.usefixtures("_small_recipes")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full) if name in FULL else name for name in PAGES if BLOCKS[name]]
)
def test_what_stands_on_a_page_runs(
    name: str,
    make_encoder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    for picture in PICTURES:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(picture)
    names: dict[str, Any] = {"make_encoder": make_encoder, "monkeypatch": monkeypatch, "release": release}
    for step in STAGES.get(name, []):
        run_line(step) if step.startswith("boqsa ") else exec(step, names)
    for block in BLOCKS[name]:
        if block.reason is not None:
            continue
        if block.language in SHELLS:
            for line in block.commands():
                run_line(line)
        elif block.language == "python":  # as many lines down as on the page, so that an error names its line
            exec(compile("\n" * (block.line - 1) + block.text, str(PAGES[name]), "exec"), names)
