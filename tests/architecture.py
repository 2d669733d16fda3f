"""The order in which folders may use each other; ``python -m tests.architecture`` prints what breaks it.

Each line of `ORDERS` is a package or a folder; what stands in it may import only what stands left of it, and
names between the same bars may not import each other. An import inside a function counts, too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Package -> where its modules are.
PACKAGES = {
    "flip_plugin": ROOT / "flip_plugin",
    "open_instruct": ROOT / "open-instruct" / "open_instruct",
    "datasets_prep": ROOT / "datasets_prep",
}

#: Package -> the other packages that it may import.
BETWEEN_PACKAGES: Mapping[str, set[str]] = {
    "flip_plugin": set(),
    "open_instruct": {"flip_plugin"},
    "datasets_prep": {"flip_plugin"},
}
#: The one module of the library that knows the trainer: it plugs FLIP into ours and into upstream's.
EXCEPTIONS = {("flip_plugin.verifier", "open_instruct")}

#: Of a package or a folder: its folders and modules, from those that use nothing to those that use the rest.
ORDERS = {
    "flip_plugin": (
        "errors versions plugins < files answers < text < pages replies prompts < rows < judge < reward < serving"
        " < metrics parsing < adapters < verifier < launch < evals < commands < cli"
    ),
    "flip_plugin.evals": "records < judges < stats < data < attacks < lm_eval < tasks < report < commands",
    "flip_plugin.evals.report": "text < input < claims < output",
    "open_instruct": (
        "config < data < state < verifiers < rewards < engines < learner < rollout < trackers report < run"
        " < grpo_utils data_loader vllm_utils ground_truth_utils judge_utils dataset_transformation rl_utils"
        " model_utils logger_utils < grpo_fast"
    ),
    "datasets_prep": (
        "reading < settings < filters < writing publish < prepare validate < tag wildchat lmsys ultrafeedback"
        " < tiny_world"
    ),
    "datasets_prep.tiny_world": (
        "language < rows wildchat_sample verifier < lm_eval_task training < eval_sets build < build_judges"
    ),
}


@dataclass(frozen=True)
class Import:
    """One import: module `importer` in `file`, `line`, takes something from module `imported`."""

    importer: str
    imported: str
    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.importer} imports {self.imported}"


def modules() -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = file
    return found


def imports_of(importer: str, file: Path, known: Mapping[str, Path]) -> Iterator[Import]:
    """The imports of our own modules in a file, wherever they stand in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"{file}:{node.lineno}: a relative import: write the whole name")
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            taken = {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            taken = {alias.name for alias in node.names}
        else:
            continue
        for imported in sorted(taken):
            if imported.split(".")[0] in PACKAGES:
                yield Import(importer, imported, file, node.lineno)


def all_imports() -> list[Import]:
    """The imports between modules of the three packages."""
    known = modules()
    return [one for name, file in known.items() for one in imports_of(name, file, known)]


def levels(order: str) -> dict[str, int]:
    """Name -> how far right it stands in a line of `ORDERS`."""
    return {name: level for level, names in enumerate(order.split("<")) for name in names.split()}


def problem_of(one: Import) -> str | None:
    """Why an import is against the order, or None."""
    source, target = one.importer.split("."), one.imported.split(".")
    if source[0] != target[0]:
        if target[0] in BETWEEN_PACKAGES[source[0]] or (one.importer, target[0]) in EXCEPTIONS:
            return None
        return f"{one}: {source[0]} must not use {target[0]}"
    for depth in range(1, min(len(source), len(target))):
        folder = ".".join(source[:depth])
        if source[:depth] != target[:depth] or folder not in ORDERS:
            return None
        here, there = source[depth], target[depth]
        if here == there:
            continue
        known = levels(ORDERS[folder])
        for name in (here, there):
            if name not in known:
                return f"{one}: {folder}.{name} has no place in the order of {folder}"
        if known[there] < known[here]:
            return None
        return f"{one}: in {folder}, {here} must not use {there} ({ORDERS[folder]})"
    return None


def circles(imports: list[Import]) -> list[str]:
    """Groups of modules that import each other in a circle, each as a line."""
    graph: dict[str, set[str]] = {}
    for one in imports:
        graph.setdefault(one.importer, set()).add(one.imported)

    def reachable(start: str) -> set[str]:
        seen, todo = set(), list(graph.get(start, ()))
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += graph.get(name, ())
        return seen

    reach = {name: reachable(name) for name in graph}
    found = {frozenset(n for n in reach[name] if name in reach.get(n, ())) for name in graph if name in reach[name]}
    return [f"circle: {' -> '.join(sorted(group))}" for group in found]


def problems() -> list[str]:
    """All that is against the order, a line each."""
    imports = all_imports()
    return [text for one in imports if (text := problem_of(one))] + circles(imports)


if __name__ == "__main__":
    lines = problems()
    print("\n".join(lines) or "no import against the order, no circle")
    sys.exit(bool(lines))
