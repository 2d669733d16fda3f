"""README and docs: what they name exists, the site builds, and examples are those of the code."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import pytest

from flip_plugin.cli import COMMANDS
from flip_plugin.evals.commands import EVALUATIONS
from tests.architecture import ORDERS, PACKAGES, all_imports, levels, modules

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "datasets_prep/tiny_world/README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(DOCS.rglob("*.md")),
]
#: What a path may be relative to: the repository, a package, or the folder that a package stands in.
BASES = [ROOT, *PACKAGES.values(), ROOT / "open-instruct", DOCS]
FOLDERS = ("flip_plugin", "open-instruct", "open_instruct", "datasets_prep", "scripts", "tests", "benchmarks", "docs")
PATH = re.compile(r"(?<![\w./-])[a-z_][\w-]*(?:/[\w.-]+)*/[\w.*-]*")
DOTTED = re.compile(r"(?<![\w./:-])(?:flip_plugin|open_instruct|datasets_prep)(?:\.\w+)+")

MODULES = modules()

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks_of(text: str) -> list[str]:
    """The blocks of code in a page, without drawings."""
    return re.findall(r"^```(?!mermaid)\w*\n(.*?)^```", text, re.M | re.S)


def code_of(page: Path) -> str:
    """A page's code, inline and in blocks, without drawings."""
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    directives = re.findall(r"^::: (\S+)", text, re.M)
    return "\n".join([*blocks_of(text), *inline, *directives])


def paths_in(text: str) -> Iterator[str]:
    """Tokens that name a file of ours: in one of our folders, or with a slash and the ending of a module."""
    for found in PATH.findall(text):
        path = found.rstrip(".")
        if path.split("/")[0] in FOLDERS or path.endswith(".py"):
            yield path


def entry_point_groups() -> set[str]:
    """The groups of the three distributions, and those that only other packages fill."""
    projects = [ROOT / "pyproject.toml", ROOT / "open-instruct/pyproject.toml", ROOT / "datasets_prep/pyproject.toml"]
    groups = {"open_instruct.judges", "flip_plugin.attacks", "flip_plugin.similarities"}
    for project in projects:
        groups |= tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("entry-points", {}).keys()
    return groups


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    if dotted in MODULES:  # not imported: some load torch
        return True
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            # Fields without a default are annotations alone.
            if not hasattr(thing, name) and name not in getattr(thing, "__annotations__", {}):
                return False
            thing = getattr(thing, name, None)
        return True
    return False


@pages
def test_every_path_exists(page):
    missing = [path for path in paths_in(code_of(page)) if not any(list(base.glob(path)) for base in BASES)]
    assert not missing


@pages
def test_every_dotted_name_exists(page):
    files = {"open_instruct.md"}
    names = set(DOTTED.findall(code_of(page))) - entry_point_groups() - files
    assert not [name for name in sorted(names) if not exists(name)]


@pages
def test_every_command_of_flip_exists(page):
    text = "\n".join(blocks_of(page.read_text(encoding="utf-8")))
    assert set(re.findall(r"^flip (\w+)", text, re.M)) <= set(COMMANDS)
    assert set(re.findall(r"^flip eval (\w+)", text, re.M)) <= set(EVALUATIONS)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_pages_at_the_root_lead_somewhere(name):
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert not [link for link in links if not (ROOT / link).exists()]


def test_readme_is_short_and_begins_with_its_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") < 150
    first = re.search(r"^```bash\n(.*?)^```", text, re.M | re.S)
    assert first and re.findall(r"^bash \S+", first[1], re.M) == [
        "bash scripts/train/grpo_flip.sh",
        "bash scripts/test.sh",
    ]
    assert (DOCS / "images/report.png").stat().st_size < 200_000


def test_the_map_has_the_orders_of_the_architecture_test():
    text = re.sub(r"upstream's module names", UPSTREAM, (DOCS / "architecture.md").read_text(encoding="utf-8"))
    shown = [levels(line) for line in re.findall(r"`([^`\n]+ < [^`\n]+)`", text)]
    for package in ("flip_plugin", "flip_plugin.evals", "open_instruct", "datasets_prep"):
        assert levels(ORDERS[package]) in shown, f"docs/architecture.md lacks the order of {package}"


@pytest.mark.parametrize("package", ["flip_plugin", "open_instruct"])
def test_pictures_show_the_imports_between_folders(package):
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    section = text.split(f"\n### {package}\n")[1]
    picture = re.findall(r"^```mermaid\n(.*?)^```", section, re.M | re.S)[0]
    drawn = set(arrows(picture))
    nodes = set(re.findall(r"\b[a-z]\w+\b", picture.split("\n", 1)[1]))
    folders = {folder.name for folder in PACKAGES[package].iterdir() if (folder / "__init__.py").exists()}
    real = {one for one in folder_imports(package) if nodes.issuperset(one)}
    assert folders <= nodes, "a folder is not in the picture"
    assert drawn <= real, "an arrow without an import"
    assert real <= closure(drawn), "an import that the arrows do not show"


def arrows(picture: str) -> Iterator[tuple[str, str]]:
    """(from, to) of a Mermaid flowchart whose lines are ``a & b --> c --> d``."""
    for line in picture.splitlines():
        stops = [re.findall(r"\w+", stop) for stop in line.split("-->")]
        for sources, targets in pairwise(stops):
            yield from product(sources, targets)


def folder_imports(package: str) -> set[tuple[str, str]]:
    """(importer, imported) among the folders and modules at the root of a package."""
    both = [(one.importer.split("."), one.imported.split(".")) for one in all_imports()]
    return {(a[1], b[1]) for a, b in both if a[0] == b[0] == package and min(len(a), len(b)) > 1 and a[1] != b[1]}


def closure(graph: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """All pairs of which the second can be reached from the first."""
    reached = set(graph)
    while more := {(a, d) for a, b in reached for c, d in graph if b == c} - reached:
        reached |= more
    return reached


UPSTREAM = (
    "grpo_utils data_loader vllm_utils ground_truth_utils judge_utils dataset_transformation rl_utils model_utils "
    "logger_utils"
)


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    html = (tmp_path / "site/api/flip_plugin.html").read_text(encoding="utf-8")
    assert "Judge one response to a prompt" in html  # from a docstring
    fetched = re.findall(r"""<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)=["'](https?:[^"']+)""", html)
    assert not fetched
