"""Finding result rows of finished runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from flip_plugin.evals.records.items import Cell

#: What no judge picked: best-of-N's limits.
BOUNDS = ("oracle", "random")


def find(cells: Iterable[Cell], **wanted: str) -> Cell | None:
    """The first cell whose fields are as wanted."""
    return next((cell for cell in cells if all(getattr(cell, name) == value for name, value in wanted.items())), None)


def distinct(cells: Iterable[Cell], of: Callable[[Cell], str]) -> list[str]:
    """What `of` says of the cells, each once, in their order."""
    return list(dict.fromkeys(of(cell) for cell in cells))


def primary(cells: Iterable[Cell]) -> list[Cell]:
    """Of the GRPO table's cells those of each benchmark's own metric."""
    return [cell for cell in cells if cell.note.startswith("primary")]


_CANDIDATES = re.compile(r"(?:(?P<of>.*\S)\W+)?N\s*=\s*(?P<n>\d+)$")


def candidates(cell: Cell) -> tuple[str, int] | None:
    """Of a best-of-N cell what it is of ("" for one benchmark alone) and N; None for other cells.

    >>> [candidates(Cell("best_of_n", "j", "flip", group, "m", 0.5)) for group in ("N=8", "ifeval: N=4", "all")]
    [('', 8), ('ifeval', 4), None]
    """
    match = _CANDIDATES.fullmatch(cell.group)
    return ((match["of"] or "").strip(" :/,"), int(match["n"])) if match else None
